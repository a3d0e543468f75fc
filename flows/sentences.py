"""What Prefect says in a terminal: sentences. Tracebacks are for the run's log in the dashboard."""

from __future__ import annotations

import copy
import logging

from prefect.logging.handlers import PrefectConsoleHandler

LONGEST = 200
"""Characters of what stands before a traceback: Prefect writes whole events there."""


class Sentences(PrefectConsoleHandler):
    """Prefect's console, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.exc_text:
            error = record.exc_info[1] if record.exc_info else None
            record, said = copy.copy(record), record.getMessage().partition("\n")[0]
            said = said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
            record.exc_info = record.exc_text = None
            if error is not None and str(error) not in said:
                said = f"{said}: {type(error).__name__}: {error}"
            record.msg, record.args = f"{said} (the log in the dashboard has the traceback)", None
        super().emit(record)
