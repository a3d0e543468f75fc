"""What a person sees in the terminal while a run goes on: a line per finished stage, a bar for the one at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from types import TracebackType
from typing import cast

from rich.console import ConsoleRenderable, Group
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text
from rich.traceback import Traceback

from artifacts.progress import Tick
from flows.output import Console
from tasks.running.dashboard import amount_of, describe, readings_of
from tasks.running.run import Outcome

MARKS = {"ran": "[green]✓[/]", "resumed": "[green]✓[/]", "cached": "[blue]≡[/]"}
PLAIN_SECONDS = 10.0
"""Without a terminal (a log file), seconds between two lines of progress."""


class Terminal:
    """Shows the progress of one run on standard error. An observer for `tasks.running.run.OBSERVERS`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = _Bars(self.console)
        self._bar: TaskID | None = None
        self._title = ""
        self._spoke = time.monotonic()

    def __enter__(self) -> Terminal:
        handler = _Lines(console=self.console, markup=False, level=logging.WARNING)
        self._handlers = [(logging.getLogger(name), handler) for name in ("artifacts", "tasks", "flows")]
        for logger, attached in self._handlers:
            logger.addHandler(attached)
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        for logger, attached in self._handlers:
            logger.removeHandler(attached)

    def started(self, stage: str) -> None:
        self._title = ""
        self._bar = self._bars.add_task("", total=None, stage=stage, amount="")

    def ticked(self, stage: str, tick: Tick) -> None:
        if self._bar is not None:
            if tick.title != self._title:  # the pace of what was done before says nothing of this
                self._title = tick.title
                self._bars.reset(self._bar, total=tick.total)
            beside = [tick.title] if tick.title != stage else []
            self._bars.update(
                self._bar,
                description=" · ".join([*beside, *readings_of(tick)]),
                amount=amount_of(tick),
                total=tick.total,
                completed=tick.completed,
            )
        if not self.console.is_terminal and time.monotonic() - self._spoke > PLAIN_SECONDS:
            self._spoke = time.monotonic()
            self.console.print(f"  {escape(describe(tick))}")

    def finished(self, outcome: Outcome) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        how = "cached" if outcome.state == "cached" else f"{outcome.seconds:.1f} s"
        again = f" [dim](continued at step {outcome.handle.resumed_from})[/]" if outcome.state == "resumed" else ""  # type: ignore[attr-defined]
        summary = escape(outcome.handle.summary)
        self.console.print(f"{MARKS[outcome.state]} {escape(outcome.stage):<16} {how:>8}   {summary}{again}")


class _Bars(Progress):
    """One line, whatever its width: how far, the bar and the time left first, then readings, cut at the end."""

    def __init__(self, console: Console) -> None:
        self._shown_on = console
        readings = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._from: tuple[tuple[int, ProgressColumn], ...] = (
            (0, SpinnerColumn()),
            (70, TextColumn("{task.fields[stage]:<16}", markup=False)),
            (60, BarColumn(16)),
            (0, TextColumn("{task.fields[amount]}", markup=False)),
            (45, _TimeLeft(Column(no_wrap=True))),
            (0, TextColumn("{task.description}", style="dim", markup=False, table_column=readings)),
        )
        """Each part with the width of a terminal from which it is shown."""
        super().__init__(console=console, transient=True, expand=True)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """See `Progress`."""
        self.columns = tuple(column for width, column in self._from if self._shown_on.width >= width)
        return super().make_tasks_table(tasks)


class _Lines(RichHandler):
    """Messages as lines that go on to their end: a table, which Rich would make, is cut at 80 columns in a log file."""

    def render(
        self, *, record: logging.LogRecord, traceback: Traceback | None, message_renderable: ConsoleRenderable
    ) -> ConsoleRenderable:
        line = Text.assemble(self.get_level_text(record), " ", cast("Text", message_renderable))
        return Group(line, traceback) if traceback else line


class _TimeLeft(ProgressColumn):
    """The estimated rest of the work, once there is something to estimate from."""

    def render(self, task: object) -> Text:
        left = getattr(task, "time_remaining", None)
        return Text(f"{left:,.0f} s left" if left else "", style="dim")
