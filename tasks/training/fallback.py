"""When memory runs out in the middle of a training: the same optimizer steps, in smaller pieces.

Step k takes the same sequences whatever the micro-batch is (see `batches`), so a run may change it between two steps.
What is left to chance is dropout, which draws other numbers for other shapes, and the order of sums.
"""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

from artifacts import durable
from artifacts.errors import CodetuneError, InputError, StageError
from artifacts.reading import read_bytes
from artifacts.schema import Plan, Record

FILE = Path("checkpoints") / "fallback.json"
"""Within the work directory, where the checkpoints are."""

_ON_GPU = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_ON_HOST = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "std::bad_alloc")
"""How torch words a failed allocation on a CPU, where it raises a plain RuntimeError."""
_LEAST = 64 * 2**20
"""Bytes: a process that cannot get that many is short of memory."""


class NoMemoryError(StageError):
    """Memory ran out in the training process.

    Args:
        step: the optimizer step that did not fit, counted from 1, where a smaller micro-batch may help; None when
            training had not begun, where it cannot.
    """

    def __init__(
        self, problem: str, *, field: str | None = None, remedy: str | None = None, step: int | None = None
    ) -> None:
        super().__init__(problem, field=field, remedy=remedy)
        self.step = step


def out_of_memory(error: BaseException, step: int | None = None) -> NoMemoryError | None:
    """What `error` says, if it is that memory ran out; None for other errors. `step`: see `NoMemoryError`."""
    if isinstance(error, CodetuneError):
        return None  # whoever raised it has said what it is
    text = str(error)
    # By name: torch may not have been imported.
    if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _ON_GPU):
        what, others = "the GPU ran out of memory", "free the GPU of other processes"
    elif _is_host_memory(error, text):
        what, others = "host memory ran out", "free memory"
    else:
        return None
    when = f" at step {step}" if step is not None else ""
    # Where torch found it (`[enforce fail at …] err == 0. `) says nothing to a person.
    detail = next(iter(text.splitlines()), "").rpartition("err == 0. ")[2]
    shorter = ["lower tokenization.max_length"] if step is not None else []
    return NoMemoryError(
        f"{what}{when}" + (f": {detail}" if detail else ""),
        field="training",
        remedy=", ".join([others, *shorter, "set training.quantization=nf4 or use a smaller model"]),
        step=step,
    )


def _is_host_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or any(words in text for words in _ON_HOST):
        return True
    return isinstance(error, SystemError) and _is_short_of_memory()  # C code without memory may not say why it failed


def _is_short_of_memory() -> bool:
    try:
        mmap.mmap(-1, _LEAST).close()
    except OSError:
        return True
    return False


def next_plan(plan: Plan) -> Plan | None:
    """The plan with the same effective batch that takes the next smaller amount of memory; None when none does.

    Layers that are unpacked only for speed go first. Then the micro-batch goes down through the divisors of the
    effective batch; checkpointing, which computes every activation twice, comes last.
    """
    if plan.resident_layers:
        return plan.model_copy(update={"resident_layers": 0})
    batch = plan.micro_batch * plan.accumulation
    smaller = [size for size in range(1, plan.micro_batch) if batch % size == 0]
    if smaller:
        return plan.model_copy(update={"micro_batch": smaller[-1], "accumulation": batch // smaller[-1]})
    if plan.gradient_checkpointing and plan.checkpointed_layers is None:
        return None
    return plan.model_copy(update={"gradient_checkpointing": True, "checkpointed_layers": None})


def in_words(plan: Plan) -> str:
    """How an optimizer step is divided: `2 × 2`, `1 × 4 with gradient checkpointing`."""
    words = plan.batch_in_words
    if plan.gradient_checkpointing:
        words += f" {plan.checkpointing_in_words}"
    return words + (f", {plan.resident_layers} layers unpacked" if plan.resident_layers else "")


class FallbackPlan(Record):
    """The plan that a run follows. Kept beside its checkpoints from the first fallback on, so that a later attempt
    does not begin with what did not fit."""

    first: Plan
    """The plan that the run was started with: for another one, this is void."""
    plan: Plan
    """The plan that is followed now."""
    fallbacks: tuple[str, ...] = ()
    """What happened so far, in sentences."""

    @classmethod
    def of(cls, plan: Plan, workdir: Path) -> FallbackPlan:
        """The course that an earlier attempt with this plan left in `workdir`, else a new one."""
        try:
            kept = cls.model_validate_json(read_bytes(workdir / FILE))
        except (InputError, ValueError):
            return cls(first=plan, plan=plan)
        return kept if kept.first == plan else cls(first=plan, plan=plan)

    def after(self, error: NoMemoryError) -> FallbackPlan:
        """The course from here on. Raises `error` where no smaller plan can help."""
        smaller = next_plan(self.plan) if error.step is not None else None
        if smaller is None:
            raise error
        happened = f"out of memory at step {error.step} with {in_words(self.plan)}: continued with {in_words(smaller)}"
        return self.model_copy(update={"plan": smaller, "fallbacks": (*self.fallbacks, happened)})

    def keep(self, workdir: Path) -> None:
        """Write it down, whole or not at all."""
        kept_at = workdir / FILE
        kept_at.parent.mkdir(exist_ok=True)
        partial = kept_at.with_suffix(".partial")
        durable.write(partial, self.model_dump_json(indent=1))
        partial.replace(kept_at)
