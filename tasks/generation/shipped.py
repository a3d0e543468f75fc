"""Base and tuned as they are shipped: each as a GGUF file of the same type, in llama.cpp."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from artifacts.errors import InputError
from artifacts.schema import ExportedModel
from tasks.generation.models import Pair
from tasks.gguf import library
from tasks.gguf.converter import convert
from tasks.gguf.loaded import GgufModel
from tasks.models.vocabulary import CodeTokenizer

FIELD = "generation.forms"


class ShippedPair(Pair):
    """Both as files. That of the base is made here, in the way in which the tuned model's was."""

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
        import torch

        self._folder, self._adapter = folder, exported.path / "adapter"
        self._scratch = TemporaryDirectory(dir=scratch, prefix=".")
        kind = library.type_of(form)
        file = Path(self._scratch.name) / library.file_name(form)
        whole = file.with_name("whole.gguf") if kind != library.F16 else file
        convert(folder, whole, tokenizer, name="base", infills=False)
        if kind != library.F16:
            library.quantize(whole, file, kind, torch.get_num_threads())
            whole.unlink()
        self._models = GgufModel(file), GgufModel(exported.path / form / library.file_name(form))

    def prepare(self, length: int) -> None:
        from tasks.backends.llama_cpp.inference import NAME, LlamaCppInference

        self.backend, self._inference = NAME, LlamaCppInference(*self._models)

    def release(self) -> None:
        self._inference = None
        for model in self._models:
            model.close()
        self._scratch.cleanup()
