"""`codetune score`: completions that anybody made, against a functional suite."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from artifacts.errors import InputError
from flows.commands.options import SECONDS, THREADS, Json, given_path
from flows.output import Console

if TYPE_CHECKING:
    from artifacts.schema import Protection
    from tasks.functional import Scores, Suite

_USUAL = (1, 10, 100)


def score(
    suite: Annotated[
        str,
        Parameter(
            help="The name of a functional suite, such as humaneval or mbpp+ (an unknown name lists all), or a file of "
            "such problems (.jsonl, .jsonl.gz, .json, .parquet)."
        ),
    ],
    *,
    completions: Annotated[
        Path,
        Parameter(
            converter=given_path, help="A file with rows `task_id, completion`, or EvalPlus's `task_id, solution`."
        ),
    ],
    k: Annotated[
        str | None, Parameter(name="--k", help="Which pass@k: 1,10. Default: of 1, 10 and 100 those that can be told.")
    ] = None,
    seconds: Annotated[
        float, Parameter(validator=SECONDS, help="Wall clock that one program and its test may take.")
    ] = 10,
    memory: Annotated[
        int, Parameter(validator=Number(gte=64, lte=1 << 20), help="MiB of address space that each of both may use.")
    ] = 1024,
    workers: Annotated[
        int | None, Parameter(validator=THREADS, help="Programs at a time. Default: one per processor.")
    ] = None,
    allow_weak_sandbox: Annotated[
        bool, Parameter(help="Run the code even where the sandbox lacks a required layer.", negative="")
    ] = False,
    as_json: Json = False,
) -> int:
    """Run completions against a suite's tests in the sandbox: pass@k."""
    from tasks import functional, sandbox

    limits = sandbox.Limits(seconds=seconds, memory_mib=memory)
    wanted = _numbers(k)
    problems = functional.suite(suite)
    rows = functional.read_completions(completions, problems)
    fewest = min(Counter(row.task_id for row in rows).values())
    functional.check_tries(wanted or [], fewest)
    protection = sandbox.check(allow_weak=allow_weak_sandbox)
    left_out = functional.unsound(problems, limits, workers, allow_weak=allow_weak_sandbox)
    rows = [row for row in rows if row.task_id not in left_out]
    if not rows:
        raise InputError(functional.in_words(problems.name, left_out), field="suite", remedy="name another suite")
    verdicts = list(functional.check(problems, rows, limits, workers, allow_weak=allow_weak_sandbox))
    scores = functional.score(verdicts, wanted or [k for k in _USUAL if k <= fewest])
    if as_json:
        print(json.dumps(_as_json(problems, left_out, scores, protection)))
    else:
        if left_out:
            Console(stderr=True, soft_wrap=True, markup=False).print(functional.in_words(problems.name, left_out))
        _show(problems.name, scores, protection)
    return 0


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"{text!r} is no list of numbers", field="--k", remedy="write --k 1,10") from error


def _as_json(suite: Suite, left_out: dict[str, str], scores: Scores, protection: Protection) -> dict[str, object]:
    return {
        "suite": suite.name,
        "fingerprint": suite.fingerprint,
        "left_out": left_out,
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
    console = Console(highlight=False, soft_wrap=True)
    rows = [
        (_printable(one.id), one.outcome, _printable("raised StopIteration" if one.stopped else one.detail))
        for one in scores.verdicts
        if not one.passed or one.stopped
    ]
    task, outcome = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    # one text: a table of rich's takes a millisecond a row, and there may be as many rows as completions
    lines = "\n".join(f"{row[0]:<{task}}  {row[1]:<{outcome}}  {row[2]}".rstrip() for row in rows)
    console.print(lines, markup=False, end="\n" if lines else "")
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in scores.outcomes.items())
    counts = f"{scores.problems:,} problems, {scores.completions:,} completions: {outcomes}"
    console.print(f"\n{name}: {counts}", markup=False)
    if scores.stopped:
        console.print(
            f"{scores.stopped:,} of those that passed raised StopIteration: it can end a loop of the test before its"
            " last case"
        )
    for k, value in scores.pass_at.items():
        console.print(f"[bold]pass@{k}  {value:.1%}[/]")
    console.print(f"sandbox: {protection.summary}", markup=False)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
