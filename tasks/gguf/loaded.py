"""A GGUF file as llama.cpp reads it: what it says of itself, token ids, logits, answers. Imports torch where it returns
tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StageError
from tasks.gguf.library import llama

if TYPE_CHECKING:
    import torch

_MOST_TEXT = 1 << 16
"""Bytes of the longest value that is read of a file's description; chat templates have up to 10,000."""
_F32 = 0  # GGML_TYPE_F32


class GgufModel:
    """A model in llama.cpp. Close it, or use it in a `with` statement."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False) -> None:
        """Raises:
        StageError: llama.cpp cannot load it.
        """
        self._functions = llama()
        params = self._functions.llama_model_default_params()
        params.vocab_only = vocabulary_only
        # Weights as they are in the file. Rearranged for AMX they end the process on virtual machines that name AMX
        # among their features and do not have it.
        params.use_extra_bufts = False
        self.pointer = self._functions.llama_model_load_from_file(str(path).encode(), params)
        if not self.pointer:
            raise StageError(
                f"llama.cpp cannot load {path.name}; the log says why",
                field="exporting.forms",
                remedy="run again with `--refresh exporting`, which writes it anew",
            )
        self.vocabulary = self._functions.llama_model_get_vocab(self.pointer)

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give its memory back. Nothing can be asked of it then."""
        self._functions.llama_model_free(self.pointer)

    @property
    def size(self) -> int:
        """Of the vocabulary."""
        return int(self._functions.llama_vocab_n_tokens(self.vocabulary))

    @property
    def description(self) -> dict[str, str]:
        """The keys of the file and their values as text, without lists."""
        functions, buffer = self._functions, ctypes.create_string_buffer(_MOST_TEXT)
        found = {}
        for index in range(functions.llama_model_meta_count(self.pointer)):
            functions.llama_model_meta_key_by_index(self.pointer, index, buffer, _MOST_TEXT)
            key = buffer.value.decode()
            functions.llama_model_meta_val_str_by_index(self.pointer, index, buffer, _MOST_TEXT)
            found[key] = buffer.value.decode(errors="replace")
        return found

    def special(self) -> dict[str, int | None]:
        """Ids of the tokens that mean something, as llama.cpp understands the file; None for one that it has not."""
        names = ("bos", "eos", "eot", "fim_pre", "fim_suf", "fim_mid", "fim_rep", "fim_sep")
        ids = {name: getattr(self._functions, f"llama_vocab_{name}")(self.vocabulary) for name in names}
        return {name: None if index < 0 else int(index) for name, index in ids.items()}

    def ends(self, index: int) -> bool:
        """Whether its server stops at a token."""
        return bool(self._functions.llama_vocab_is_eog(self.vocabulary, index))

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text as plain text, without BOS."""
        given = text.encode()
        room = len(given) + 8
        ids = (self._functions.llama_token * room)()
        count = self._functions.llama_tokenize(self.vocabulary, given, len(given), ids, room, False, False)
        return list(ids[:count])

    @contextmanager
    def computing(
        self, length: int, sequences: int, threads: int, adapter: Path | None = None
    ) -> Iterator[GgufContext]:
        """The model ready for so many sequences of so many tokens each, keys and values in fp32, optionally with a
        LoRA adapter.

        Raises:
            StageError: there is not enough memory, or the adapter does not fit.
        """
        functions = self._functions
        params = functions.llama_context_default_params()
        params.n_ctx, params.n_seq_max = length * sequences, sequences
        params.n_batch = params.n_ubatch = max(length, sequences)
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = _F32
        params.flash_attn_type = 0  # else keys and values are read in 16 bits
        context = functions.llama_init_from_model(self.pointer, params)
        if not context:
            raise StageError(
                f"llama.cpp cannot compute with {sequences} × {length} tokens; the log says why",
                remedy="end other programs, or lower generation.batch_size",
            )
        try:
            if adapter:
                self._put_on(context, adapter)
            yield GgufContext(context, self.size, length)
        finally:
            functions.llama_free(context)

    def _put_on(self, context: Any, adapter: Path) -> None:
        """The adapter stays until the model is freed."""
        functions = self._functions
        loaded = functions.llama_adapter_lora_init(self.pointer, str(adapter).encode())
        adapters, scales = (functions.llama_adapter_lora_p_ctypes * 1)(loaded), (ctypes.c_float * 1)(1.0)
        if not loaded or functions.llama_set_adapters_lora(context, adapters, 1, scales) != 0:
            raise StageError(
                f"llama.cpp cannot put {adapter.name} on its base; the log says why",
                field="exporting.forms",
                remedy="run again with `--refresh exporting`, which writes it anew",
            )


class GgufContext:
    """What computes; see `GgufModel.computing`."""

    def __init__(self, pointer: Any, vocabulary: int, length: int) -> None:
        self._functions, self._pointer = llama(), pointer
        self._vocabulary, self._length = vocabulary, length

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """At every position of one text: positions × vocabulary, fp32."""
        self.forget()
        self._decode([(index, place, 0) for place, index in enumerate(ids)], every=True)
        return self._read(len(ids))

    def next(self, tokens: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """Logits after each of some tokens (id, place, sequence), at most one of a sequence: tokens × vocabulary."""
        self._decode(tokens, every=True)
        return self._read(len(tokens))

    def read(self, ids: Sequence[int], sequence: int) -> torch.Tensor:
        """Take in the beginning of a sequence; the logits after it."""
        self._decode([(index, place, sequence) for place, index in enumerate(ids)], every=False)
        return self._read(1)[0]

    def forget(self) -> None:
        """All sequences."""
        self._functions.llama_memory_clear(self._functions.llama_get_memory(self._pointer), True)

    def _decode(self, tokens: Sequence[tuple[int, int, int]], *, every: bool) -> None:
        batch = self._functions.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for row, (index, place, sequence) in enumerate(tokens):
                batch.token[row], batch.pos[row] = index, place
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
                batch.logits[row] = every or row == len(tokens) - 1
            status = self._functions.llama_decode(self._pointer, batch)
        finally:
            self._functions.llama_batch_free(batch)
        if status != 0:
            raise StageError(f"llama.cpp cannot compute {len(tokens)} tokens at once: status {status}")

    def _read(self, rows: int) -> torch.Tensor:
        import numpy as np
        import torch

        found = self._functions.llama_get_logits(self._pointer)
        return torch.from_numpy(np.ctypeslib.as_array(found, (rows, self._vocabulary)).copy())
