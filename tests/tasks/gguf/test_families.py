"""A model of every family as GGUF: marks, ends, template and rope settings are in the file, and ids are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifacts.installation import safe
from tasks.families import FAMILIES
from tasks.gguf.loaded import GgufModel
from tasks.gguf.vocabulary import problems
from tasks.models.vocabulary import SPACE, encode_batch, load_tokenizer
from tests.tasks.families import models
from tests.tasks.gguf.extra import WITH_EXTRA
from tests.tasks.tokenization import toys

NAMES = [*(family.name for family in FAMILIES), "Code Llama, 32,016 tokens"]
TEXTS = [
    *toys.CORPUS,
    "\n\n\tfoo  bar   baz 12345 é日本\r\n",
    "  lead",
    "<|endoftext|> <unk> <s></s> ▁<PRE><|im_start|>\n",
]
CONVERTING = """
import json, sys
from pathlib import Path
from tasks.gguf import child, converter
from tasks.models.vocabulary import load_tokenizer

child.find_converter(str(converter.CONVERTER))
for job in json.loads(sys.stdin.read()):
    converter._run = lambda file, **given: child.convert({**given, "file": str(file)})
    tokenizer = load_tokenizer(Path(job["folder"]))
    converter.convert(Path(job["folder"]), Path(job["file"]), tokenizer, name="tiny", infills=job["infills"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models by number, and their files, all made by one process: the converter's libraries take seconds to load."""
    made = tmp_path_factory.mktemp("families")
    for number, family in enumerate(FAMILIES):
        models.write(made / str(number), family)
    full = made / str(len(FAMILIES))
    toys.code_llama(full)
    models.weights(full, "llama", 32016)
    jobs = [
        {"folder": str(made / str(number)), "file": str(made / f"{number}-{infills}.gguf"), "infills": infills}
        for number in range(len(NAMES))
        for infills in (False, True)
    ]
    run = [sys.executable, "-P", "-c", CONVERTING]
    done = subprocess.run(
        run, input=json.dumps(jobs), capture_output=True, text=True, env=safe(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return made


@WITH_EXTRA
@pytest.mark.parametrize("infills", [False, True])
@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_llama_cpp_understands_the_model_as_training_does(folder: Path, number: int, infills: bool) -> None:
    tokenizer = load_tokenizer(folder / str(number))
    config: dict[str, Any] = json.loads((folder / str(number) / "config.json").read_text())
    texts = [text.replace(SPACE, "_") if tokenizer.space_bytes else text for text in TEXTS]
    with GgufModel(folder / f"{number}-{infills}.gguf", vocabulary_only=True) as model:
        assert problems(model, tokenizer, config, infills=infills) == []
        lead = " " if infills and tokenizer.leading_space else ""
        assert [model.tokenize(lead + text) for text in texts] == encode_batch(tokenizer, texts)
        template = folder / str(number) / "chat_template.jinja"
        assert model.description.get("tokenizer.chat_template") == (template.read_text() if template.exists() else None)


@WITH_EXTRA
def test_a_suffix_begins_without_a_space_where_a_model_was_tuned_to_fill_in(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "0")
    (other,) = encode_batch(tokenizer, ["suffix"], continues=True)
    found = []
    for infills in (True, False):
        with GgufModel(folder / f"0-{infills}.gguf", vocabulary_only=True) as model:
            found.append(model.tokenize("suffix") == other)
    assert found == [True, False]
