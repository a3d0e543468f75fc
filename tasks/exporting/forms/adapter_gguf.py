"""The LoRA adapter as a GGUF file, for llama.cpp's `--lora` on a GGUF file of the base model.

Compared in llama.cpp on the base as a file of 16 bits, with the unquantized base and the adapter of PEFT.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import StageError
from artifacts.escaping import code, quoted
from artifacts.progress import Progress
from artifacts.schema import Comparison
from tasks.exporting.comparing import gguf_share, judge, literal, trained_logits
from tasks.exporting.config import ExportingConfig
from tasks.exporting.contract import Chunks, Export, Ingredients
from tasks.gguf import library
from tasks.gguf.converter import check_known, convert, convert_adapter
from tasks.gguf.loaded import GgufModel
from tasks.models.base_model import ModelReference
from tasks.models.shape import ModelShape
from tasks.models.vocabulary import load_tokenizer

FILE = "adapter-f32.gguf"
_SCALED = ("use_rslora", "alpha_pattern", "use_dora", "modules_to_save", "lora_bias")
"""Settings of PEFT that the file has no place for: it has one alpha, and factors."""


class AdapterGgufExport:
    """See `tasks.exporting.contract.Export`."""

    name = "adapter-gguf"
    title = "LoRA adapter, GGUF"
    heading = ", adapted (LoRA adapter, GGUF)"
    library = "llama.cpp"
    needs: tuple[str, ...] = ()

    def check_ready(self) -> None:
        library.check_installed("exporting.forms")

    def check_model(self, model: ModelReference) -> None:
        check_known(model)

    def stored_bytes(self, shape: ModelShape) -> float:
        return library.TYPES[library.F16] / 8 * shape.parameters  # the base, on which it is compared

    def write(self, made: Ingredients, config: ExportingConfig, folder: Path, progress: Progress) -> None:
        found = [name for name in _SCALED if made.adapter.settings.get(name)]
        if found:
            raise StageError(
                f"an adapter with {', '.join(found)} cannot be written as GGUF",
                field="exporting.forms",
                remedy=f"leave out {self.name}; the merged forms are not concerned",
            )
        folder.mkdir(parents=True)
        progress.begin(f"writing {FILE}")
        convert_adapter(made.folders["adapter"], made.base, folder / FILE)

    def check(self, made: Ingredients, config: ExportingConfig, folder: Path, chunks: Chunks) -> Comparison:
        import torch

        base = made.scratch / "base-f16.gguf"
        convert(made.base, base, load_tokenizer(made.model.metadata), name="base", infills=False)
        expected, _ = trained_logits(made.base, made.adapter.folder, chunks, made.plan, made.scratch)
        threads = torch.get_num_threads()
        with (
            GgufModel(base) as model,
            model.computing(max(map(len, chunks)), 1, threads, folder / FILE) as computing,
        ):
            logits = torch.cat([computing.logits(ids) for ids in chunks])
        base.unlink()
        against = f"{FILE} in llama.cpp on the base of 16 bits against unquantized base and adapter"
        return judge(against, logits, expected, gguf_share(config, made.plan) * float(expected.abs().max()))

    def introduction(self, made: Ingredients) -> str:
        revision = f" at revision {code(made.base_revision)}" if made.base_revision else ""
        return (
            f"A LoRA adapter as a GGUF file, for {code(made.base_name)}{revision}, adapted to "
            f"{quoted(made.sample.source)}. Put on the base in llama.cpp and compared with the trained model on "
            "held-out text before it was published."
        )

    def loading_lines(self, base: str, revision: str | None, folder: str) -> str:
        return (
            "from pathlib import Path\n\nfrom llama_cpp import Llama\n\n"
            f"adapter = str(Path({literal(folder)}) / {literal(FILE)})\n"
            'model = Llama("base-f16.gguf", lora_path=adapter)  # any GGUF file of the base'
        )

    def serving_lines(self, made: Ingredients, folder: str) -> str:
        return f"llama-server -m base-f16.gguf --lora {FILE} --port 8012   # any GGUF file of the base"


FORM: Export = AdapterGgufExport()
