from __future__ import annotations

import gc

import pytest

from artifacts.garbage import SELDOM, collected_seldom


def test_garbage_is_collected_as_before_once_all_is_imported() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        with pytest.raises(ImportError), collected_seldom():
            assert gc.get_threshold() == SELDOM
            raise ImportError
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*usual)
