"""Problems and suites of them, as everything else sees them, whatever form their file has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from artifacts import digest
from artifacts.schema import Record

Form = Literal["completion", "function", "infilling"]
_STOPS: dict[Form, tuple[str, ...]] = {
    # Chen et al. 2021 (arXiv:2107.03374), section 2.2.
    "completion": ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
    # Austin et al. 2021 (arXiv:2108.07732) end answers with [DONE]; the others are where a base model goes on to use
    # what it has written (Liu et al. 2023, arXiv:2305.01210). A helper function is part of an answer.
    "function": ("[DONE]", '\n"""', "\nassert", "\nif __name__", "\nprint"),
    # Bavarian et al. 2022 (arXiv:2207.14255): the model's own end of the middle, no text.
    "infilling": (),
}
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_CLOSED = re.compile(r"```[\w+-]*[ \t]*\n.*?\n```|\[/PYTHON\]", re.DOTALL)
_TAGS = re.compile(r"\[PYTHON\]\s*?\n?(.*?)(?:\[/PYTHON\]|\Z)", re.DOTALL)


class Problem(Record):
    """A problem: what a model is shown, and the test that its answer has to pass."""

    task_id: str
    prompt: str
    """Unstripped, as it stands in the file."""
    suffix: str | None = None
    """What comes after the gap, for infilling."""
    canonical_solution: str = ""
    test: str
    """Python that raises if the program is wrong; it ends with the calls."""
    entry_point: str
    prelude: str = ""
    """Trusted code that the test needs: helpers, a reference solution."""

    @property
    def form(self) -> Form:
        if self.suffix is not None:
            return "infilling"
        opening = rf"^\s*(async\s+)?def\s+{re.escape(self.entry_point)}\b"
        return "completion" if re.search(opening, self.prompt, re.MULTILINE) else "function"

    @property
    def parent(self) -> str:
        """The problem that this one is a variant of: infilling suites cut many gaps into one program."""
        found = re.search(r"HumanEval/\d+", self.task_id)
        return found[0] if found else self.task_id

    def program(self, completion: str) -> str:
        """The program that a completion makes."""
        return self.prompt + completion + (self.suffix or "")


class Suite(Record):
    """Problems under one name."""

    name: str
    problems: tuple[Problem, ...]

    @property
    def fingerprint(self) -> str:
        """Over everything that decides prompts and verdicts."""
        return digest.of_json([problem.model_dump() for problem in self.problems])

    def without(self, task_ids: Iterable[str]) -> Suite:
        left_out = set(task_ids)
        kept = tuple(problem for problem in self.problems if problem.task_id not in left_out)
        return Suite(name=self.name, problems=kept)


def write_problems(suite: Suite, path: Path) -> None:
    """Write a suite's problems, in our own form: to run its programs needs neither the hub nor the suite's file."""
    path.parent.mkdir(exist_ok=True)
    lines = (f"{json.dumps(problem.model_dump())}\n" for problem in suite.problems)
    path.write_text("".join(lines), encoding="utf-8")


def read_problems(path: Path) -> Suite:
    """A suite as `write_problems` left it, called as its file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return Suite(name=path.stem, problems=tuple(Problem.model_validate_json(line) for line in lines))


def stop(completion: str, problem: Problem) -> str:
    """A completion up to the first of the texts that end it, by the rules of the suite's paper."""
    places = [place for text in _STOPS[problem.form] if (place := completion.find(text)) >= 0]
    return completion[: min(places)] if places else completion


def ended(completion: str, problem: Problem) -> bool:
    """Whether more of this completion would be cut off anyway."""
    return any(text in completion for text in _STOPS[problem.form])


def instruct_prompt(problem: Problem) -> str:
    """The problem as an instruction, for a chat template; infilling has no such form."""
    if problem.form == "completion":
        task = f"Complete this Python function. Answer with the whole function.\n```python\n{problem.prompt}```"
    else:
        task = f"Write the Python function that is described here.\n{problem.prompt}"
    return task.strip()


def answer_ended(answer: str) -> bool:
    """Whether an instruct model's answer has its block of code, so that more of it is not looked at."""
    return _CLOSED.search(answer) is not None


def completion_of_answer(answer: str, problem: Problem) -> str:
    """What an instruct model's answer comes to as a completion of the prompt: its first block of code, or all of it."""
    block = _FENCE.search(answer) or _TAGS.search(answer)
    code = block[1] if block else answer
    if problem.form != "completion" or not re.search(rf"\bdef\s+{re.escape(problem.entry_point)}\b", code):
        return code
    # The answer has the function anew; the prompt's is closed and thereby replaced.
    return f"    pass\n\n\n{code}"
