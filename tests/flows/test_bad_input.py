"""What a person can get wrong. Each case ends with one clear message, the right exit status, no traceback, and
nothing half-written. The command line runs in this process, on a real Prefect server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from tests.conftest import BASE_MODEL
from tests.tasks.functional.suites import row, write


@dataclass
class Case:
    name: str
    message: str
    """A part of what must be said."""
    settings: list[str] = field(default_factory=list)
    """`--set` values; `{tmp}` is the test's folder."""
    prepare: Callable[[Path], None] = lambda tmp: None
    recipe: str = "demo"
    arguments: tuple[str, ...] = ()
    status: int = 2


def code(tmp: Path) -> None:
    """Two repositories with a little real code."""
    for module in (json, shutil):
        (tmp / "code" / module.__name__).mkdir(parents=True)
        shutil.copy(module.__file__, tmp / "code" / module.__name__ / "module.py")


def file(name: str, data: bytes) -> Callable[[Path], None]:
    def write(tmp: Path) -> None:
        path = tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def model(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def copy(tmp: Path) -> None:
        shutil.copytree(BASE_MODEL, tmp / "model")
        change(tmp / "model")

    return copy


def remove(*patterns: str) -> Callable[[Path], None]:
    def delete(folder: Path) -> None:
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()

    return delete


def without_fim(folder: Path) -> None:
    """Rename the FIM tokens, so that the tokenizer has none."""
    for path in (*folder.glob("tokenizer*.json"), *folder.glob("special_tokens_map.json"), *folder.glob("added*.json")):
        text = path.read_text(encoding="utf-8")
        for name in ("PRE", "SUF", "MID", "EOT"):
            text = text.replace(f"<{name}>", f"<no{name}>")
        path.write_text(text, encoding="utf-8")


OWN_MODEL = "model.name={tmp}/model"


def local(path: str) -> list[str]:
    return [f"sampling.source={{kind: local, paths: ['{path}']}}"]


def table(path: str) -> list[str]:
    return [f"sampling.source={{kind: table, paths: ['{path}']}}"]


SETTINGS = [
    Case("no such recipe", "there is no recipe “nothing”", recipe="nothing"),
    Case("no such recipe file", "cannot be read", recipe="{tmp}/nothing.yaml"),
    Case("a recipe that is no YAML", "not valid YAML", recipe="{tmp}/r.yaml", prepare=file("r.yaml", b"a: [1")),
    Case("a recipe that is a list", "holds a list", recipe="{tmp}/r.yaml", prepare=file("r.yaml", b"- a")),
    Case("a recipe that is not text", "not UTF-8", recipe="{tmp}/r.yaml", prepare=file("r.yaml", b"\xff\xfe\x00")),
    Case("a margin below zero", "evaluation.margins.loss", ["evaluation.margins.loss=-0.1"]),
    Case("nothing held out", "sampling.held_out", ["sampling.held_out=0"]),
    Case("an unknown stage in a recipe", "trainning", recipe="{tmp}/r.yaml", prepare=file("r.yaml", b"trainning: {}")),
    Case("an unknown setting", "did you mean training.learning_rate?", ["training.learning_rat=1"]),
    Case("a wrong type", "training.max_steps", ["training.max_steps=many"]),
    Case("a value out of range", "training.max_steps", ["training.max_steps=-1"]),
    Case("an unknown choice", "training.quantization", ["training.quantization=int3"]),
    Case("an unknown kind of source", "sampling.source", ["sampling.source={kind: ftp}"]),
    Case("several faults at once", "2 settings", ["training.max_steps=-1", "training.lora.r=none"]),
    Case("a setting without a value", "write --set", ["training.max_steps"]),
    Case("a setting with broken YAML", "not valid YAML", ["training.max_steps=[1"]),
    Case("an unknown stage to refresh", "there is no stage “trainig”", arguments=("--refresh", "trainig")),
    Case("an unknown option", "", arguments=("--fast",)),
    Case("micro-batches that do not fit the batch", "micro_batch", ["training.micro_batch=3"]),
    Case("a memory budget below zero", "gpu_memory_gib", ["preflight.gpu_memory_gib=-1"]),
]

STORE = [
    Case(
        "a store in place of a file", "CODETUNE_STORE", prepare=file("f", b""), arguments=("--store", "{tmp}/f/store")
    ),
]

MODEL = [
    Case("no such model folder", "model.name", ["model.name={tmp}/nothing"]),
    Case("a name that is neither folder nor repository", "model.name", ["model.name=a/b/c/d"]),
    Case("a model without weights", "weights", [OWN_MODEL], model(remove("*.safetensors"))),
    Case("a model without configuration", "config.json", [OWN_MODEL], model(remove("config.json"))),
    Case("a model without tokenizer", "tokenizer", [OWN_MODEL], model(remove("tokenizer*", "special*"))),
    Case("a broken configuration", "config.json", [OWN_MODEL], model(file("config.json", b"{"))),
    Case("LoRA on a module that is not there", "query_proj", ["training.lora.target_modules=[query_proj]"]),
    Case("sequences longer than the context", "tokenization.max_length", ["tokenization.max_length=100000"]),
    Case("prompts longer than the context", "prompts.prompt_tokens", ["prompts.prompt_tokens=100000"]),
    Case("FIM without FIM tokens", "tokenization.format", [OWN_MODEL, "tokenization.format=fim"], model(without_fim)),
    Case("a model too large for a CPU", "GPU", ["preflight.cpu_max_parameters=1000000"], status=3),
]

SUITE = "prompts.functional=['{tmp}/s.jsonl']"


def suite(*rows: dict[str, Any] | str) -> Callable[[Path], None]:
    return lambda tmp: str(write(tmp / "s.jsonl", *rows)) and None


SUITES = [
    Case("no such suite", "there is no suite 'humanevil'", ["prompts.functional=[humanevil]"]),
    Case("no such suite file", "there is no such file", [SUITE]),
    Case("a suite's broken row", "line 2 is no JSON", [SUITE], suite(row(), '{"task_id": "T/1"')),
    Case("a suite without tests", "line 1 of s.jsonl lacks this field", [SUITE], suite(row(test=None))),
    Case("a problem twice", "the task_id 'T/0' stands in line 1", [SUITE], suite(row(), row())),
    Case("NUL bytes in a suite", "line 1 of s.jsonl has NUL bytes", [SUITE], suite(row(prompt="def twice(x):\0\n"))),
    Case(
        "half a character in a suite", "cannot be written as UTF-8", [SUITE], suite(row(prompt="def twice(x):\ud800\n"))
    ),
    Case("a suite of no problems", "there is no problem in this file", [SUITE], suite("")),
    Case("a suite twice", "another suite is called 's'", [SUITE.replace("]", ", '{tmp}/s.jsonl']")], suite(row())),
    Case("a margin of programs below zero", "evaluation.margins.functional", ["evaluation.margins.functional=-0.1"]),
]

DATA = [
    Case("no such folder", "nothing", local("{tmp}/nothing")),
    Case("an empty folder", "sampling.source", local("{tmp}/code"), lambda tmp: (tmp / "code").mkdir()),
    Case("no file in a wanted language", "sampling", local("{tmp}/code"), file("code/a/notes.txt", b"words\n")),
    Case(
        "one repository only", "repositor", local("{tmp}/code"), file("code/a/m.py", Path(json.__file__).read_bytes())
    ),
    Case("no UTF-8 at all", "UTF-8", local("{tmp}/code"), file("code/a/m.py", b"x = '\xff\xfe'\n" * 50)),
    Case("NUL bytes", "NUL", local("{tmp}/code"), file("code/a/m.py", b"x = 1\x00\n" * 50)),
    Case(
        "one line of 50 MB",
        "too large",
        local("{tmp}/code"),
        file("code/a/m.py", b"x = '" + b"ab " * 17_000_000 + b"'\n"),
    ),
    Case("no such table", "nothing.parquet", table("{tmp}/nothing.parquet")),
    Case("a table without content", "content", table("{tmp}/t.jsonl"), file("t.jsonl", b'{"text": "x = 1"}\n' * 9)),
    Case("a table that is none", "t.parquet", table("{tmp}/t.parquet"), file("t.parquet", b"not a table")),
    Case(
        "fewer sequences than one batch",
        "effective_batch",
        [*local("{tmp}/code"), "training.effective_batch=512"],
        code,
    ),
]


@pytest.fixture(autouse=True)
def machine(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases that get as far as the flow need a server, and the same answer where there is a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize("case", [*SETTINGS, *STORE, *MODEL, *SUITES, *DATA], ids=lambda case: case.name)
def test_bad_input(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.prepare(tmp_path)
    arguments = [case.recipe, *(part for setting in case.settings for part in ("--set", setting)), *case.arguments]
    if "--store" not in arguments:
        arguments += ["--store", "{tmp}/store"]
    status = cli.guarded(["run", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)])
    said = " ".join(capsys.readouterr().err.split())
    assert status == case.status, said
    assert case.message in said
    assert "Traceback" not in said
    left = [path for path in (tmp_path / "store" / ".work").rglob("*") if path.is_file()]
    assert not left


def test_too_little_text_for_a_step_is_said_before_the_model_is_quantized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code(tmp_path)
    settings = [*local(f"{tmp_path}/code"), "training.effective_batch=512", "training.quantization=nf4"]
    command = ["run", "demo", *(part for one in settings for part in ("--set", one)), "--store", f"{tmp_path}/store"]
    assert cli.guarded(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "one optimizer step takes 512 sequences" in said
    made = {path.name for path in (tmp_path / "store").iterdir()}
    assert "tokenization" in made and "quantization" not in made, made
