"""Generations written by hand: what each side answered to each problem is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.schema import FunctionalSuite, Generations
from tasks.functional import Problem, read_suite
from tasks.generation.stage import COMPLETION_COLUMNS, LOSS_COLUMNS
from tests.tasks.functional.suites import row, write

RIGHT, WRONG, BROKEN = "    return x * 2\n", "    return x\n", "    return (\n"
Answers = Mapping[str, Sequence[str | None]]
"""By side, an answer to each problem."""


def generations(folder: Path, answers: Answers, *rows: dict[str, Any]) -> Generations:
    """As if both models had been asked a suite of these problems, or of as many plain ones as there are answers."""
    rows = rows or tuple(row(number) for number in range(len(answers["base"])))
    suite = read_suite(write(folder / "small.jsonl", *rows))
    (folder / "problems").mkdir()
    write(folder / "problems" / "small.jsonl", *(problem.model_dump() for problem in suite.problems))
    completions = [
        _completion(number, problem, {side: texts[number] for side, texts in answers.items()})
        for number, problem in enumerate(suite.problems)
    ]
    _write(folder / "completions.parquet", completions, COMPLETION_COLUMNS)
    _write(folder / "losses.parquet", [_loss(number) for number in range(8)], LOSS_COLUMNS)
    asked = FunctionalSuite(name="small", fingerprint=suite.fingerprint, problems=len(suite.problems))
    return Generations(path=folder, quantization="none", losses=8, completions=len(completions), functional=(asked,))


def _completion(number: int, problem: Problem, answers: dict[str, str | None]) -> dict[str, Any]:
    texts = {"prompt": problem.prompt, "suffix": "", "truth": problem.canonical_solution}
    names = {
        "domain": "retention",
        "suite": "small",
        "language": "Python",
        "repo": problem.parent,
        "path": problem.task_id,
    }
    return {"item": number, "line": 0, "again": None, **names, **texts, **answers}


def _loss(number: int) -> dict[str, Any]:
    names = {"domain": "held_out", "repo": f"r{number}", "path": "a.py", "language": "Python", "chunk": 0}
    return {**names, "tokens": 10, "base": 20.0, "again": None, "tuned": 18.0 + number / 10}


def _write(path: Path, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
