"""A job is a message: it can be sent elsewhere, and what becomes of it is returned."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import pytest

from artifacts.progress import SILENT
from artifacts.store import Store
from flows.stages import SHIPPED, STAGES
from tasks.running.job import Built, Job
from tests.tasks.running.chain import FIRST, SECOND, Settings, Word, calls


def built(message: bytes, place: Path) -> Built[Word]:
    """What becomes of a job that was sent."""
    job: Job[Word] = pickle.loads(message)
    return job.build(Store(place), SILENT)


def test_a_job_is_built_in_another_process(store: Store, tmp_path: Path) -> None:
    settings = Settings(text="second", folder=str(tmp_path))
    first = Job.of(FIRST, Settings(text="first", folder=str(tmp_path)), {}).build(store, SILENT).handle
    job = Job.of(SECOND, settings, {"upstream": first})
    message = pickle.dumps(job)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(built, message, store.place).result()
    here = job.build(store, SILENT)
    assert (there.reused, here.reused) == (False, True) and there.handle == here.handle
    assert calls(tmp_path) == ["first", "second"] and pickle.dumps(job) == message


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_of_the_pipeline_can_be_sent(name: str) -> None:
    elsewhere = {"retention": ("sampling", "RETENTION"), "retention-tokens": ("tokenization", "RETENTION")}
    elsewhere |= {one: (one.removeprefix("shipped-"), "SHIPPED") for one in SHIPPED}
    room, called = elsewhere.get(name, (name, "STAGE"))
    stage = getattr(import_module(f"tasks.{room}"), called)
    assert stage.name == name and pickle.loads(pickle.dumps(stage)) == stage
