"""Tests by comparing with a reference solution, for suites that give inputs instead of assertions (EvalPlus).

The rules are EvalPlus's (Liu et al. 2023, arXiv:2305.01210): equal, or close where floats are expected or a tolerance
is given; a few functions of MBPP+ may answer in any order or with anything true; `find_zero` has to find a root.
Reference and comparison run where the program cannot reach them.
"""

from __future__ import annotations

from typing import Any

_ANY_ORDER = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array",
    "find_dissimilar", "Diff",
)  # fmt: skip
_ANY_TRUTH = ("check_str", "text_match_three", "text_starta_endb")
_FLOATS = 1e-6
"""Absolute tolerance of floats where the suite names none."""

_COMPARE = """
import copy as _copy
import math as _math


def _floats(value):
    return isinstance(value, float) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value)
    )


def _close(found, expected, tolerance):
    if isinstance(expected, (list, tuple)):
        return (
            type(found) is type(expected)
            and len(found) == len(expected)
            and all(_close(one, other, tolerance) for one, other in zip(found, expected))
        )
    if isinstance(expected, float) or (isinstance(found, float) and isinstance(expected, int)):
        if not isinstance(found, (int, float)):
            return False
        both = _math.isnan(found) and _math.isnan(expected)
        return both or _math.isclose(found, expected, rel_tol=1e-7, abs_tol=tolerance)
    return type(found) is type(expected) and found == expected


def _agree(name, inputs, found, expected, tolerance):
    if name == "find_zero":
        return abs(sum(factor * _math.pow(found, power) for power, factor in enumerate(inputs[0]))) <= tolerance
    if name in ANY_ORDER:
        try:
            found, expected = set(found), set(expected)
        except TypeError:
            pass
    if name in ANY_TRUTH:
        found, expected = (value if isinstance(value, bool) else value is not None for value in (found, expected))
    if found == expected:
        return True
    if not tolerance and _floats(expected):
        tolerance = FLOATS
    return bool(tolerance) and _close(found, expected, tolerance)


for _inputs in INPUTS:
    _expected = _reference(*_copy.deepcopy(_inputs))
    _found = ENTRY(*_copy.deepcopy(_inputs))
    assert _agree("ENTRY", _inputs, _found, _expected, TOLERANCE), f"ENTRY{tuple(_inputs)!r:.100}: {_found!r:.100}"
"""


def reference(source: str, entry_point: str) -> str:
    """Code that binds `_reference` to the suite's own solution, in a name space of its own: it may call itself."""
    return f"_space = {{}}\nexec({source!r}, _space)\n_reference = _space[{entry_point!r}]\n"


def comparing_test(entry_point: str, inputs: list[Any], tolerance: float) -> str:
    """A test that compares with `_reference` on every input (a list of arguments each)."""
    values = {
        "ANY_ORDER": repr(_ANY_ORDER),
        "ANY_TRUTH": repr(_ANY_TRUTH),
        "FLOATS": repr(_FLOATS),
        "INPUTS": "_all_inputs",
        "TOLERANCE": repr(float(tolerance)),
        "ENTRY": entry_point,
    }
    body = _COMPARE
    for name, value in values.items():
        body = body.replace(name, value)
    # Infinity and NaN come out of JSON files and have no literal.
    return f"inf, nan = float('inf'), float('nan')\n_all_inputs = {inputs!r}\n{body}"
