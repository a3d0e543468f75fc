"""What the training process tells the process that supervises it: JSON lines over an inherited pipe.

`{"kind": "phase", "title", "total", "unit"}`, `{"kind": "step", "step", "details"}`, `{"kind": "log", "logger",
"level", "message"}`, and last one of `{"kind": "result", "handle"}`, `{"kind": "stopped", "step"}`,
`{"kind": "failure", "error", "problem", "field", "remedy"}` (`"memory"` with the `"step"` that did not fit).

Of several training processes the first sends all of these, the others failures alone. A failure of one makes others
fail, so the first failure counts. `{"kind": "ranks", "statuses"}` has the exit statuses of those that failed.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from artifacts.errors import CodetuneError, InputError, StageError
from artifacts.schema import Plan, Record, TokenizedDataset
from tasks.training.config import TrainingConfig
from tasks.training.fallback import NoMemoryError

RESULT = "result"
"""Within the work directory, what will be published. Checkpoints lie beside it until it is: a run that is killed
in between need not train again."""


class Spec(Record):
    """Everything that the training process needs to know; written to its work directory."""

    config: TrainingConfig
    plan: Plan
    tokens: TokenizedDataset
    data: str
    """`train.parquet` of the tokenized dataset."""
    model: str
    """A folder with the base model's weights, as published or quantized already, and its tokenizer."""
    model_name: str
    """As configured: what the adapter names as its base."""
    model_revision: str | None
    parent: int
    """The supervising process: when it is gone, training has nobody to work for."""


class Sender:
    """The training process's end of the pipe. When nobody reads any more, messages are dropped: a checkpoint that is
    being written must not fail for that.

    Args:
        only_failures: drop everything else too.
    """

    def __init__(self, descriptor: int, *, only_failures: bool = False) -> None:
        self._descriptor: int | None = descriptor
        self._only_failures = only_failures

    def send(self, kind: str, **content: Any) -> None:
        """Send one message."""
        if self._descriptor is None or (self._only_failures and kind != "failure"):
            return
        line = json.dumps({"kind": kind, **content}).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except BrokenPipeError:
            self._descriptor = None

    def fail(self, error: BaseException) -> None:
        """Say why training ended."""
        if isinstance(error, CodetuneError):
            said = {"problem": error.problem, "field": error.field, "remedy": error.remedy}
            if isinstance(error, NoMemoryError):
                self.send("failure", error="memory", **said, step=error.step)
            else:
                self.send("failure", error="input" if isinstance(error, InputError) else "stage", **said)
        elif isinstance(error, OSError) and error.errno is not None:
            name = os.fsdecode(error.filename) if error.filename is not None else None
            self.send("failure", error="system", number=error.errno, problem=error.strerror, name=name)
        else:
            problem = f"{type(error).__name__}: {error}"
            self.send("failure", error="crash", problem=problem, field=None, remedy=None)


class SenderHandler(logging.Handler):
    """Hands log records to the supervising process: our own from INFO on, those of libraries from WARNING on."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.split(".")[0] in ("tasks", "artifacts")
        if record.levelno >= (logging.INFO if ours else logging.WARNING):
            self._sender.send("log", logger=record.name, level=record.levelno, message=record.getMessage())


def error_of(failure: dict[str, Any], details: str) -> Exception:
    """The exception that a failure message stands for. `details`: the end of what the process wrote."""
    match failure["error"]:
        case "input":
            return InputError(failure["problem"], field=failure["field"], remedy=failure["remedy"])
        case "stage":
            return StageError(failure["problem"], field=failure["field"], remedy=failure["remedy"])
        case "memory":
            said = {name: failure[name] for name in ("problem", "field", "remedy", "step")}
            return NoMemoryError(**said)
        case "system":
            return OSError(failure["number"], failure["problem"], failure["name"])
        case _:
            return StageError(
                f"the training process failed with {failure['problem']}\n{details}",
                remedy="checkpoints are kept: run again to continue from the last one",
            )
