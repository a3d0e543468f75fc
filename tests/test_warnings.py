"""A warning fails the test that causes it, in whatever process; a library's about itself fails none elsewhere."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

WARN = "import warnings; warnings.warn_explicit('old', DeprecationWarning, 'file.py', 1, module={!r})"


def test_a_warning_is_an_error() -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize(("module", "status"), [("artifacts.store", 1), ("tasks.gate", 1), ("json.decoder", 0)])
def test_a_warning_of_ours_is_an_error_in_other_processes(module: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", WARN.format(module)], stderr=subprocess.PIPE)
    assert done.returncode == status, done.stderr
