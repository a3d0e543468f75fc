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
HUB_HUMAN_EVAL_PLUS = {
    "task_id": "HumanEval/0",
    "prompt": '\n\ndef scaled(xs: list, by: float) -> list:\n    """Every number times `by`."""\n',
    "canonical_solution": "\n    return [x * by for x in xs]\n\n",
    "entry_point": "scaled",
    "test": "\n\nimport numpy as np\n\ndef is_floats(x) -> bool:\n    return isinstance(x, list) and "
    "all(isinstance(i, float) for i in x)\n\n\ndef assertion(out, exp, atol):\n    exact_match = out == exp\n\n"
    "    if atol == 0 and is_floats(exp):\n        atol = 1e-6\n    if not exact_match and atol != 0:\n"
    "        np.testing.assert_allclose(out, exp, atol=atol)\n    else:\n        assert exact_match\n\n\n"
    "def check(candidate):\n    inputs = [[[1, 2], 3], [[0.1, 0.7], 3.0]]\n"
    "    results = [[3, 6], [0.3, 2.1]]\n    for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
    "        assertion(candidate(*inp), exp, 0)\n",
}
"""As the hub has HumanEval+: the inputs of EvalPlus's own file within `check`, compared by numpy."""
HUB_MBPP_PLUS = {
    "task_id": 2,
    "code": "def shared(a, b):\n  return tuple(set(a) & set(b))",
    "prompt": "Write a function to find the shared elements from the given two tuples.",
    "source_file": "Benchmark Questions Verification V2.ipynb",
    "test_imports": ["import math"],
    "test_list": ["assert set(shared((3, 4), (4, 7))) == set((4,))"],
    "test": "import numpy as np\nfrom math import inf\n\n"
    "def is_floats(x) -> bool:\n    return isinstance(x, float)\n\n\n"
    "def assertion(out, exp, atol):\n    out = set(out)\n    exp = set(exp)\n    exact_match = out == exp\n"
    "    if atol == 0 and is_floats(exp):\n        atol = 1e-6\n    if out != exp and atol != 0:\n"
    "        assert np.allclose(out, exp, rtol=1e-07, atol=atol)\n    else:\n"
    '        assert out == exp, f"out: {out}, exp: {exp}"\n\n\n'
    "inputs = [[(3, 4, 5, 6), (5, 7, 4, 10)], [(1, inf), (inf,)]]\nresults = [(4, 5), (inf,)]\n"
    "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(shared(*inp), exp, 0)\n",
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
