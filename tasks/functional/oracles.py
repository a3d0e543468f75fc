"""When an answer counts as right, by EvalPlus's rules. Runs inside the sandbox, so it imports nothing of codetune."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

_ANY_ORDER = (
    *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
    *("intersection_array", "find_dissimilar", "Diff"),
)
_ANY_TRUTH = ("check_str", "text_match_three", "text_starta_endb")
_RELATIVE = 1e-7


def agreement(suite: str, entry_point: str, tolerance: float) -> Callable[[list[Any], Any, Any], bool]:
    """What tells for a problem of `humaneval` or `mbpp` whether a value agrees with the expected one, given the inputs.

    A tolerance of 0 becomes 1e-6 with the first expected floats, and stays so.
    """
    allowed = tolerance

    def agrees(inputs: list[Any], found: Any, expected: Any) -> bool:
        nonlocal allowed
        if suite == "humaneval" and entry_point == "find_zero":
            return bool(abs(sum(factor * math.pow(found, power) for power, factor in enumerate(inputs[0]))) <= allowed)
        same = found == expected
        if suite == "mbpp":
            same = _same_in_mbpp(entry_point, inputs, found, expected, same, allowed)
        if allowed == 0 and _is_floats(expected):
            allowed = 1e-6
        # The truth of several answers at once, which numpy gives for a comparison, is an error there as here.
        if same:
            return True
        return allowed != 0 and type(found) is type(expected) and _all_close(found, expected, allowed)

    return agrees


def _same_in_mbpp(entry: str, inputs: list[Any], found: Any, expected: Any, same: Any, allowed: float) -> Any:
    if entry in _ANY_ORDER:
        return set(found) == set(expected)
    if entry in _ANY_TRUTH:
        return (found if isinstance(found, bool) else found is not None) == (expected is not None)
    match entry:
        case "are_equivalent":
            return True
        case "sum_div":
            return same or found == 0
        case "surface_Area":
            edge, height = inputs  # the height is that of the apex above the base, not that of a side
            return same or abs(found - round(edge**2 + 2 * edge * math.hypot(edge / 2, height))) <= allowed
        case "digit_distance_nums":
            digits = [str(number) for number in inputs]
            width = max(map(len, digits))
            pairs = zip(*(text.zfill(width) for text in digits), strict=True)
            return same or found == sum(abs(int(one) - int(other)) for one, other in pairs)
    return same


def _is_floats(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float) or str(getattr(value, "dtype", "")) in ("float64", "float32")


def _all_close(found: Any, expected: Any, allowed: float) -> bool:
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(found, (list, tuple))
            and len(found) == len(expected)
            and all(_all_close(one, other, allowed) for one, other in zip(found, expected, strict=True))
        )
    numbers = (int, float, complex)
    if not (isinstance(found, numbers) and isinstance(expected, numbers)):
        return False  # numpy cannot compare them with a tolerance
    if found == expected or (found != found and expected != expected):  # infinities, and NaN like NaN
        return True
    return abs(found - expected) <= allowed + _RELATIVE * abs(expected)
