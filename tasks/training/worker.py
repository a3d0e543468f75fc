"""The training process: `python -m tasks.training.worker <spec.json> <file descriptor of the pipe> [<launcher>]`.

Started by `supervision`, or as one of several by the process `launcher`, whose file descriptor it is then. SIGTERM
makes it write a checkpoint at the next step boundary and end; the kernel sends that signal too when the parent dies.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from artifacts.garbage import imported_for_good, leave
from artifacts.redaction import redact_logs
from tasks.processes.child import STOPPED, die_with
from tasks.training.fallback import out_of_memory
from tasks.training.messages import Sender, SenderHandler, Spec


class StopRequest:
    """Whether somebody asked this process to stop. Before training starts there is nothing to save: it ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self.training = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self.training:
            raise SystemExit(STOPPED)


def main(specification: Path, descriptor: int, launcher: int | None = None) -> int:
    """Train as specified; tell everything through the pipe. Returns the exit status."""
    faulthandler.enable()
    stop = StopRequest()
    sender = _sender(descriptor, launcher)
    try:
        spec = Spec.model_validate_json(specification.read_text())
        die_with(launcher or spec.parent)
        redact_logs()
        logging.basicConfig(level=logging.INFO, handlers=[SenderHandler(sender)])
        logging.captureWarnings(True)
        sender.send("phase", title="starting", total=None, unit="")  # importing takes seconds
        with imported_for_good():
            from tasks.processes import ranks
            from tasks.training.job import import_libraries, train

            import_libraries(spec.plan)

        finished = train(spec, specification.parent, sender, stop)
        ranks.leave()
    except Exception as error:
        sender.fail(out_of_memory(error) or error)
        traceback.print_exc()  # after the word is out: without memory this may fail
        return 1
    return 0 if finished else STOPPED


def _sender(descriptor: int, launcher: int | None) -> Sender:
    """The way to the supervising process; of several training processes only the first uses it for good news."""
    if launcher is None:
        return Sender(descriptor)
    path = f"/proc/{launcher}/fd/{descriptor}"
    return Sender(os.open(path, os.O_WRONLY), only_failures=os.environ["RANK"] != "0")


if __name__ == "__main__":
    leave(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
