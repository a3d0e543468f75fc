from __future__ import annotations

import gc

from artifacts.garbage import SELDOM, collected_seldom


def test_afterwards_garbage_is_collected_as_before_and_what_was_loaded_is_left_alone() -> None:
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(700, 10, 10)
    try:
        with collected_seldom():
            assert gc.get_threshold() == SELDOM
            loaded = [[number] for number in range(1000)]
        assert gc.get_threshold() == (700, 10, 10) and gc.get_freeze_count() >= frozen + len(loaded)
        cycle: list[object] = []
        cycle.append(cycle)
        del cycle
        assert gc.collect() >= 1
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
