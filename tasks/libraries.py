"""bitsandbytes without the compiler that it asks for. Imports torch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def import_bitsandbytes() -> None:
    """Import it before any other library does, with `torch.compile` doing nothing meanwhile.

    What its CUDA library computes it has in plain torch, too, for other devices (`backends/default/ops.py`), each
    function compiled where it is defined: that loads inductor into every process, 0.8 s, and on a CPU the first use of
    nf4 has to wait for a C++ compiler. Uncompiled they compute the same to rounding.
    """
    import torch

    if "bitsandbytes" in sys.modules:
        return
    usual = torch.compile
    torch.compile = _uncompiled  # type: ignore[assignment]
    try:
        importlib.import_module("bitsandbytes")
    finally:
        torch.compile = usual


def _uncompiled(function: Callable[..., Any] | None = None, **_: Any) -> Any:
    return function if function is not None else lambda decorated: decorated
