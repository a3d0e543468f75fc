"""A pipeline of toy stages that write real files: `first → second → third`, and `aside`, which takes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from prefect import flow

from artifacts.configuration import Config, Unkeyed
from artifacts.errors import StageError
from artifacts.presentation import Section
from artifacts.progress import Progress
from artifacts.schema import Handle
from artifacts.store import Store
from tasks.running.run import Run
from tasks.running.stage import Stage, StageRunner


class Word(Handle):
    text: str
    summary: ClassVar[str] = "a word"  # type: ignore[misc]


class Settings(Config):
    text: str
    length: int = 3
    folder: str = Unkeyed("")


def write(config: Settings, *, workdir: Path, progress: Progress, upstream: Word | None = None) -> Word:
    folder = Path(config.folder)
    with (folder / "calls").open("a") as file:
        file.write(f"{config.text}\n")
    if (folder / f"{config.text} is broken").exists():
        (workdir / "half").write_text("done")
        raise StageError(f"{config.text} is broken")
    text = (upstream.text if upstream else "") + config.text[: config.length]
    (workdir / "word.txt").write_text(text)
    return Word(text=text, path=workdir)


def show(word: Word) -> list[Section]:
    return []


FIRST, SECOND, THIRD, ASIDE = (
    Stage(name=name, version=1, run=write, produces=Word, sections=show, keeps_workdir=name == "second")
    for name in ("first", "second", "third", "aside")
)


def through(run: StageRunner, folder: str, length: int = 3) -> None:
    """The pipeline. `length` is of the first word."""
    first = run.stage(FIRST, Settings(text="first", length=length, folder=folder))
    run.stage(ASIDE, Settings(text="aside", folder=folder))
    second = run.stage(SECOND, Settings(text="second", folder=folder), upstream=first)
    run.stage(THIRD, Settings(text="third", folder=folder), upstream=second)


@flow(name="chain")
def chain(
    folder: str, length: int = 3, refresh: list[str] | None = None, from_stage: str | None = None
) -> dict[str, str]:
    """The states of the stages of a run whose store lies in `folder`."""
    with Run(Store(Path(folder) / "store"), refresh or (), from_stage=from_stage, recipe=f"chain-{length}") as run:
        through(run, folder, length)
    return {outcome.stage: outcome.state for outcome in run.outcomes}


def calls(folder: Path) -> list[str]:
    """The stages whose function was called since this was asked last."""
    file = folder / "calls"
    called = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return called
