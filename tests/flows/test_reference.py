"""The reference recipe through the real command line, unchanged but for size, against a hub that serves the built-in
base model and real code under the names and revisions of the reference job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import recipes
from flows.stages import SHIPPED, STAGES
from tests.conftest import SMALL_MODEL
from tests.hub import GITHUB_CODE_COMMIT, Fault, Hub, serve_github_code, write_github_code_shards

PINNED = recipes.load("codellama-7b-t4")["model"]
SMALLER = (
    "sampling.files=24",
    "retention.files=32",
    "tokenization.max_length=64",
    "training.max_steps=4",
    "training.warmup_steps=1",
    "training.save_steps=2",
    "prompts.max_chunks=8",
    "prompts.line_prompts=4",
    "prompts.fim_prompts=4",
    "prompts.block_prompts=2",
    "prompts.prompt_tokens=64",
    "prompts.max_new_tokens=8",
    "evaluation.resamples=2000",
)
"""Sizes, and nothing else."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("github-code")
    write_github_code_shards(folder, n_shards=3, rows=200)
    with Hub(models={PINNED["name"]: SMALL_MODEL}, datasets=serve_github_code(folder)) as hub:
        repository = hub.repositories["model", PINNED["name"]]
        repository.commit = PINNED["revision"]
        yield hub


Codetune = Callable[[], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def codetune(prefect_server: None, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Codetune:
    """The command in a process of its own: what a person types, with the hub's address in the environment."""
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path_factory.mktemp("person")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "codellama-7b-t4", "--json"]
    settings = [part for change in SMALLER for part in ("--set", change)]
    environment = {
        **os.environ,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "huggingface"),
        "CODETUNE_STORE": str(folder / "store"),
        "CODETUNE_RETRY_SECONDS": "0.2",
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *settings], cwd=folder, env=environment, capture_output=True, text=True)

    return run


def result(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object on the last line of standard output."""
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    last: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return last


@pytest.fixture(scope="module")
def faults(hub: Hub) -> list[Fault]:
    """What goes wrong during the first run: the hub is busy, then a transfer of code and one of weights break."""
    return [
        hub.fail(503, "/api/models/*", times=1),
        hub.fail("break", "/datasets/*.parquet", method="GET", after=3000),
        hub.fail("break", f"/{PINNED['name']}/*.safetensors", method="GET", after=100_000),
    ]


@pytest.fixture(scope="module")
def first(codetune: Codetune, faults: list[Fault]) -> dict[str, Any]:
    return result(codetune())


def test_every_stage_runs_in_spite_of_the_hubs_faults(first: dict[str, Any], faults: list[Fault]) -> None:
    asked = {*STAGES} - {"execution", *SHIPPED}  # no functional suite is
    assert {name: stage["state"] for name, stage in first["stages"].items()} == dict.fromkeys(asked, "ran")
    assert [fault.happened for fault in faults] == [1, 1, 1]
    assert first["state"] == "completed" and first["seconds"] > 0 and len(first["flow_run"]) == 36


def test_report_and_model_are_where_the_result_says(first: dict[str, Any]) -> None:
    assert "codellama/CodeLlama-7b-Instruct-hf" in Path(first["report"]).read_text(encoding="utf-8")
    assert list(Path(first["model"]).rglob("adapter_model.safetensors"))
    assert list(Path(first["model"]).rglob("model*.safetensors"))
    for stage in first["stages"].values():
        assert Path(stage["path"], "manifest.json").is_file()
        assert len(stage["key"]) == len(stage["fingerprint"]) == 64 and stage["seconds"] >= 0


def test_the_hub_was_asked_for_the_pinned_names_and_revisions_only(first: dict[str, Any], hub: Hub) -> None:
    model = f"/{PINNED['name']}/resolve/{PINNED['revision']}/"
    code = f"/datasets/codeparrot/github-code/resolve/{GITHUB_CODE_COMMIT}/data/train-"
    files = {request.path for request in hub.served("*/resolve/*")}
    assert f"{model}model.safetensors" in files and any(path.startswith(code) for path in files)
    assert all(path.startswith((model, code)) for path in files), files
    questions = {request.path for kind in ("models", "datasets") for request in hub.served(f"/api/{kind}/*")}
    assert all(PINNED["revision"] in path or GITHUB_CODE_COMMIT in path for path in questions), questions


def test_a_second_run_serves_every_stage(first: dict[str, Any], codetune: Codetune, hub: Hub) -> None:
    asked = hub.bytes_served
    second = result(codetune())
    assert {stage["state"] for stage in second["stages"].values()} == {"cached"}
    assert (second["report"], second["model"]) == (first["report"], first["model"])
    assert hub.bytes_served - asked < 100_000
