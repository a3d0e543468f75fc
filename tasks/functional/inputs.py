"""The arguments of MBPP+'s problems as their authors mean them: JSON has no tuples, sets and complex numbers.

EvalPlus (Liu et al. 2023, arXiv:2305.01210) writes all of these as lists or text, and says by the number of a problem
what they were (`mbpp_deserialize_inputs` of evalplus 0.3.1). HumanEval+ needs nothing of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

Arguments = list[Any]


def restored(task_id: str, inputs: Collection[Arguments]) -> list[Arguments]:
    """The inputs of a problem, each a list of arguments.

    Raises:
        ValueError: an input has not the shape that the problem's inputs have.
    """
    number = re.fullmatch(r"(?i:mbpp)/(\d+)", task_id)
    shape = _SHAPE_OF.get(int(number[1])) if number else None
    if shape is None:
        return list(inputs)
    try:
        return [shape(given) for given in inputs]
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"an input has not the shape of this problem's: {error}") from error


def _tuples(values: Any) -> list[Any]:
    return [tuple(value) for value in values]


def _deep_tuple(value: Any) -> Any:
    return tuple(map(_deep_tuple, value)) if isinstance(value, list) else value


_SHAPES: tuple[tuple[Callable[[Arguments], Arguments], tuple[int, ...]], ...] = (
    # every argument a tuple
    (
        _tuples,
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    ),
    # every argument a list of tuples
    (
        lambda given: [_tuples(value) for value in given],
        (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    ),
    # every argument a tuple of tuples
    (lambda given: [tuple(_tuples(value)) for value in given], (259, 401, 445)),
    # the first argument a list of tuples
    (lambda given: [_tuples(given[0]), *given[1:]], (75, 413, 444, 753)),
    # the first argument a tuple
    (lambda given: [tuple(given[0]), *given[1:]], (250, 307, 405, 446, 617, 720, 763, 808)),
    # the second argument a tuple
    (lambda given: [given[0], tuple(given[1])], (106, 750)),
    # a tuple with tuples in it
    (lambda given: [tuple(tuple(item) if isinstance(item, list) else item for item in given[0])], (278,)),
    # lists in lists, all of them tuples
    (lambda given: [_deep_tuple(value) for value in given], (580, 615, 791)),
    # a list of sets; an empty one is an empty dictionary there
    (lambda given: [[set(item) if isinstance(item, list) and item else {} for item in given[0]]], (115,)),
    (lambda given: [{name: tuple(value) for name, value in given[0].items()}, *given[1:]], (722,)),
    (lambda given: [float(given[0]), complex(given[1])], (124,)),
    (lambda given: [complex(given[0])], (252,)),
)
_SHAPE_OF = {number: shape for shape, numbers in _SHAPES for number in numbers}
