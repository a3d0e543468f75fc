"""What the Prefect dashboard shows of a stage: its progress while it runs, its sections when it is done.

The dashboard is for watching. When it cannot be told something, the log says so and the stage goes on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from uuid import UUID

from prefect import get_client
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from artifacts import digest
from artifacts.escaping import quoted
from artifacts.presentation import Figure, Section, to_markdown
from artifacts.progress import Listener, Tick
from artifacts.redaction import redact

log = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 2.0
WAIT_SECONDS = 10.0
"""Seconds that the last state may take to be told."""


def publish(stage: str, sections: list[Section]) -> None:
    """Put a stage's sections among the artifacts of the current task run."""
    for section in sections:
        key = f"{_part(stage)}-{section.key}"
        text = "\n\n".join(to_markdown(block) for block in section.blocks if not isinstance(block, Figure))
        figures = [block for block in section.blocks if isinstance(block, Figure)]
        try:
            if text:
                create_markdown_artifact(redact(text), key=key, description=quoted(section.title))
            for number, figure in enumerate(figures, start=1):
                create_image_artifact(figure.data_uri, key=f"{key}-figure-{number}", description=quoted(figure.alt))
        except Exception as error:
            log.warning("the dashboard did not take “%s”: %s", section.title, error)
            return


def _part(stage: str) -> str:
    """Of a key: the server takes lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", stage)


def publish_report(markdown: str) -> None:
    """Lead from the current flow run to the report, which with its pictures is large: the server keeps it once, however
    many runs end in it."""
    text = redact(markdown)
    key = f"report-{digest.of_json(text)[:16]}"
    named = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    try:
        with get_client(sync_client=True) as client:
            known = client.read_latest_artifacts(artifact_filter=named)
        full = known[0].latest_id if known else create_markdown_artifact(text, key=key, description="The report")
        where = f"[The report, with its pictures](/artifacts/artifact/{full})"
        since = " is that of an earlier run: nothing that it tells has changed." if known else "."
        create_markdown_artifact(f"{where}{since}", key="run-report", description="The report")
    except Exception as error:
        log.warning("the dashboard did not take the report: %s", error)


@contextmanager
def progress_of(stage: str) -> Iterator[Listener]:
    """A listener that keeps one progress bar of the current task run up to date.

    The server is told from a thread: while it is away each attempt takes a minute, and a training whose words nobody
    reads would stand still.
    """
    bar = _Bar(stage)
    teller = Thread(target=copy_context().run, args=(bar.tell,), name=f"{stage}-progress", daemon=True)
    teller.start()
    try:
        yield bar
    finally:
        bar.end()
        teller.join(WAIT_SECONDS)


class _Bar:
    def __init__(self, stage: str) -> None:
        self._key = f"{_part(stage)}-progress"
        self._artifact: UUID | None = None
        self._last: Tick | None = None
        self._news, self._over = Event(), Event()

    def __call__(self, tick: Tick) -> None:
        self._last = tick
        self._news.set()

    def end(self) -> None:
        """Nothing will follow."""
        self._over.set()
        self._news.set()

    def tell(self) -> None:
        """Tell the server the newest state now and then, and the last one at the end. Returns then."""
        told = None
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            told = self._tell(told)
            self._over.wait(SECONDS_BETWEEN_UPDATES)
        self._tell(told)

    def _tell(self, told: Tick | None) -> Tick | None:
        tick = self._last
        if tick is None or tick is told:
            return told
        percent = 100 * (tick.fraction or 0.0)
        try:
            if self._artifact is None:
                created = create_progress_artifact(percent, key=self._key, description=quoted(describe(tick)))
                self._artifact = created if isinstance(created, UUID) else None
            else:
                update_progress_artifact(self._artifact, percent, description=quoted(describe(tick)))
        except Exception as error:
            log.debug("the dashboard did not take the progress of %s: %s", self._key, error)
        return tick


def describe(tick: Tick) -> str:
    """A tick in one line: `training: 120 / 200 steps · loss 1.43 · 5,900 tokens/s`; `starting` where nothing is
    counted."""
    return " · ".join([": ".join(part for part in (tick.title, amount_of(tick)) if part), *readings_of(tick)])


def amount_of(tick: Tick) -> str:
    """How far a piece of work is: `120 / 200 steps`; empty where nothing is counted."""
    if not tick.total and not tick.completed:
        return ""
    return (f"{tick.completed:,.0f}" + (f" / {tick.total:,.0f}" if tick.total else "") + f" {tick.unit}").rstrip()


def readings_of(tick: Tick) -> list[str]:
    """What stands beside the amount: `loss 1.43`."""
    return [f"{name.replace('_', ' ')} {_number(value)}" for name, value in tick.details.items()]


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
