"""Another suite is another part: what was answered before comes from the store, and the models are not asked again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from artifacts.progress import SILENT
from artifacts.rows import read_rows
from artifacts.schema import ExportedModel, Generations, PromptSet
from artifacts.store import Store
from tasks.backends.transformers.inference import Modules
from tasks.generation import STAGE, GenerationConfig
from tasks.generation.models import Pair
from tasks.running.job import Job
from tests.tasks.functional.suites import row, write
from tests.tasks.generation import world

FEW = {"max_chunks": 4, "line_prompts": 4, "fim_prompts": 2, "block_prompts": 0, "functional_tokens": 16}


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """What the models are asked meanwhile: chunks and prompts."""
    asked = {"chunks": 0, "prompts": 0, "loaded": 0}
    losses, generate, load = Modules.losses, Modules.generate, Pair.__init__

    def measuring(side: Modules, ids: Any, counts: Any) -> Any:
        asked["chunks"] += len(ids)
        return losses(side, ids, counts)

    def answering(side: Modules, prompts: Any, *more: Any) -> Any:
        asked["prompts"] += len(prompts)
        return generate(side, prompts, *more)

    def loading(pair: Pair, *arguments: Any) -> None:
        asked["loaded"] += 1
        load(pair, *arguments)

    with patch.multiple(Modules, losses=measuring, generate=answering), patch.object(Pair, "__init__", loading):
        yield asked


class Office:
    """One world, and a store for what is made of it."""

    def __init__(self, place: world.World, exported: ExportedModel, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.exported = exported.model_copy(update={"fingerprint": "e"})
        self.store = Store(folder / "store")

    def asked(self, name: str, **changes: Any) -> PromptSet:
        made = self.place.ask(self.folder / name, **{**FEW, **changes})
        return made.model_copy(update={"fingerprint": name})

    def made(self, asked: PromptSet, store: Store | None = None) -> Generations:
        inputs = self.place.inputs(self.exported, asked)
        del inputs["parts"]
        job = Job.of(STAGE, GenerationConfig(**world.SETTINGS), inputs)
        return job.build(store or self.store, SILENT).handle


@pytest.fixture
def office(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> Office:
    return Office(small_world, noise, tmp_path)


CHECKS = 2
"""Losses by which it is seen that base and tuned compute numbers, before a file is put to them."""


@pytest.mark.parametrize("added", ["block", "functional"])
def test_another_suite_is_all_that_is_asked(office: Office, added: str) -> None:
    suite = write(office.folder / "small.jsonl", row(0), row(1))
    more: dict[str, Any] = {"block_prompts": 2} if added == "block" else {"functional": [str(suite)]}
    before = office.made(office.asked("before"))
    with watched() as asked:
        after = office.made(office.asked("after", **more))
    prompts = {"block": 4, "functional": 2}[added]
    assert asked == {"chunks": CHECKS, "prompts": 3 * prompts, "loaded": 1}
    assert {*before.parts} < {*after.parts} and len(after.parts) == len(before.parts) + 1
    files = {name: [read_rows(one.path / f"{name}.parquet") for one in (before, after)] for name in FILES}
    assert files["losses"][0] == files["losses"][1]
    assert files["completions"][0] == [one for one in files["completions"][1] if one["suite"] in ("line", "fim")]
    assert before.path.joinpath("losses.parquet").read_bytes() == after.path.joinpath("losses.parquet").read_bytes()


FILES = ("losses", "completions")


def test_what_was_put_together_is_what_a_fresh_run_makes(office: Office) -> None:
    suite = write(office.folder / "small.jsonl", row(0), row(1))
    office.made(office.asked("before"))
    after = office.asked("after", block_prompts=2, functional=[str(suite)])
    grown, fresh = office.made(after), office.made(after, Store(office.folder / "other"))
    assert grown.fingerprint == fresh.fingerprint
    for name in FILES:
        assert (grown.path / f"{name}.parquet").read_bytes() == (fresh.path / f"{name}.parquet").read_bytes()


def test_without_a_suite_no_model_is_loaded(office: Office) -> None:
    office.made(office.asked("before"))
    with watched() as asked:
        fewer = office.made(office.asked("after", fim_prompts=0))
    assert asked == {"chunks": 0, "prompts": 0, "loaded": 0}
    assert {one["suite"] for one in read_rows(fewer.path / "completions.parquet")} == {"line"}


def test_what_was_finished_before_a_run_was_ended_is_not_asked_again(office: Office) -> None:
    asked = office.asked("before")

    def ended(*_: Any) -> None:
        raise KeyboardInterrupt

    with patch.object(Modules, "generate", ended), pytest.raises(KeyboardInterrupt):
        office.made(asked)
    with watched() as counts:
        office.made(asked)
    assert counts["chunks"] == 2 * CHECKS and counts["prompts"] == 3 * (8 + 4)
