"""Suites in the forms of their authors, with the rows that are awkward in the published files: the suite's own solution
passes, a stub does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from tasks import functional
from tasks.functional import Solution
from tasks.functional.inputs import restored
from tests.tasks.functional.suites import EVAL_PLUS, row, write


def mbpp(number: int, code: str, *asserts: str, **more: Any) -> dict[str, Any]:
    """A row as MBPP's own file has it."""
    return {
        **{"task_id": number, "text": "Write a function.", "code": code, "test_list": list(asserts)},
        **{"test_setup_code": "", "challenge_test_list": []},
        **more,
    }


def plus(task_id: str, entry: str, parameters: str, body: str, base: Any, more: Any, atol: float = 0) -> dict[str, Any]:
    """A row as EvalPlus's own file has it."""
    return {
        **{"task_id": task_id, "entry_point": entry, "prompt": f'def {entry}({parameters}):\n    """Does it."""\n'},
        **{"canonical_solution": body, "base_input": base, "plus_input": more, "atol": atol, "contract": ""},
    }


PAIR = "class Pair(object):\n    def __init__(self, a, b):\n        self.a = a\n        self.b = b\n"
NODE = "class Node:\n    def __init__(self, data):\n        self.data, self.left, self.right = data, None, None\n"
MBPP_ROWS = {
    "named like a built-in": mbpp(
        126,
        "def sum(a,b):\r\n    total = 0\r\n    for i in range(1, min(a, b) + 1):\r\n"
        "        if a % i == 0 and b % i == 0:\r\n            total += i\r\n    return total",
        "assert sum(10,15) == 6",
        "assert sum(100,150) == 93",
    ),
    "objects as arguments": mbpp(
        601,
        PAIR + "def longest(arr, n):\n    return max(p.b - p.a for p in arr) + n\n",
        "assert longest([Pair(5, 24), Pair(15, 25)], 2) == 21",
        "assert longest([Pair(1, 2)], 1) == 2",
    ),
    "setup with the program's class": mbpp(
        367,
        NODE + "def depth(root):\n    return 0 if root is None else 1 + max(depth(root.left), depth(root.right))\n",
        "assert depth(root) == 2",
        test_setup_code="root = Node(1)\nroot.left = Node(2)\n",
    ),
    "within set": mbpp(
        2, "def shared(a, b):\n  return tuple(set(a) & set(b))", "assert set(shared((3, 4), (4, 7))) == set((4,))"
    ),
    "a helper of its own": mbpp(
        3, "def helper(n): return n + 1\ndef f(n): return helper(n)", "assert f(helper(1)) == 3", "assert f(1) == 2"
    ),
    "a lambda": mbpp(4, "f = lambda n: n + 1", "assert f(1) == 2"),
    "imports for the test": {
        **{"source_file": "x.ipynb", "task_id": 82, "prompt": "Write it.", "test_imports": ["import math"]},
        **{"code": "import math\ndef volume(r):\n  return (4/3)*math.pi*r*r*r"},
        "test_list": ["assert math.isclose(volume(10), 4188.790204786391, rel_tol=0.001)"],
    },
}
PLUS_ROWS = {
    "tuples": plus("Mbpp/116", "joined", "t", "    return int(''.join(map(str, t)))\n", [[[1, 2]]], [[[3]]]),
    "tuples that must be tuples": plus("Mbpp/2", "same", "a, b", "    return a + b\n", [[[1], [2]]], {}),
    "no inputs": plus("Mbpp/3", "f", "x", "    return x + 1\n", [[1]], {}),
    "sets": plus("Mbpp/115", "empty", "xs", "    return [type(x).__name__ for x in xs]\n", [[[[1], []]]], []),
    "complex": plus("Mbpp/252", "polar", "z", "    return (abs(z), z.imag)\n", [["1+2j"]], [["3j"]]),
    "a float and a complex": plus("Mbpp/124", "angle", "a, z", "    return a + abs(z)\n", [["1.5", "2j"]], []),
    "deep tuples": plus("Mbpp/580", "deep", "t", "    return hash(t) == hash(t) and t\n", [[[1, [2, [3]]]]], []),
    "any order": plus("Mbpp/7", "find_char_long", "s", "    return list(set(s.split()))\n", [["a b c"]], []),
    "the pyramid": plus("Mbpp/581", "surface_Area", "b, s", "    return 2 * b * s + b ** 2\n", [[3, 4]], [[4, 5]]),
    "floats": {**EVAL_PLUS},
    "a tolerance": plus("HumanEval/2", "frac", "x", "    return x % 1.0\n", [[3.5]], [[1e-9]], 1e-6),
    "a root": plus("HumanEval/32", "find_zero", "xs", "    return -xs[0] / xs[1]\n", [[[1, 2]]], [[[2, 1]]], 1e-4),
}


