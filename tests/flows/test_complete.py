"""`codetune complete` on real exports, whole and broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from safetensors.numpy import load_file, save_file

from artifacts.errors import InputError
from flows import cli
from tasks.generation import completing
from tasks.generation.completing import CompletionRequest, read_gap
from tasks.models.base_model import ModelConfig, locate
from tests.conftest import SMALL_MODEL
from tests.hub import Hub
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
    assert ": value = compute(1)" in said and "print(value)" in said and "tuned" in said


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
    ("how", "value"),
    [
        ("cut", "adapter_model.safetensors .*complete"),
        ("gone", "No such file"),
        ("no config", "adapter_config.json"),
        ("other base", "another base model"),
    ],
)
def test_a_model_that_cannot_be_used_is_said(
    export: Path, tmp_path: Path, how: str, value: str, capsys: Capture
) -> None:
    assert complete(str(break_adapter(export, tmp_path / "model", how)), "--prompt", "x") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert re.search(f"error: MODEL: .*{value}.* → ", shown) and "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((), "--prompt or --file"),
        (("--prompt", "x", "--line", "1"), "--line .*--file"),
        (("--file", "/nope", "--line", "1"), "--file: /nope "),
        (("--file", __file__, "--line", "100000"), "--line: .*100000"),
        (("--prompt", "x", "--new-tokens", "0"), "--new-token"),
    ],
)
def test_what_cannot_be_asked_is_said(export: Path, arguments: tuple[str, ...], value: str, capsys: Capture) -> None:
    assert complete(str(export), *arguments) == 2
    assert re.search(value, capsys.readouterr().err)


GAPS = {
    "plain": (b"a\nb\nc\n", 2, ("a\n", "b", "c\n")),
    "CRLF": (b"a\r\nb\r\nc\r\n", 2, ("a\r\n", "b", "c\r\n")),
    "CR": (b"a\rb\rc", 3, ("a\rb\r", "c", "")),
    "form feed, U+2028, NEL, FS": (
        "a\x0c\u2028\x85\x1c\u2029\x0b1\nb\n".encode(),
        2,
        ("a\x0c\u2028\x85\x1c\u2029\x0b1\n", "b", ""),
    ),
    "byte order mark": (b"\xef\xbb\xbfa\nb\n", 1, ("", "a", "b\n")),
    "no final line break": (b"a\nb", 2, ("a\n", "b", "")),
    "after the last line break": (b"a\n", 2, ("a\n", "", "")),
    "nothing": (b"", 1, ("", "", "")),
    "empty lines": (b"\n\n\n", 2, ("\n", "", "\n")),
}


@pytest.mark.parametrize("kind", GAPS)
def test_lines_are_those_of_an_editor(kind: str, tmp_path: Path) -> None:
    content, line, parts = GAPS[kind]
    (tmp_path / "a.py").write_bytes(content)
    assert read_gap(tmp_path / "a.py", line) == parts


@pytest.mark.parametrize(
    ("content", "line", "field"),
    [
        (b"a\n", 0, "--line"),
        (b"a\n", -1, "--line"),
        (b"a\n", 3, "--line"),
        (b"a", 2, "--line"),
        (b"", 2, "--line"),
        (b"a\0b\n", 1, "--file"),
        (b"\x89PNG\r\n\x1a\n\xff", 1, "--file"),
        ("a\nb\n".encode("utf-16"), 1, "--file"),
        ("é\n".encode("latin-1"), 1, "--file"),
        ("fifo", 1, "--file"),
        ("/dev/zero", 1, "--file"),
        ("/", 1, "--file"),
    ],
)
def test_a_gap_that_is_not_there_is_refused(content: bytes | str, line: int, field: str, tmp_path: Path) -> None:
    place = tmp_path / "a.py"
    if content == "fifo":
        os.mkfifo(place)
    elif isinstance(content, str):
        place = Path(content)
    else:
        place.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_gap(place, line)
    assert refused.value.field == field and refused.value.remedy


def test_beyond_the_context_the_models_see_what_is_nearest(export: Path, tmp_path: Path, capsys: Capture) -> None:
    """What is far away changes nothing, neither the answer nor how long it takes."""
    found = {}
    for count in (3_000, 300_000):
        far = "".join(f"value_{number:06d} = 1\n" for number in range(count))
        nearest = "".join(far.splitlines(keepends=True)[:3_000])
        (tmp_path / "a.py").write_text(far[: -len(nearest)] + nearest + "gap = 1\n" + nearest + far)
        began = time.process_time()
        assert complete(str(export), "--file", str(tmp_path / "a.py"), "--line", str(count + 1), "--json") == 0
        found[count] = json.loads(capsys.readouterr().out.splitlines()[-1])
        left_out = found[count].pop("left_out")
        assert min(left_out.values()) > 10_000 and time.process_time() - began < 30
    assert found[3_000] == found[300_000] and found[3_000]["truth"] == "gap = 1"


def test_an_answer_leaves_room_for_the_prompt(export: Path) -> None:
    for many in (2048, 2040, 10**9):
        with pytest.raises(InputError, match="context of 2048"):
            completing.complete(export, CompletionRequest("x"), new_tokens=many, quantization="none")


def test_an_adapter_is_put_on_the_revision_that_it_was_trained_on(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch has moved since: its weights say other things. Offline the same."""
    question, name, pinned = (
        CompletionRequest("import alpha\n\ndef quell(zeta, ombre):\n    vortex ="),
        "some/model",
        "5" * 40,
    )
    expected = completing.complete(export, question, new_tokens=12, quantization="none")
    folder = Path(shutil.copytree(export, tmp_path / "export"))
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": name, "revision": pinned})
    )
    moved = Path(shutil.copytree(SMALL_MODEL, tmp_path / "moved"))
    weights = load_file(moved / "model.safetensors")
    weights["model.norm.weight"] = -weights["model.norm.weight"]
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with Hub(models={name: moved}, older={name: {pinned: SMALL_MODEL}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        snapshot_download(name, endpoint=hub.endpoint)  # the branch is in the cache, and is newer
        assert completing.complete(folder, question, new_tokens=12, quantization="none") == expected
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        asked = len(hub.requests)
        assert completing.complete(folder, question, new_tokens=12, quantization="none") == expected
        assert len(hub.requests) == asked


def test_a_base_whose_files_were_changed_is_not_the_base(export: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(SMALL_MODEL, tmp_path / "base"))
    folder = Path(shutil.copytree(export, tmp_path / "export"))
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(base)}))
    fingerprint = locate(ModelConfig(name=str(base))).fingerprint
    (folder / "lineage.json").write_text(json.dumps({"inputs": {"model": {"fingerprint": fingerprint}}}))
    assert completing.complete(folder, CompletionRequest("x"), new_tokens=1, quantization="none").base
    (base / "model.safetensors").write_bytes(flipped((base / "model.safetensors").read_bytes()))
    with pytest.raises(InputError, match=str(base)) as refused:
        completing.complete(folder, CompletionRequest("x"), new_tokens=1, quantization="none")
    assert refused.value.field == "model.name"


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])
