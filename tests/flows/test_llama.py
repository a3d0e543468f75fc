"""`codetune serve` on the built-in model: real requests to llama.cpp's server, and what the entrance turns away."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from artifacts.registry import Registry
from artifacts.schema import Comparison, ExportedForm, ExportedModel
from artifacts.store import Store
from flows import cli, editors, llama
from tasks.families.marks import ALL
from tasks.gguf import server
from tests.conftest import ROOT
from tests.flows.test_models import publish as publish_version
from tests.gguf import built_in_gguf

Capture = pytest.CaptureFixture[str]
EXACT = Comparison(against="", largest_difference=0, bound=0, positions=0)
BEFORE = "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        "
AFTER = "\n\n    def norm(self):\n        return self.x + self.y\n"


def publish(store: Store, files: dict[str, Path | bytes], key: str = "key") -> Path:
    """An export with a form for each file."""
    workdir = store.workdir("exporting", key)
    for form, content in files.items():
        (workdir / form).mkdir()
        place = workdir / form / f"model-{form.removeprefix('gguf-')}.gguf"
        place.write_bytes(content) if isinstance(content, bytes) else shutil.copyfile(content, place)
    forms = tuple(ExportedForm(name=form, bytes=100 - place, comparison=EXACT) for place, form in enumerate(files))
    return store.publish("exporting", key, ExportedModel(base_model="base", forms=forms), workdir).path


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], httpx.Client]]:
    """A server in a process of its own, and a client."""
    pytest.importorskip("xllamacpp", reason="llama.cpp's server is not installed: pip install 'codetune[serve]'")
    folder = tmp_path_factory.mktemp("served")
    export = publish(Store(folder / "store"), {"gguf-f16": built_in_gguf(folder)})
    with socket.socket() as probe:
        probe.bind((llama.HOST, 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("codetune")), "serve", str(export), "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        with httpx.Client(base_url=facts["address"], timeout=120, trust_env=False) as client:
            yield facts, client
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0 and process.stdout.read() == ""


def infill(client: httpx.Client, **more: Any) -> dict[str, Any]:
    asked = {"input_prefix": BEFORE, "input_suffix": AFTER, "n_predict": 12, "temperature": 0, "cache_prompt": False}
    answer = client.post("/infill", json={**asked, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_it_is_there_and_says_what_it_serves(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    facts, client = serving
    assert client.get("/health").json() == {"status": "ok"}
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["codetune"]
    assert facts["form"] == "gguf-f16" and facts["context"] == 2048


def test_a_gap_is_filled_and_other_files_are_seen(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    _, client = serving
    alone = infill(client)
    assert (alone["content"], alone["stop_type"]) == ("self.y = y", "eos")
    other = {"filename": "a.py", "text": "def weigh(path):\n    return os.path.getsize(path)\n" * 4}
    informed = infill(client, input_extra=[other])
    assert informed["tokens_evaluated"] > alone["tokens_evaluated"] + 40


def test_the_prompt_that_editors_write_is_what_infill_writes(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    _, client = serving
    marks = editors.find_marks(ALL, lambda text: len(client.post("/tokenize", json={"content": text}).json()["tokens"]))
    assert marks and marks.prefix == "▁<PRE>"
    prompt = marks.around(BEFORE, AFTER)
    asked = {"prompt": prompt, "n_predict": 12, "temperature": 0, "cache_prompt": False}
    answer = client.post("/completion", json=asked).json()
    filled = infill(client)
    assert (answer["content"], answer["tokens_evaluated"]) == (filled["content"], filled["tokens_evaluated"])


def test_text_goes_on_whole_and_piece_by_piece(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    _, client = serving
    asked = {"prompt": "import os\nimport ", "max_tokens": 6, "temperature": 0}
    whole = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    pieces = []
    with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                pieces.append(json.loads(line.removeprefix("data: "))["choices"][0]["text"])
    assert whole and "".join(pieces) == whole and len(pieces) > 2


def test_a_gap_is_filled_piece_by_piece(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    _, client = serving
    asked = {"input_prefix": BEFORE, "input_suffix": AFTER, "n_predict": 12, "temperature": 0, "stream": True}
    with client.stream("POST", "/infill", json=asked) as answer:
        told = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: {")]
    assert "".join(one["content"] for one in told) == infill(client)["content"] and len(told) > 2
    assert [one["stop"] for one in told] == [False] * (len(told) - 1) + [True]


def test_who_hangs_up_is_not_worked_for(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    _, client = serving
    asked = {"prompt": "import os\n", "n_predict": 1900, "ignore_eos": True}
    began = time.monotonic()
    with client.stream("POST", "/completion", json={**asked, "stream": True}) as answer:
        next(answer.iter_lines())
    infill(client)
    left = time.monotonic() - began
    began = time.monotonic()
    assert client.post("/completion", json={**asked, "n_predict": 600}).json()["tokens_predicted"] == 600
    assert left < 3 * (time.monotonic() - began)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "example.org"}, 421),
        ({}, 200),
    ],
)
def test_no_page_of_another_site_gets_in(
    serving: tuple[dict[str, Any], httpx.Client], headers: dict[str, str], status: int
) -> None:
    _, client = serving
    assert client.get("/health", headers=headers).status_code == status
    answer = client.post("/tokenize", headers=headers, json={"content": "x"})
    assert answer.status_code == status and "access-control-allow-origin" not in answer.headers


def test_requests_are_bounded(serving: tuple[dict[str, Any], httpx.Client]) -> None:
    _, client = serving
    assert client.post("/tokenize", content=b"x" * (llama.LARGEST + 1)).status_code == 413
    for method, path in (("POST", "/props"), ("POST", "/slots/0?action=erase"), ("GET", "/"), ("OPTIONS", "/infill")):
        assert client.request(method, path).status_code == 404
    assert client.post("/infill", json={"input_prefix": 1}).status_code >= 400


def test_complete_shows_what_an_editor_gets(serving: tuple[dict[str, Any], httpx.Client], capsys: Capture) -> None:
    facts, client = serving
    asked = ["complete", str(Path(facts["file"]).parents[1]), "--form", "gguf-f16", "--new-tokens", "12"]
    gap = ["--prompt", BEFORE, "--suffix", AFTER]
    assert cli.guarded([*asked, *gap, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"tuned": infill(client)["content"], "truth": None, "form": "gguf-f16"}
    assert cli.guarded([*asked, *gap]) == 0
    assert capsys.readouterr().out == told["tuned"] + "\n"
    assert cli.guarded([*asked, "--prompt", "x = 1\n" * 3000]) == 2
    assert "llama.cpp refuses the prompt" in capsys.readouterr().err


def serve(store: Store, model: str, *arguments: str) -> int:
    return cli.guarded(["serve", model, "--store", str(store.place), *arguments])


def test_a_port_that_is_taken_is_told_before_the_model_is_read(store: Store, capsys: Capture) -> None:
    export = publish(store, {"gguf-f16": b"GGUF"})
    with socket.socket() as taken:
        taken.bind((llama.HOST, 0))
        taken.listen()
        assert serve(store, str(export), "--port", str(taken.getsockname()[1])) == 2
    assert "--port" in capsys.readouterr().err


def test_an_export_without_gguf_says_how_to_make_one(store: Store, capsys: Capture) -> None:
    export = publish(store, {"merged": b"weights"})
    assert serve(store, str(export)) == 2
    assert "exporting.forms=[merged, gguf]" in capsys.readouterr().err


def test_an_altered_file_is_not_served(store: Store, capsys: Capture) -> None:
    export = publish(store, {"gguf-f16": b"GGUF" * 100, "gguf-q8_0": b"GGUF" * 50})
    (export / "gguf-q8_0" / "model-q8_0.gguf").write_bytes(b"GGUX" * 50)
    assert serve(store, str(export)) == 2  # the smallest
    assert "model-q8_0.gguf were altered" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told(store: Store, capsys: Capture) -> None:
    assert serve(store, "champion") == 2
    assert "champion" in capsys.readouterr().err
    shutil.rmtree(publish_version(store, "some-key", Registry(store.registry)))
    assert serve(store, "champion") == 2
    assert "it was removed from the store" in capsys.readouterr().err


def test_a_file_that_llama_cannot_load_is_told(store: Store, capsys: Capture) -> None:
    pytest.importorskip("xllamacpp")
    export = publish(store, {"gguf-f16": b"GGUF" * 100})
    assert serve(store, str(export), "--port", "18012") == 1
    assert "llama.cpp cannot load" in capsys.readouterr().err


def test_without_the_package_one_line_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert serve(store, str(publish(store, {"gguf-f16": b"GGUF"}))) == 2
    assert "pip install 'codetune[serve]'" in capsys.readouterr().err
