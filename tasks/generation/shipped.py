"""Base and tuned as they are shipped: each as a GGUF file of the same type, in llama.cpp."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from artifacts.errors import InputError
from artifacts.schema import ExportedModel
from tasks.backends.contract import Computing
from tasks.generation.models import Pair, Side
from tasks.gguf import library
from tasks.gguf.converter import convert
from tasks.gguf.loaded import GgufModel
from tasks.models.vocabulary import CodeTokenizer

FIELD = "generation.forms"


class ShippedPair(Pair):
    """Both as files. That of the base is made when it is first asked."""

    def __init__(
        self, folder: Path, exported: ExportedModel, form: str, tokenizer: CodeTokenizer, scratch: Path
    ) -> None:
        """
        Args:
            folder: of the base model as published.
            scratch: where there is room for the base's file, and for one of 16 bits beside it.

        Raises:
            InputError: the export does not have the form, or what reads it is not installed.
        """
        library.check_installed(FIELD)
        if exported.form(form) is None:
            raise InputError(
                f"the model was not exported as {form}",
                field=FIELD,
                remedy=f"run the recipe again with --set 'exporting.forms=[merged, {form}]', or measure another form",
            )
        self._folder, self._adapter, self._tokenizer = folder, exported.path / "adapter", tokenizer
        self._scratch = TemporaryDirectory(dir=scratch, prefix=".")
        self._form, self._file = form, exported.path / form / library.file_name(form)
        self._models: dict[bool, GgufModel] = {}
        """Those that were asked so far. Whether it is the tuned one."""

    def prepare(self, length: int) -> None:
        from tasks.backends.llama_cpp.inference import NAME

        self.backend = NAME

    def side(self, side: Side) -> AbstractContextManager[Computing]:
        from tasks.backends.llama_cpp.inference import GgufComputing

        tuned = side == "tuned"
        if tuned not in self._models:
            self._models[tuned] = GgufModel(self._file if tuned else self._base())
        return nullcontext(GgufComputing(self._models[tuned]))

    def _base(self) -> Path:
        """The base's file, made in the way in which the tuned model's was."""
        import torch

        kind = library.type_of(self._form)
        file = Path(self._scratch.name) / library.file_name(self._form)
        whole = file.with_name("whole.gguf") if kind != library.F16 else file
        convert(self._folder, whole, self._tokenizer, name="base", infills=False)
        if kind != library.F16:
            library.quantize(whole, file, kind, torch.get_num_threads())
            whole.unlink()
        return file

    def release(self) -> None:
        for model in self._models.values():
            model.close()
        self._models.clear()
        self._scratch.cleanup()
