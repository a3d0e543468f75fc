"""Tests by comparing with a reference solution, for suites that give inputs instead of assertions (EvalPlus).

The rules are those of evalplus 0.3.1 (Liu et al. 2023, arXiv:2305.01210): equal, or close where floats are expected or
a tolerance is given; a few problems take answers in any order, anything true, or a second reading of their text; one
call may take the larger of a second and four times what the reference takes. Reference and comparison run where the
program cannot reach them.
"""

from __future__ import annotations

import inspect
from typing import Any

from tasks.functional import oracles


def reference(source: str, entry_point: str) -> str:
    """Code that binds `_reference` to the suite's own solution, in a name space of its own: it may call itself."""
    return f"_space = {{}}\nexec({source!r}, _space)\n_reference = _space[{entry_point!r}]\n"


def comparing_test(task_id: str, entry_point: str, inputs: list[Any], tolerance: float) -> str:
    """A test that compares with `_reference` on every input (a list of arguments each)."""
    suite = "mbpp" if task_id.lower().startswith("mbpp/") else "humaneval"
    return "\n".join(
        (
            # Infinity and NaN come out of JSON files and have no literal.
            "inf, nan = float('inf'), float('nan')",
            f"_all_inputs = {inputs!r}",
            f"_space = {{}}\nexec({inspect.getsource(oracles)!r}, _space)",
            f"_agree = _space['agreement']({suite!r}, {entry_point!r}, {float(tolerance)!r})",
            _LOOP.replace("ENTRY", entry_point),
        )
    )


_LOOP = """
import copy as _copy
import sys as _sys
import time as _time


def _shown(value):
    _sys.set_int_max_str_digits(1000)  # longer integers take seconds to write out
    try:
        return f"{value!r:.100}"
    except ValueError:
        return "(a value with a very long integer)"
    finally:
        _sys.set_int_max_str_digits(0)


for _inputs in _all_inputs:
    _started = _time.monotonic()
    _expected = _reference(*_copy.deepcopy(_inputs))
    _allowed = max(1.0, 4 * (_time.monotonic() - _started))
    _given = _copy.deepcopy(_inputs)
    _started = _time.monotonic()
    _found = ENTRY(*_given)
    if _time.monotonic() - _started > _allowed:
        raise TimeoutError(f"ENTRY{_shown(tuple(_inputs))} took more than {_allowed:.1f} s")
    assert _agree(_inputs, _found, _expected), f"ENTRY{_shown(tuple(_inputs))}: {_shown(_found)}"
"""
