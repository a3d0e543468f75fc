"""bitsandbytes without the compiler and the hub that it asks for. Imports torch."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def import_bitsandbytes() -> None:
    """Import it before any other library does, with `torch.compile` doing nothing meanwhile and without `kernels`.

    What its CUDA library computes it has in plain torch, too, for other devices (`backends/default/ops.py`), each
    function compiled where it is defined: that loads inductor into every process, 0.8 s, and on a CPU the first use of
    nf4 has to wait for a C++ compiler. Uncompiled they compute the same to rounding.

    On processors that multiply in bf16 it asks the package `kernels` for compiled code from a hub
    (`backends/cpu/ops.py`). Nobody allowed that; its own library does the same.
    """
    import torch

    if "bitsandbytes" in sys.modules:
        return
    usual = torch.compile
    torch.compile = _uncompiled  # type: ignore[assignment]
    try:
        with _no_kernels():
            importlib.import_module("bitsandbytes")
    finally:
        torch.compile = usual


def _uncompiled(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return function if function is not None else lambda decorated: decorated


@contextmanager
def _no_kernels() -> Iterator[None]:
    """`import kernels` fails, and bitsandbytes does not warn of it."""
    usual, warnings = sys.modules.get("kernels"), logging.getLogger("bitsandbytes.backends.cpu.ops")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    warnings.disabled = True
    try:
        yield
    finally:
        warnings.disabled = False
        del sys.modules["kernels"]
        if usual is not None:
            sys.modules["kernels"] = usual
