"""Memory that runs out in the middle of a training, and how the run goes on."""

from __future__ import annotations

import contextlib
import errno
import logging
import pickle
import re
import resource
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from artifacts.progress import Tick
from artifacts.schema import Checkpoint, Plan, TokenizedDataset
from tasks.training import LoraSettings
from tasks.training.fallback import FILE, FallbackPlan, NoMemoryError, in_words, next_plan, out_of_memory
from tasks.training.view import sections
from tests.tasks.training import jobs

AT_ONCE = jobs.PLAN.model_copy(update={"micro_batch": 4, "accumulation": 1})
SAVING = jobs.PLAN.model_copy(update={"gradient_checkpointing": True})
CONFIG = jobs.CONFIG.model_copy(
    update={
        "quantization": "none",
        "lora": LoraSettings(dropout=0.0),  # dropout would draw other numbers for other shapes
        "learning_rate": 1e-3,
        "max_steps": 6,
        "cpu_threads": 2,
    }
)
LONG = 96
"""Tokens per chunk: a step with four of them takes many blocks of several MiB."""
MIB = 2**20


class Shortage:
    """A listener that from a step on lets the first process take hardly more memory than it has between two steps.

    The process is stopped whenever its memory is looked at, and runs for milliseconds in between. So it cannot finish
    before it is limited, however busy the machine is.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self.titles: list[str] = []
        self.done = 0
        """Steps that the first process reported."""
        Thread(target=self._watch, daemon=True).start()

    def __call__(self, tick: Tick) -> None:
        first = not any(title.startswith("out of memory") for title in self.titles)
        self.titles.append(tick.title)
        if first and tick.title == "training" and tick.completed:
            self.done = int(tick.completed)

    def _watch(self) -> None:
        """What is seen when a step is reported may be the middle of the next one already: the least so far counts."""
        while not (found := jobs.workers()):
            time.sleep(0.01)
        least = 2**62
        with contextlib.suppress(psutil.Error):  # it ends
            while True:
                found[0].suspend()
                try:
                    if self.done:  # before the first step, the weights may not be there yet
                        least = min(least, found[0].memory_info().vms)
                    if self.done >= self._step:
                        found[0].rlimit(psutil.RLIMIT_AS, (least + 4 * MIB,) * 2)
                        return
                finally:
                    found[0].resume()
                time.sleep(0.003)


def figures(text: str) -> list[str]:
    """The numbers in a sentence, and how it says that steps are divided."""
    return re.findall(r"\d+(?: × \d+)?", text)


@pytest.fixture(autouse=True)
def large_tensors_come_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default glibc keeps freed blocks of up to 32 MiB, which a limit on the process does not touch."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(MIB))


@pytest.fixture(scope="module")
def long_tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenizedDataset:
    return jobs.dataset(tmp_path_factory.mktemp("long"), jobs.rows(longest=LONG), LONG)


def test_a_step_that_does_not_fit_is_done_in_smaller_pieces(
    tmp_path: Path, long_tokens: TokenizedDataset, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # each further arena has 64 MiB reserved, within any limit
    shortage = Shortage(step=3)
    with caplog.at_level(logging.INFO):
        result = jobs.run(tmp_path / "short", long_tokens, CONFIG, shortage, AT_ONCE)
    step = shortage.done + 1
    (fallback,) = result.fallbacks
    assert figures(fallback) == [str(step), "4 × 1", "2 × 2"]
    assert result.resumed_from in (2, 4) and result.steps == 6
    (said,) = (record.getMessage() for record in caplog.records if "DefaultCPUAllocator" in record.getMessage())
    assert f"step {step}: " in said and figures(said)[-2:] == ["4 × 1", "2 × 2"] and "do not match" not in caplog.text
    assert any(figures(title) == ["2 × 2"] for title in shortage.titles)
    undisturbed = jobs.train_here(tmp_path / "undisturbed", long_tokens, CONFIG, AT_ONCE).metrics
    metrics = jobs.metrics(result.path)
    assert metrics["step"] == list(range(1, 7)) and metrics["tokens"] == undisturbed["tokens"]
    assert metrics["loss"] == pytest.approx(undisturbed["loss"], rel=1e-4)
    assert len({round(loss, 4) for loss in metrics["loss"]}) == 6  # else equal losses would show nothing
    assert {path.name for path in result.path.iterdir()} == {"adapter", "metrics.parquet", "tensorboard"}


def test_smaller_pieces_are_the_divisors_then_checkpointing_then_nothing() -> None:
    def chain(plan: Plan | None) -> list[Plan]:
        return [plan, *chain(next_plan(plan))] if plan else []

    pieces = chain(AT_ONCE)
    assert [(plan.micro_batch, plan.accumulation) for plan in pieces] == [(4, 1), (2, 2), (1, 4), (1, 4)]
    assert [plan.gradient_checkpointing for plan in pieces] == [False, False, False, True]
    assert [in_words(plan).partition(" with ")[0] for plan in pieces] == ["4 × 1", "2 × 2", "1 × 4", "1 × 4"]
    assert len({in_words(plan) for plan in pieces}) == 4
    fused = AT_ONCE.model_copy(
        update={"micro_batch": 1, "gradient_checkpointing": True, "checkpointed_layers": 5, "resident_layers": 2}
    )
    pieces = chain(fused)
    assert all(plan.micro_batch == 1 and plan.gradient_checkpointing for plan in pieces)
    assert [(plan.checkpointed_layers, plan.resident_layers) for plan in pieces] == [(5, 2), (5, 0), (None, 0)]
    assert [figures(in_words(plan)) for plan in pieces] == [["1 × 1", "5", "2"], ["1 × 1", "5"], ["1 × 1"]]
    six = AT_ONCE.model_copy(update={"micro_batch": 6, "gradient_checkpointing": True})
    assert [plan.micro_batch for plan in chain(six)] == [6, 3, 2, 1]
    assert next_plan(six) == six.model_copy(update={"micro_batch": 3, "accumulation": 2})


def test_later_attempts_go_on_with_what_fitted(tmp_path: Path) -> None:
    course = FallbackPlan.of(AT_ONCE, tmp_path).after(NoMemoryError("host memory ran out", step=5))
    course.keep(tmp_path)
    assert FallbackPlan.of(AT_ONCE, tmp_path) == course and course.plan.micro_batch == 2
    more = AT_ONCE.model_copy(update={"gpu_memory_gib": 20.0})
    assert FallbackPlan.of(more, tmp_path) == FallbackPlan(first=more, plan=more)
    (tmp_path / FILE).write_text('{"first": {"dev')
    assert FallbackPlan.of(AT_ONCE, tmp_path).plan == AT_ONCE


@pytest.mark.parametrize(("plan", "step"), [(SAVING, 1), (AT_ONCE, None)], ids=["nothing smaller", "while loading"])
def test_where_no_smaller_plan_helps_the_error_says_what_does(plan: Plan, step: int | None) -> None:
    error = out_of_memory(MemoryError(), step)
    assert error is not None
    with pytest.raises(NoMemoryError, match="host memory") as caught:
        FallbackPlan(first=plan, plan=plan).after(error)
    remedy = str(caught.value.remedy)
    assert "training.quantization=nf4" in remedy and ("tokenization.max_length" in remedy) == (step is not None)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_job_that_never_fits_ends_with_the_remedy(
    tmp_path: Path, long_tokens: TokenizedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    """Begins with the smallest micro-batch, which an earlier attempt came to; every process is short of memory."""
    begun: list[str] = []

    def always_short(tick: Tick) -> None:
        if tick.title == "training" and not tick.completed:
            begun.append(FallbackPlan.of(AT_ONCE, tmp_path).fallbacks[-1])
            (worker,) = jobs.workers()
            limit = worker.memory_info().vms // 2
            worker.rlimit(psutil.RLIMIT_AS, (limit, limit))

    config = CONFIG.model_copy(update={"cpu_threads": 1})  # OpenMP ends a process that gets no more threads
    FallbackPlan(first=AT_ONCE, plan=jobs.PLAN, fallbacks=("earlier",)).keep(tmp_path)
    with pytest.raises(NoMemoryError, match="host memory") as caught:
        jobs.run(tmp_path, long_tokens, config, always_short, AT_ONCE)
    assert caught.value.step == 1 and "tokenization.max_length" in str(caught.value.remedy)
    smaller = in_words(jobs.PLAN.model_copy(update={"gradient_checkpointing": True}))
    assert any(record.getMessage().endswith(f" {smaller}") for record in caplog.records)
    assert len(begun) == 2 and begun[0] == "earlier" and figures(begun[1]) == ["1", "1 × 4", "1 × 4"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("[enforce fail at a.cpp:1] err == 0. DefaultCPUAllocator: can't allocate memory: 9"), "host"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "host"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "the GPU"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (NoMemoryError("CUDA out of memory"), None),
    ],
)
def test_only_running_out_of_memory_is_taken_for_it(error: Exception, words: str | None) -> None:
    explained = out_of_memory(error, 3)
    assert (explained is None) == (words is None)
    assert str(explained or "").startswith(f"training: {words}" if words else "") and "enforce" not in str(explained)


def test_an_error_without_a_reason_is_taken_for_it_where_there_is_no_memory() -> None:
    error = SystemError("error return without exception set")
    assert out_of_memory(error, 3) is None
    given = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 8 * MIB, given[1]))
    try:
        explained = out_of_memory(error, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, given)
    assert explained is not None and explained.step == 3
    assert explained.problem.startswith("host memory ") and explained.problem.endswith(f": {error}")


def test_torch_says_what_it_tried_to_allocate() -> None:
    from torch import OutOfMemoryError

    said = "CUDA out of memory. Tried to allocate 2.00 GiB."
    explained = out_of_memory(OutOfMemoryError(f"{said}\nmore"), 3)
    assert explained is not None and explained.step == 3
    assert explained.problem.startswith("the GPU ") and explained.problem.endswith(f": {said}")


def test_the_result_says_so(finished: Checkpoint) -> None:
    told = finished.model_copy(update={"fallbacks": ("one", "another")})
    assert told.summary.endswith("; another")
    text = sections(told)[0].blocks[0].markdown  # type: ignore[union-attr]
    assert text.endswith(" One. Another.")
