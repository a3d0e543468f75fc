"""Suite files in the forms that their authors publish: HumanEval, HumanEval-Infilling, EvalPlus, MBPP and MBPP+.

JSON Lines, plain or gzipped, or Parquet as the hub has it. Each row says by its fields which form it has.
"""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from artifacts.errors import InputError
from tasks.functional.comparing import comparing_test, reference
from tasks.functional.problems import Problem, Suite

_REMEDY = "mend the file, or take the original one from where it is published"


def read_suite(path: Path, name: str | None = None) -> Suite:
    """The problems of a file, in its order.

    Raises:
        InputError: no such file, a broken row, a missing field, NUL bytes, the same id twice, no problem at all; the
            row is named.
    """
    problems: dict[str, Problem] = {}
    lines: dict[str, str] = {}
    for place, row in rows_of(path):
        problem = _problem(row, place)
        if problem.task_id in problems:
            raise InputError(
                f"{place}: the task_id {problem.task_id!r} stands in {lines[problem.task_id]} already",
                field=str(path),
                remedy=_REMEDY,
            )
        problems[problem.task_id], lines[problem.task_id] = problem, place
    if not problems:
        raise InputError("there is no problem in this file", field=str(path), remedy=_REMEDY)
    return Suite(name=name or path.name.split(".")[0], problems=tuple(problems.values()))


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSON Lines or Parquet file, each with its place in words; empty lines are passed over.

    Raises:
        InputError: the file cannot be read, or a row is no JSON object.
    """
    if not path.is_file():
        raise InputError("there is no such file", field=str(path), remedy="name a .jsonl, .jsonl.gz or .parquet file")
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        yield from _json_lines(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the file cannot be read: {error}", field=str(path), remedy=_REMEDY) from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"line {number} is no JSON: {error}", field=str(path), remedy=_REMEDY) from error
            if not isinstance(row, dict):
                raise InputError(f"line {number} is no JSON object", field=str(path), remedy=_REMEDY)
            yield f"line {number} of {path.name}", row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"this is no Parquet file: {error}", field=str(path), remedy=_REMEDY) from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number} of {path.name}", row


def _problem(row: dict[str, Any], place: str) -> Problem:
    form = next((form for needed, form in _FORMS if needed <= row.keys()), _human_eval)
    problem = form(_Fields(row, place))
    for field in ("prompt", "suffix", "test", "canonical_solution", "prelude"):
        text = getattr(problem, field) or ""
        if "\0" in text:
            raise InputError(f"{place} has NUL bytes, which no Python source can have", field=field, remedy=_REMEDY)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{place} cannot be written as UTF-8: {error}", field=field, remedy=_REMEDY) from error
    return problem


class _Fields:
    """The fields of one row, each of the type that it must have."""

    def __init__(self, row: dict[str, Any], place: str) -> None:
        self.row, self.place = row, place

    def text(self, name: str, default: str | None = None) -> str:
        value: str = self._of(name, str, "text", default)
        return value

    def items(self, name: str) -> list[Any]:
        value: list[Any] = self._of(name, list, "a list", None)
        return value

    def task_id(self) -> str:
        value = self.row.get("task_id")
        if type(value) is int:  # MBPP numbers its problems
            return f"Mbpp/{value}"
        if value == "":
            raise InputError(f"{self.place} has an empty one", field="task_id", remedy=_REMEDY)
        return self.text("task_id")

    def name(self, name: str) -> str:
        value = self.text(name)
        if not value.isidentifier():
            raise InputError(f"{self.place}: {value!r} is no name of a function", field=name, remedy=_REMEDY)
        return value

    def _of(self, name: str, kind: type, words: str, default: Any) -> Any:
        value = self.row.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise InputError(f"{self.place} lacks this field", field=name, remedy=_REMEDY)
        if not isinstance(value, kind):
            raise InputError(f"{self.place}: {words} is needed, not {value!r:.50}", field=name, remedy=_REMEDY)
        return value


def _human_eval(fields: _Fields) -> Problem:
    prompt, entry = fields.text("prompt"), fields.name("entry_point")
    suffix = fields.text("suffix") if "suffix" in fields.row else None
    solution = fields.text("canonical_solution", "")
    return Problem(
        task_id=fields.task_id(),
        prompt=prompt,
        suffix=suffix,
        canonical_solution=solution,
        # Tests may use helpers that the prompt defines; here they are the suite's own, whatever the program does.
        prelude=_compiling(prompt + solution + (suffix or ""), prompt + "    pass\n"),
        test=f"{fields.text('test')}\n\ncheck({entry})\n",
        entry_point=entry,
    )


def _eval_plus(fields: _Fields) -> Problem:
    prompt, entry = fields.text("prompt"), fields.name("entry_point")
    solution = fields.text("canonical_solution")
    inputs = [*fields.items("base_input"), *fields.items("plus_input")]
    return Problem(
        task_id=fields.task_id(),
        prompt=prompt,
        canonical_solution=solution,
        prelude=reference(prompt + solution, entry),
        test=comparing_test(entry, inputs, fields.row.get("atol") or 0),
        entry_point=entry,
    )


def _mbpp(fields: _Fields) -> Problem:
    asserts = [text for text in fields.items("test_list") if isinstance(text, str)]
    entry = _called(asserts)
    if entry is None:
        raise InputError(f"{fields.place}: no assertion calls a function", field="test_list", remedy=_REMEDY)
    words = fields.text("prompt" if "prompt" in fields.row else "text")
    imports = "\n".join(fields.row.get("test_imports") or ())
    setup = fields.text("test_setup_code", "")
    return Problem(
        task_id=fields.task_id(),
        prompt=f'"""\n{words}\n{asserts[0]}\n"""\n',
        canonical_solution=fields.text("code", ""),
        prelude=f"{imports}\n{setup}\n",
        test=fields.text("test", "\n".join(asserts)),
        entry_point=entry,
    )


_FORMS: tuple[tuple[set[str], Callable[[_Fields], Problem]], ...] = (
    ({"base_input", "plus_input"}, _eval_plus),
    ({"test_list"}, _mbpp),
)


def _compiling(*sources: str) -> str:
    """The first source that is Python; none if no one is."""
    for source in sources:
        try:
            ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return source
    return ""


def _called(asserts: list[str]) -> str | None:
    """The function that assertions test: the one called in all of them that is not built in."""
    import builtins

    names: set[str] | None = None
    for text in asserts:
        try:
            calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        except (SyntaxError, ValueError):
            continue
        found = {call.func.id for call in calls if isinstance(call.func, ast.Name)} - set(dir(builtins))
        names = found if names is None else names & found or names
    return min(names) if names else None
