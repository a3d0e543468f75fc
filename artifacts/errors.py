"""What can go wrong, as seen by the person who started the run.

Every error says what is wrong and what to do about it; the class decides the exit status of the command line
and whether a stage is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

from artifacts.redaction import redact, redact_logs


class CodetuneError(Exception):
    """A failure with a message meant for a person; shown without a traceback.

    Args:
        problem: what is wrong, with the offending value.
        field: the configuration field it concerns, dotted (`training.lora.r`), if there is one.
        remedy: what to do about it, an imperative sentence.
    """

    exit_status = 1
    longest: ClassVar[int] = 1_500
    """Characters of a problem. The middle of a longer one, a value that is a book, is left out."""

    def __init__(self, problem: str, *, field: str | None = None, remedy: str | None = None) -> None:
        self.problem, self.field = redact(_writable(problem)), field
        if len(self.problem) > self.longest:
            self.problem = f"{self.problem[: self.longest // 2]} … {self.problem[-self.longest // 2 :]}"
        self.remedy = remedy and redact(_writable(remedy))
        super().__init__(self.problem, field, self.remedy)

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return where + self.problem + (f"\n  → {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not survive pickling by themselves, and Prefect pickles them.
        return partial(type(self), self.problem, field=self.field, remedy=self.remedy), ()


class InputError(CodetuneError):
    """The configuration or the data that it names cannot be used. Exit status 2; never tried again."""

    exit_status = 2


class PreflightRefused(CodetuneError):  # noqa: N818 - a verdict, not a malfunction
    """The machine cannot run this job. Exit status 3; never tried again."""

    exit_status = 3


class StageError(CodetuneError):
    """A stage failed for a reason that trying again will not mend. Exit status 1."""

    longest = 20_000  # it may quote what a process said last


class TransientError(CodetuneError):
    """A fault that may pass (network, a busy server). The stage is tried again. Exit status 1."""


@contextmanager
def redacting_secrets() -> Iterator[None]:
    """Let no secret out of a block: not in the log, and not in the error of a library.

    Around whatever runs as a flow or as a task, and in processes that came about without the command line: Prefect puts
    the text of an error into the run's state, its log and its records.

    Raises:
        StageError: in place of an error that quotes a secret.
    """
    redact_logs()
    try:
        yield
    except CodetuneError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if (clean := redact(said)) == said:
            raise
        raise StageError(clean, remedy="look at the run's log").with_traceback(error.__traceback__) from None


def _writable(text: str) -> str:
    """With the halves of characters escaped that stand for the bytes of a file's name, and that no UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode()
