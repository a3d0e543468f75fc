"""What stands in a terminal, or in the file that takes its place."""

from __future__ import annotations

import logging
from io import StringIO

from rich.console import Console

from flows.terminal import Terminal


def test_a_warning_is_one_line_however_long() -> None:
    """Whoever searches a log for it finds it."""
    said = StringIO()
    message = "the checkpoint of step 4 is not used: the contents of optimizer.pt were altered; stepping back"
    with Terminal(Console(file=said, width=80, highlight=False, soft_wrap=True)):
        logging.getLogger("tasks.training").warning("%s [1/2]", message)
    assert said.getvalue().splitlines()[0] == f"WARNING  {message} [1/2]"
