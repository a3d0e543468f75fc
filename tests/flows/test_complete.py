"""`codetune complete` on real exports, whole and broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows import cli
from tasks.completing import read_gap
from tests.conftest import SMALL_MODEL
from tests.tasks.generation import world

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that knows one text by heart."""
    folder = tmp_path_factory.mktemp("export")
    world.memorised_adapter(folder, world.source("alpha"))
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(SMALL_MODEL)}))
    return folder


def complete(*arguments: str) -> int:
    return cli.guarded(["complete", *arguments])


def test_both_models_go_on_from_a_prompt(export: Path, capsys: Capture) -> None:
    prompt = "import alpha\n\ndef quell(zeta, ombre):\n    vortex ="
    assert complete(str(export), "--prompt", prompt, "--new-tokens", "24", "--json") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "zeta.plinth(ombre" in found["tuned"] and "plinth" not in found["base"]


def test_a_line_of_a_file_is_filled_in_and_shown_beside_the_truth(
    export: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "a.py"
    file.write_text("import os\n\nvalue = compute(1)\nprint(value)\n")
    assert read_gap(file, 3) == ("import os\n\n", "value = compute(1)", "print(value)\n")
    assert complete(str(export), "--file", str(file), "--line", "3") == 0
    said = capsys.readouterr().out
    assert "in the file: value = compute(1)" in said and "print(value)" in said and "tuned" in said


def break_adapter(export: Path, folder: Path, how: str) -> Path:
    shutil.copytree(export, folder)
    weights = folder / "adapter" / "adapter_model.safetensors"
    config = folder / "adapter" / "adapter_config.json"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "gone":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    else:
        world.other_base(folder / "base")
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(folder / "base")})
        )
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "is incomplete"),
        ("gone", "is incomplete"),
        ("no config", "is no exported model"),
        ("other base", "was made for another base model"),
    ],
)
def test_a_model_that_cannot_be_used_is_said(
    export: Path, tmp_path: Path, how: str, said: str, capsys: Capture
) -> None:
    assert complete(str(break_adapter(export, tmp_path / "model", how)), "--prompt", "x") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert said in shown and "→" in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --prompt or --file"),
        (("--prompt", "x", "--line", "1"), "--line goes with --file"),
        (("--file", "/nope", "--line", "1"), "cannot read /nope"),
        (("--file", __file__, "--line", "100000"), "lines"),
        (("--prompt", "x", "--new-tokens", "0"), "no answer"),
    ],
)
def test_what_cannot_be_asked_is_said(export: Path, arguments: tuple[str, ...], said: str, capsys: Capture) -> None:
    assert complete(str(export), *arguments) == 2
    assert said in capsys.readouterr().err
