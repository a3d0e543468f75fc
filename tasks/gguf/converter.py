"""A model's folder as a GGUF file, by llama.cpp's own converter."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from artifacts.errors import InputError, StageError
from artifacts.installation import PROJECT, safe
from tasks.gguf.vocabulary import keys, rope_base, splitter
from tasks.models import sentencepiece_model
from tasks.models.base_model import ModelReference
from tasks.models.files import CONFIG, read_json
from tasks.models.vocabulary import CodeTokenizer, load_tokenizer

CONVERTER = PROJECT / "third_party" / "llama.cpp"

log = logging.getLogger(__name__)


class UnknownModelError(StageError):
    """The converter does not know a model's architecture or tokenizer."""


def check_known(model: ModelReference) -> None:
    """Whether the converter knows a model's tokenizer: else that is found hours later. Takes seconds where there is
    doubt: where pieces are merged as by SentencePiece, and where we know how text is split, it does not ask.

    Raises:
        InputError: it does not.
    """
    tokenizer = load_tokenizer(model.metadata)
    if splitter(tokenizer) or sentencepiece_model.make(tokenizer):
        return
    with TemporaryDirectory() as folder:
        try:
            convert(model.metadata, Path(folder) / "vocabulary.gguf", tokenizer, name="", infills=False, weights=False)
        except UnknownModelError as error:
            raise InputError(
                f"{model.name} cannot become a GGUF file: {error.problem}",
                field="exporting.forms",
                remedy=f"leave out the GGUF forms, {error.remedy}",
            ) from error
        except StageError as error:  # perhaps of this alone: the export says
            log.warning("whether %s can become a GGUF file could not be tried: %s", model.name, error.problem)


def convert(
    folder: Path, file: Path, tokenizer: CodeTokenizer, *, name: str, infills: bool, weights: bool = True
) -> None:
    """Write a model as GGUF in f16.

    Args:
        name: of the model, as programs show it.
        infills: see `tasks.gguf.vocabulary.keys`.
        weights: with them, or the vocabulary and what is told of the model alone.

    Raises:
        UnknownModelError: the converter does not know the model's architecture or tokenizer.
        StageError: it failed.
    """
    with _prepared(folder, tokenizer, weights=weights) as given:
        _run(
            file,
            folder=str(given),
            name=name,
            keys=keys(tokenizer, infills=infills),
            special=sorted(tokenizer.ids.values()),
            splitter=splitter(tokenizer),
            rope_base=rope_base(read_json(folder / CONFIG)),
            adapter=False,
            weights=weights,
        )


def convert_adapter(folder: Path, base: Path, file: Path) -> None:
    """Write a LoRA adapter as GGUF in fp32.

    Args:
        base: the folder of its base model, of which only the configuration is read.

    Raises:
        StageError: the converter does not know the base's architecture, or failed.
    """
    _run(file, folder=str(folder), base=str(base), adapter=True)


@contextmanager
def _prepared(folder: Path, tokenizer: CodeTokenizer, *, weights: bool) -> Iterator[Path]:
    """The folder, or one of links to its files: with the `tokenizer.model` that it lacks, or without weights."""
    made = None if (folder / sentencepiece_model.NAME).exists() else sentencepiece_model.make(tokenizer)
    if made is None and weights:
        yield folder
        return
    with TemporaryDirectory() as links:
        for path in folder.iterdir():
            if weights or not path.name.endswith((".safetensors", ".index.json", ".bin")):
                (Path(links) / path.name).symlink_to(path.resolve())
        if made is not None:
            (Path(links) / sentencepiece_model.NAME).write_bytes(made)
        yield Path(links)


def _run(file: Path, **job: Any) -> None:
    given = {**job, "file": str(file), "converter": str(CONVERTER), "parent": os.getpid()}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tasks.gguf.child"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        env=safe(os.environ) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    )
    for line in done.stderr.splitlines():
        log.debug("%s", line)
    try:
        problem = json.loads(done.stdout.splitlines()[-1]).get("problem") if done.returncode == 0 else ""
    except (ValueError, IndexError):
        problem = ""
    if problem is None and file.exists():
        return
    if problem:
        raise UnknownModelError(
            f"llama.cpp's converter does not know this model: {problem}",
            field="exporting.forms",
            remedy="export other forms than GGUF, or wait for a version of codetune with a newer converter",
        )
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"status {done.returncode}")
    raise StageError(
        f"llama.cpp's converter failed: {last}",
        field="exporting.forms",
        remedy="see that there is room on the disk; the whole message is in the log, at level DEBUG",
    )
