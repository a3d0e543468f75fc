"""The real HumanEval where it is at hand, and small suites of every form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tasks import functional

_PLACES = [Path(__file__).parents[4] / "shared", Path(__file__).parents[3] / "shared"]
HUMAN_EVAL = next(
    (path for place in _PLACES if (path := place / "data" / "human-eval" / "HumanEval.jsonl.gz").is_file()),
    None,
)


@cache
def human_eval() -> functional.Suite:
    if HUMAN_EVAL is None:
        pytest.skip("HumanEval.jsonl.gz is not there (../shared/data/human-eval)")
    return functional.read_suite(HUMAN_EVAL)


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    """A problem in HumanEval's form."""
    return {
        "task_id": f"T/{number}",
        "prompt": 'def twice(x):\n    """Twice x."""\n',
        "canonical_solution": "    return x * 2\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate('a') == 'aa'\n",
        "entry_point": "twice",
        **changed,
    }


EVAL_PLUS = {
    "task_id": "HumanEval/1",
    "prompt": 'def mean(xs):\n    """The mean."""\n',
    "entry_point": "mean",
    "canonical_solution": "    if len(xs) < 3:\n        return sum(xs) / len(xs)\n"
    "    return (xs[0] + mean(xs[1:]) * (len(xs) - 1)) / len(xs)\n",
    "base_input": [[[1.0, 2.0]]],
    "plus_input": [[[0.1, 0.2, 0.3]], [[3, 4]]],
    "atol": 0,
}
MBPP = {
    "task_id": 2,
    "code": "def similar(a, b):\n  return tuple(set(a) & set(b))",
    "prompt": "Write a function to find the shared elements.",
    "test_imports": ["import math"],
    "test_list": ["assert set(similar((3, 4), (4, 7))) == set((4,))", "assert set(similar((1, 2), (3,))) == set()"],
    "test": "import numpy as np\nassert np.allclose(sorted(similar((3, 4), (4, 7))), [4])\n"
    "assert set(similar((1, 2), (3,))) == set()\n",
}
INFILLING = {
    **row(),
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "prompt": "def twice(x):\n    y = x\n",
    "suffix": "    return y\n",
    "canonical_solution": "    y = y + x\n",
}


def write(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
