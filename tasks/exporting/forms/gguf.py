"""The whole model as one GGUF file, for llama.cpp and what is built on it.

Loaded by llama.cpp itself before it counts: it has to give every file of the sample the ids that training had, to know
the marks and ends of the model's vocabulary, and to compute what the trained model computes. Where llama.cpp's library
is not installed, its server is asked. The bound of 16 bits is a share of the largest logit. Measured with the built-in
model and random ones on a CPU: 0.001 to 0.004, since llama.cpp rounds to fp16 what it multiplies with weights of fp16.
"""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import StageError
from artifacts.escaping import code, quoted
from artifacts.progress import Progress
from artifacts.schema import Comparison, DatasetSample
from tasks.exporting.comparing import gguf_share, judge, literal, trained_logits
from tasks.exporting.config import ExportingConfig
from tasks.exporting.contract import Chunks, Export, Ingredients
from tasks.exporting.others import texts_of
from tasks.exporting.serving import MODELFILE, NAME, modelfile
from tasks.gguf import library, server
from tasks.gguf.converter import check_known, convert
from tasks.gguf.loaded import GgufModel
from tasks.gguf.vocabulary import problems, served_problems
from tasks.models.base_model import ModelReference
from tasks.models.files import CONFIG, read_json
from tasks.models.shape import ModelShape
from tasks.models.vocabulary import SPACE, CodeTokenizer, encode_batch, load_tokenizer
from tasks.tokenization.config import context_length

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DAMAGED = 0.5
"""How far a logit of fewer than 16 bits may be off, as a share of the largest: further only by damage."""
EVERY, LIKELIEST = 4, 100
"""The server is asked at each such position for so many tokens with their probabilities: a request for each."""