def verdicts(form: dict[str, Any], tmp_path: Path) -> list[bool]:
    """Of the suite's own solution, and of a stub."""
    suite = functional.read_suite(write(tmp_path / "s.jsonl", form))
    (problem,) = suite.problems
    stub = f"def {problem.entry_point}(*given):\n    pass\n"
    made = [
        Solution(task_id=problem.task_id, completion=problem.canonical_solution),
        Solution(task_id=problem.task_id, completion=stub, is_program=True),
    ]
    return [one.passed for one in functional.check(suite, made)]


@pytest.mark.parametrize("form", [*MBPP_ROWS.values(), *PLUS_ROWS.values()], ids=[*MBPP_ROWS, *PLUS_ROWS])
def test_the_solution_passes_and_a_stub_does_not(form: dict[str, Any], tmp_path: Path) -> None:
    assert verdicts(form, tmp_path) == [True, False]


def test_a_json_array_with_whole_numbers_as_ids_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sanitized-mbpp.json"
    path.write_text(json.dumps([MBPP_ROWS["imports for the test"], MBPP_ROWS["within set"]], indent=1))
    suite = functional.read_suite(path)
    assert [one.task_id for one in suite.problems] == ["Mbpp/82", "Mbpp/2"]
    assert functional.unsound(suite) == {}


def test_evalplus_samples_are_whole_programs(tmp_path: Path) -> None:
    suite = functional.read_suite(write(tmp_path / "s.jsonl", MBPP_ROWS["within set"], row(0)))
    samples = [
        {"task_id": 2, "solution": "def shared(a, b):\n    return tuple(set(a) & set(b))\n"},
        {"task_id": "T/0", "solution": "def twice(x):\n    return x + x\n"},
    ]
    made = functional.read_completions(write(tmp_path / "samples.jsonl", *samples), suite)
    assert [one.passed for one in functional.check(suite, made)] == [True, True]


@pytest.mark.parametrize(
    "foreign",
    [
        {"task_id": "CPP/0", "prompt": "int f();", "declaration": "int f();", "canonical_solution": "", "test": ""},
        {"task_id": "Rust/3", "prompt": "fn f()", "entry_point": "f", "canonical_solution": "", "test": ""},
        {"name": "HumanEval_0_has_close_elements", "language": "lua", "prompt": "--", "tests": "", "stop_tokens": []},
    ],
    ids=["HumanEval-X", "HumanEvalPack", "MultiPL-E"],
)
def test_a_suite_of_another_language_is_refused_as_such(foreign: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        functional.read_suite(write(tmp_path / "s.jsonl", foreign))
    assert caught.value.field == "suite"


def test_arguments_are_what_their_authors_mean() -> None:
    assert restored("Mbpp/722", [[{"a": [1, 2]}, 3]]) == [[{"a": (1, 2)}, 3]]
    assert restored("Mbpp/106", [[[1], [2, 3]]]) == [[[1], (2, 3)]]
    assert restored("Mbpp/259", [[[[1, 2]], [[3]]]]) == [[((1, 2),), ((3,),)]]
    assert restored("Mbpp/278", [[[1, [2, 3]]]]) == [[(1, (2, 3))]]
    assert restored("HumanEval/2", [[[1, 2]]]) == [[[1, 2]]]
    with pytest.raises(ValueError, match="shape"):
        restored("Mbpp/722", [[3]])
