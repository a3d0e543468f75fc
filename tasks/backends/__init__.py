"""Backends: what computes. `contract` is what each of them offers, and all that others know of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from artifacts.errors import InputError
from tasks.backends.contract import Backend, JobShape
from tasks.backends.fused.backend import FusedBackend
from tasks.backends.transformers.backend import TransformersBackend
from tasks.machines.records import Gpu
from tasks.models.shape import ModelShape

BACKENDS: tuple[Backend, ...] = (FusedBackend(), TransformersBackend())
"""In the order of preference. The last one can do every job."""
NAMES = tuple(backend.name for backend in BACKENDS)


def _known(name: str) -> str:
    if name not in ("auto", *NAMES):
        raise ValueError(f"there is no backend of that name; there are {', '.join(NAMES)}, and auto")
    return name


BackendName = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": ["auto", *NAMES]})]
"""A setting: which backend computes."""


def get(name: str) -> Backend:
    """The backend of this name."""
    return BACKENDS[NAMES.index(name)]


def choose(shape: ModelShape, job: JobShape, gpu: Gpu | None) -> Backend:
    """The backend that the job names, or the first that can do it.

    Raises:
        InputError: the named one cannot.
    """
    if job.backend == "auto":
        backend = next((one for one in BACKENDS if one.unsupported(shape, job, gpu) is None), BACKENDS[-1])
    else:
        backend = get(job.backend)
        if reason := backend.unsupported(shape, job, gpu):
            raise InputError(
                f"the backend {backend.name} cannot do this job: {reason}",
                field="training.backend",
                remedy="set training.backend=auto, which takes one that can",
            )
    if job.products == "int8" and backend.products(shape, job, on_gpu=gpu is not None) != "int8":
        reasons = [reason for one in BACKENDS if (reason := one.unsupported(shape, job, gpu))]
        raise InputError(
            f"the backend {backend.name} has no products in int8" + "".join(f"; {reason}" for reason in reasons),
            field="training.products",
            remedy="set training.products=auto, which takes what can be had",
        )
    return backend