class GgufExport:
    """See `tasks.exporting.contract.Export`."""

    library = "llama.cpp"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = library.PREFIX + kind
        self.title = f"GGUF, {kind}"
        self.heading = f", adapted (GGUF, {kind})"
        self.needs: tuple[str, ...] = ("merged",) if kind == library.F16 else ("merged", library.PREFIX + library.F16)
        self.file = library.file_name(self.name)

    def check_ready(self) -> None:
        library.check_installed("exporting.forms", self.kind)

    def check_model(self, model: ModelReference) -> None:
        if self.kind == library.F16:  # of which the others are made
            check_known(model)

    def stored_bytes(self, shape: ModelShape) -> float:
        return library.TYPES[self.kind] / 8 * shape.parameters

    def write(self, made: Ingredients, config: ExportingConfig, folder: Path, progress: Progress) -> None:
        import torch

        folder.mkdir(parents=True)
        progress.begin(f"writing {self.file}")
        tokenizer, chats = load_tokenizer(made.model.metadata), made.tokens.format == "instruct"
        told = modelfile(self.file, made.base, tokenizer, context_length(made.model), chats=chats)
        (folder / MODELFILE).write_text(told, encoding="utf-8")
        if self.kind == library.F16:
            name, infills = made.base_name.rstrip("/").rsplit("/", 1)[-1], made.tokens.format == "fim"
            convert(made.folders["merged"], folder / self.file, tokenizer, name=f"{name}, adapted", infills=infills)
        else:
            whole = library.PREFIX + library.F16
            source = made.folders[whole] / library.file_name(whole)
            library.quantize(source, folder / self.file, self.kind, torch.get_num_threads())

    def check(self, made: Ingredients, config: ExportingConfig, folder: Path, chunks: Chunks) -> Comparison:
        expected, _ = trained_logits(made.base, made.adapter.folder, chunks, made.plan, made.scratch)
        exact = library.TYPES[self.kind] == library.TYPES[library.F16]
        bound = (gguf_share(config, made.plan) if exact else DAMAGED) * float(expected.abs().max())
        if library.installed():
            files, found = self._by_library(made, folder / self.file, chunks)
            where = "llama.cpp"
        else:
            files, found, expected = self._by_server(made, folder / self.file, chunks, expected)
            where = f"llama.cpp's server, the likeliest tokens at every {EVERY}th position,"
        against = (
            f"{self.file} in {where} against unquantized base and adapter, after equal token ids of {files:,} files"
        )
        return judge(against, found, expected, bound, exact=exact)

    def _by_library(self, made: Ingredients, file: Path, chunks: Chunks) -> tuple[int, torch.Tensor]:
        """How many files were given the same ids, and all logits."""
        import torch

        tokenizer, infills = load_tokenizer(made.model.metadata), made.tokens.format == "fim"
        with GgufModel(file) as model:
            self._refuse(problems(model, tokenizer, read_json(made.base / CONFIG), infills=infills))
            files = check_ids(model, tokenizer, made.sample, infills=infills)
            with model.computing(max(map(len, chunks)), 1, torch.get_num_threads()) as computing:
                return files, torch.cat([computing.logits(ids) for ids in chunks])

    def _by_server(
        self, made: Ingredients, file: Path, chunks: Chunks, expected: torch.Tensor
    ) -> tuple[int, torch.Tensor, torch.Tensor]:
        """How many files were given the same ids, and logarithms of probabilities beside those of the trained model."""
        import torch

        tokenizer, infills = load_tokenizer(made.model.metadata), made.tokens.format == "fim"
        told, wanted, rows = [], [], iter(expected)
        served = server.Served(file, self.name, 2 * max(map(len, chunks)), torch.get_num_threads())
        with server.loaded(served) as place, server.client(place) as client:
            model = server.ServedModel(client)
            self._refuse(served_problems(model, tokenizer, read_json(made.base / CONFIG)))
            files = check_ids(model, tokenizer, made.sample, infills=infills)
            for ids in chunks:
                for count, row in enumerate(islice(rows, len(ids)), 1):
                    if count % EVERY == 0 or count == len(ids):
                        likeliest = model.likeliest(ids[:count], min(LIKELIEST, model.size))
                        told.append(torch.tensor(list(likeliest.values())))
                        wanted.append(row.log_softmax(0)[list(likeliest)])
        return files, torch.stack(told), torch.stack(wanted)

    def _refuse(self, found: list[str]) -> None:
        if found:
            raise StageError(
                f"{self.file} does not say of the model what it has to say: {found[0]}",
                field="exporting.forms",
                remedy="export other forms than GGUF; llama.cpp would use this one wrong",
            )

    def introduction(self, made: Ingredients) -> str:
        revision = f" at revision {code(made.base_revision)}" if made.base_revision else ""
        return (
            f"The whole model as one GGUF file of type {code(self.kind)}, adapter merged in: {code(made.base_name)}"
            f"{revision}, adapted to {quoted(made.sample.source)}. Loaded with llama.cpp before it was published: "
            "token ids compared with training's on every file, logits with the trained model's on held-out text."
        )

    def loading_lines(self, base: str, revision: str | None, folder: str) -> str:
        return (
            "from pathlib import Path\n\nfrom llama_cpp import Llama\n\n"
            f"model = Llama(str(Path({literal(folder)}) / {literal(self.file)}))"
        )

    def serving_lines(self, made: Ingredients, folder: str) -> str:
        return f"ollama create {NAME} -f {MODELFILE}   # or, with llama.cpp:\nllama-server -m {self.file} --port 8012"


FORMS: tuple[Export, ...] = tuple(GgufExport(kind) for kind in library.TYPES)


def check_ids(
    model: GgufModel | server.ServedModel, tokenizer: CodeTokenizer, sample: DatasetSample, *, infills: bool
) -> int:
    """Compare the ids of every file of the sample with training's; how many there are.

    llama.cpp cannot write SentencePiece's sign for a space: it is left out of both. Where it puts no space before a
    text, the text is given as training has it, with the space.

    Raises:
        StageError: some have others.
    """
    count, other = 0, 0
    lead = " " if tokenizer.leading_space and infills else ""
    for texts in texts_of(sample):
        given = [text.replace(SPACE, "_") for text in texts] if tokenizer.space_bytes else texts
        for text, ids in zip(given, encode_batch(tokenizer, given), strict=True):
            count += ids is not None
            other += ids is not None and model.tokenize(lead + text) != ids
    if other:
        raise StageError(
            f"llama.cpp gives other token ids than training for {other:,} of {count:,} files",
            field="exporting.forms",
            remedy="export other forms than GGUF: this file would answer worse, and nobody would be told",
        )
    return count
