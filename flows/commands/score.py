"""`codetune score`: completions that anybody made, against a functional suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from artifacts.errors import InputError
from flows.commands.options import SECONDS, THREADS, Json, given_path

if TYPE_CHECKING:
    from artifacts.schema import Protection
    from tasks.functional import Scores
    from tasks.sandbox import Verdict

_USUAL = (1, 10, 100)


def score(
    suite: Annotated[
        str,
        Parameter(
            help="humaneval, humaneval+, mbpp+, humaneval-infilling-single-line, -multi-line or -random-span; "
            "or a file of such problems (.jsonl, .jsonl.gz, .parquet)."
        ),
    ],
    *,
    completions: Annotated[
        Path, Parameter(converter=given_path, help="A JSON Lines file with rows `task_id, completion`.")
    ],
    k: Annotated[
        str | None, Parameter(name="--k", help="Which pass@k: 1,10. Default: of 1, 10 and 100 those that can be told.")
    ] = None,
    seconds: Annotated[
        float, Parameter(validator=SECONDS, help="Wall clock that one program and its test may take.")
    ] = 10,
    workers: Annotated[
        int | None, Parameter(validator=THREADS, help="Programs at a time. Default: one per processor.")
    ] = None,
    allow_weak_sandbox: Annotated[
        bool, Parameter(help="Run the code even where the sandbox is below its floor.", negative="")
    ] = False,
    as_json: Json = False,
) -> int:
    """Run completions against a suite's tests in the sandbox: pass@k."""
    from tasks import functional, sandbox

    limits = sandbox.Limits(seconds=seconds)
    wanted = _numbers(k)
    problems = functional.suite(suite)
    rows = functional.read_completions(completions, problems)
    fewest = min(sum(row.task_id == problem.task_id for row in rows) for problem in problems.problems)
    functional.check_tries(wanted or [], fewest)
    protection = sandbox.check(allow_weak=allow_weak_sandbox)
    verdicts = list(functional.check(problems, rows, limits, workers, allow_weak=allow_weak_sandbox))
    scores = functional.score(verdicts, wanted or [k for k in _USUAL if k <= fewest])
    if as_json:
        print(json.dumps(_as_json(problems.name, problems.fingerprint, scores, protection)))
    else:
        _show(problems.name, scores, protection)
    return 0


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"{text!r} is no list of numbers", field="--k", remedy="write --k 1,10") from error


def _as_json(name: str, fingerprint: str, scores: Scores, protection: Protection) -> dict[str, object]:
    return {
        "suite": name,
        "fingerprint": fingerprint,
        **{f"pass@{k}": value for k, value in scores.pass_at.items()},
        "problems": scores.problems,
        "completions": scores.completions,
        "outcomes": scores.outcomes,
        "stopped": scores.stopped,
        "sandbox": protection.model_dump(),
        "verdicts": [
            {
                "task_id": one.id,
                "passed": one.passed,
                **one.model_dump(include={"outcome", "stopped", "detail", "seconds"}),
            }
            for one in scores.verdicts
        ],
    }


def _show(name: str, scores: Scores, protection: Protection) -> None:
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("task", "verdict", "why"):
        table.add_column(column, overflow="fold")
    for one in scores.verdicts:
        if not one.passed or one.stopped:
            table.add_row(*_row(one))
    if table.row_count:
        console.print(table)
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in scores.outcomes.items())
    console.print(f"\n{name}: {scores.problems:,} problems, {scores.completions:,} completions: {outcomes}")
    if scores.stopped:
        console.print(
            f"{scores.stopped:,} of those that passed raised StopIteration: it can end a loop of the test before its"
            " last case"
        )
    for k, value in scores.pass_at.items():
        console.print(f"[bold]pass@{k}  {value:.1%}[/]")
    console.print(f"sandbox: {protection.summary}", markup=False)


def _row(verdict: Verdict) -> tuple[str, str, str]:
    from rich.markup import escape

    why = "raised StopIteration" if verdict.stopped else verdict.detail
    return escape(verdict.id), verdict.outcome, escape(why)
