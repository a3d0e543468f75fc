"""llama.cpp's library, as the package `llama-cpp-python` brings it."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from artifacts.errors import InputError, StageError
from tasks.gguf import server

log = logging.getLogger(__name__)

PREFIX = "gguf-"
"""Of the names of the forms that are such files."""
F16 = "f16"
TYPES = {
    **{"f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.57, "q5_k_m": 5.7, "q5_k_s": 5.55, "q5_1": 6.0, "q5_0": 5.6},
    **{"q4_k_m": 4.9, "q4_k_s": 4.6, "q4_1": 5.1, "q4_0": 4.7, "iq4_nl": 4.7, "iq4_xs": 4.5},
    **{"q3_k_l": 4.3, "q3_k_m": 3.9, "q3_k_s": 3.5, "q2_k": 3.2},
}
"""Types of files by name, and about how many bits a weight takes, of those that need no importance matrix."""
_ERROR = 4  # GGML_LOG_LEVEL_ERROR


def type_of(form: str) -> str:
    """The type of file that a form of the export has: `gguf-q4_k_m` is of `q4_k_m`."""
    return form.removeprefix(PREFIX)


def file_name(form: str) -> str:
    """Of the file in the form's folder."""
    return f"model-{type_of(form)}.gguf"


def bytes_to_make(form: str, parameters: int) -> float:
    """What a file of a form takes on the disk while it is made, with the file of 16 bits that it is made from."""
    kinds = {F16, type_of(form)}
    return sum(TYPES[kind] for kind in kinds) / 8 * parameters


def installed() -> bool:
    """Whether the library is there. Where it is not, llama.cpp's server can check files of `f16`, and nothing writes
    those of other types."""
    return find_spec("llama_cpp") is not None


def check_installed(field: str, kind: str | None = None) -> None:
    """Whether everything is there that GGUF needs.

    Args:
        kind: the type of file, or None for an adapter's.

    Raises:
        InputError: a package is missing.
    """
    there = installed() or (kind == F16 and find_spec(server.PACKAGE) is not None)
    if there and find_spec("sentencepiece") is not None:
        return
    wheel = "'codetune[serve]', a wheel, or " if kind == F16 else ""
    raise InputError(
        f"GGUF needs the package {'sentencepiece' if there else 'llama_cpp'}, which is not installed",
        field=field,
        remedy=f"pip install {wheel}'codetune[gguf]', which compiles llama.cpp in some minutes, or ask for other forms",
    )


@cache
def llama() -> Any:
    """The module of llama.cpp's C functions, which from now on says what it has to say in the log."""
    import llama_cpp.llama_cpp as functions

    said: list[str] = []

    @functions.llama_log_callback  # type: ignore[untyped-decorator]
    def tell(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        said.append(text.decode(errors="replace"))
        if text.endswith(b"\n"):
            log.log(logging.WARNING if level == _ERROR else logging.DEBUG, "%s", "".join(said).rstrip())
            said.clear()

    functions.llama_log_set(tell, ctypes.c_void_p(0))
    functions.told = tell  # or it would be collected
    return functions


def quantize(source: Path, target: Path, kind: str, threads: int) -> None:
    """Write a GGUF file of f16 anew as another type.

    Raises:
        StageError: llama.cpp cannot.
    """
    functions = llama()
    params = functions.llama_model_quantize_default_params()
    params.ftype = getattr(functions, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    params.nthread = threads
    if functions.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise StageError(
            f"llama.cpp cannot write {source.name} as {kind}; the log says why",
            field="exporting.forms",
            remedy="see that there is room on the disk, or ask for another type",
        )
