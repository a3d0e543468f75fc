"""A model whose residual stream is too large for fp16, and 16 bits on a CPU."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch

from tasks.models import loading
from tests.conftest import SMALL_MODEL
from tests.small_model import write_large


@cache
def large_model() -> Path:
    """The small model's function, with up to 400,000 in the stream and in what layers add to it."""
    folder = Path(tempfile.mkdtemp(prefix="codetune-large-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_large(folder, SMALL_MODEL)
    return folder


@contextmanager
def computing_in(dtype: torch.dtype) -> Iterator[None]:
    """Load models in this type, whatever the plan says: plans for a CPU compute in fp32."""
    with patch.object(loading, "compute_dtype", lambda _plan: dtype):
        yield
