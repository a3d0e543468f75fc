"""Suite files in the forms that their authors publish: HumanEval, HumanEval-Infilling, EvalPlus, MBPP and MBPP+.

Each row says by its fields which form it has. Suites of other languages are told apart and refused.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from artifacts.errors import InputError
from tasks.functional.comparing import comparing_test, reference
from tasks.functional.inputs import restored
from tasks.functional.problems import Problem, Suite
from tasks.functional.rows import REMEDY, rows_of


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
                remedy=REMEDY,
            )
        problems[problem.task_id], lines[problem.task_id] = problem, place
    if not problems:
        raise InputError("there is no problem in this file", field=str(path), remedy=REMEDY)
    return Suite(name=name or path.name.split(".")[0], problems=tuple(problems.values()))


def _problem(row: dict[str, Any], place: str) -> Problem:
    if language := _other_language(row):
        raise InputError(
            f"{place} is of a suite for {language}; only programs in Python are run",
            field="suite",
            remedy="name a suite in Python: HumanEval, MBPP, their extended forms, or HumanEval-Infilling",
        )
    form = next((form for needed, form in _FORMS if needed <= row.keys()), _human_eval)
    problem = form(_Fields(row, place))
    for field in ("prompt", "suffix", "test", "canonical_solution", "prelude"):
        text = getattr(problem, field) or ""
        if "\0" in text:
            raise InputError(f"{place} has NUL bytes, which no Python source can have", field=field, remedy=REMEDY)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{place} cannot be written as UTF-8: {error}", field=field, remedy=REMEDY) from error
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

    def texts(self, name: str) -> list[str]:
        """A list of texts; none where there is no such field."""
        found: list[str] = self._of(name, list, "a list of texts", [])
        if not all(isinstance(text, str) for text in found):
            raise InputError(f"{self.place}: a list of texts is needed, not {found!r:.50}", field=name, remedy=REMEDY)
        return found

    def tolerance(self, name: str) -> float:
        """How far a number may be from the expected one; none where there is no such field."""
        value = self._of(name, (int, float), "a number", 0)
        if isinstance(value, bool) or not 0 <= value <= 1:
            raise InputError(
                f"{self.place}: a number of 0 to 1 is needed, not {value!r:.50}", field=name, remedy=REMEDY
            )
        return float(value)

    def inputs(self, name: str) -> list[Any]:
        """Lists of arguments; EvalPlus writes `{}` for none."""
        return [] if self.row.get(name) == {} else self.items(name)

    def task_id(self) -> str:
        value = self.row.get("task_id")
        if type(value) is int:  # MBPP numbers its problems
            return f"Mbpp/{value}"
        if value == "":
            raise InputError(f"{self.place} has an empty one", field="task_id", remedy=REMEDY)
        return self.text("task_id")

    def name(self, name: str) -> str:
        value = self.text(name)
        if not value.isidentifier():
            raise InputError(f"{self.place}: {value!r} is no name of a function", field=name, remedy=REMEDY)
        return value

    def _of(self, name: str, kind: type | tuple[type, ...], words: str, default: Any) -> Any:
        value = self.row.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise InputError(f"{self.place} lacks this field", field=name, remedy=REMEDY)
        if not isinstance(value, kind):
            raise InputError(f"{self.place}: {words} is needed, not {value!r:.50}", field=name, remedy=REMEDY)
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
    task_id = fields.task_id()
    try:
        inputs = restored(task_id, [*fields.inputs("base_input"), *fields.inputs("plus_input")])
    except ValueError as error:
        raise InputError(f"{fields.place}: {error}", field="plus_input", remedy=REMEDY) from error
    return Problem(
        task_id=task_id,
        prompt=prompt,
        canonical_solution=solution,
        prelude=reference(prompt + solution, entry),
        test=comparing_test(task_id, entry, inputs, fields.tolerance("atol")),
        entry_point=entry,
    )


def _mbpp(fields: _Fields) -> Problem:
    asserts = fields.texts("test_list")
    solution = fields.text("code", "")
    entry = _tested(solution, asserts)
    if entry is None:
        raise InputError(f"{fields.place}: no assertion calls a function", field="test_list", remedy=REMEDY)
    words = fields.text("prompt" if "prompt" in fields.row else "text")
    # Setup may make objects of the program's own classes, so it is a part of the test: there the program's names are.
    setup = fields.text("test_setup_code", "")
    return Problem(
        task_id=fields.task_id(),
        prompt=f'"""\n{words}\n{asserts[0]}\n"""\n',
        canonical_solution=solution,
        prelude="\n".join([*fields.texts("test_imports"), ""]),
        test=(f"{setup}\n" if setup else "") + fields.text("test", "\n".join(asserts)),
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


def _tested(solution: str, asserts: Sequence[str]) -> str | None:
    """The function that assertions test: of those that the solution defines, the outermost one that all of them call.
    Its name may be that of a built-in (`sum`). Without a solution that says, the one that is not built in."""
    called = [names for text in asserts if (names := _calls(text))]
    if not called:
        return None
    in_all = [name for name in called[0] if all(name in names for names in called)] or called[0]
    defined = _defined(solution)
    candidates = [name for name in in_all if defined.get(name) == "function"] or [
        name for name in in_all if name in defined
    ]
    return next(iter([*candidates, *(name for name in in_all if not hasattr(builtins, name))]), None)


def _calls(text: str) -> list[str]:
    """The names that are called, the outermost first."""
    try:
        nodes = ast.walk(ast.parse(text))
        return [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _defined(source: str) -> dict[str, str]:
    """What the top level of a program binds: `function` or `other`."""
    found: dict[str, str] = {}
    for node in ast.parse(_compiling(source)).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = "function"
        elif isinstance(node, ast.ClassDef):
            found[node.name] = "other"
        elif isinstance(node, ast.Assign):  # `name = lambda …`
            kind = "function" if isinstance(node.value, ast.Lambda) else "other"
            found |= {target.id: kind for target in node.targets if isinstance(target, ast.Name)}
    return found


_LANGUAGE = re.compile(
    r"(?i)(cpp|c\+\+|java|javascript|js|go|rust|typescript|ts|csharp|php|ruby|kotlin|scala|swift|perl)/"
)


def _other_language(row: dict[str, Any]) -> str | None:
    """The language of a row in the forms of HumanEval-X and HumanEvalPack (`Rust/0`), MultiPL-E and MBXP (`language`),
    when it is not Python."""
    stated = row.get("language", "python")
    if isinstance(stated, str) and stated.lower() not in ("python", "py", "python3", "en"):
        return stated
    prefix = _LANGUAGE.match(str(row.get("task_id", "")))
    return prefix[1] if prefix else None
