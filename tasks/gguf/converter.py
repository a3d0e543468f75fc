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

from artifacts.errors import StageError
from artifacts.installation import PROJECT, safe
from tasks.gguf.vocabulary import keys, rope_base, splitter
from tasks.models import sentencepiece_model
from tasks.models.files import CONFIG, read_json
from tasks.models.vocabulary import CodeTokenizer

CONVERTER = PROJECT / "third_party" / "llama.cpp"

log = logging.getLogger(__name__)


def convert(folder: Path, file: Path, tokenizer: CodeTokenizer, *, name: str, infills: bool) -> None:
    """Write a model as GGUF in f16.

    Args:
        name: of the model, as programs show it.
        infills: see `tasks.gguf.vocabulary.keys`.

    Raises:
        StageError: the converter does not know the model's architecture or tokenizer, or failed.
    """
    with _with_tokenizer_model(folder, tokenizer) as given:
        _run(
            file,
            folder=str(given),
            name=name,
            keys=keys(tokenizer, infills=infills),
            special=sorted(tokenizer.ids.values()),
            splitter=splitter(tokenizer),
            rope_base=rope_base(read_json(folder / CONFIG)),
            adapter=False,
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
def _with_tokenizer_model(folder: Path, tokenizer: CodeTokenizer) -> Iterator[Path]:
    """The folder, or one of links to its files with the `tokenizer.model` that it lacks."""
    made = None if (folder / sentencepiece_model.NAME).exists() else sentencepiece_model.make(tokenizer)
    if made is None:
        yield folder
        return
    with TemporaryDirectory() as links:
        for path in folder.iterdir():
            (Path(links) / path.name).symlink_to(path.resolve())
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
        raise StageError(
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
