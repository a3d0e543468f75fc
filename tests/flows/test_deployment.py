"""The deployments of `prefect.yaml`: registered, and run to completion by a worker, with Prefect's own command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from flows.finetune import StageName

PROJECT = Path(__file__).parents[2]
SMALL_DEMO = {
    "recipe": "demo",
    "sampling": {"files": 24},
    "tokenization": {"max_length": 64},
    "training": {"max_steps": 2, "warmup_steps": 0, "quantization": "none"},
    "exporting": {"merged": False},
    "kept": None,
    "generation": {
        "max_chunks": 4,
        "line_prompts": 2,
        "fim_prompts": 2,
        "block_prompts": 0,
        "prompt_tokens": 32,
        "max_new_tokens": 4,
    },
    "evaluation": {"resamples": 2000},
}
STAGES = {*get_args(StageName)} - {"quantization", "kept"}
"""Those that run: what is trained as published is not quantized."""

Prefect = Callable[..., str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: what a run leaves behind must not lie in the original."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("artifacts", "tasks", "flows"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(PROJECT / name, folder)
    (folder / "models").symlink_to(PROJECT / "models")
    return folder


@pytest.fixture(scope="module")
def prefect(prefect_server: None, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Prefect:
    """The `prefect` command in the project's folder. `PWD` names another, as after `make -C`: it must not matter."""
    from prefect.settings import PREFECT_API_URL

    environment = {
        **os.environ,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_HOME": str(tmp_path_factory.mktemp("home")),
        "PWD": "/",
        "CODETUNE_STORE": "results",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", *arguments]
        finished = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=200)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout + finished.stderr

    return run


@pytest.fixture(scope="module")
def deployed(prefect: Prefect) -> None:
    prefect("work-pool", "create", "gpu", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")


def test_both_recipes_are_deployed(deployed: None, project: Path) -> None:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        found = {deployment.name: deployment for deployment in client.read_deployments()}
    assert {name: deployment.parameters for name, deployment in found.items()} == {
        name: {"config": {"recipe": name}} for name in ("demo", "codellama-7b-t4")
    }
    for deployment in found.values():
        (place,) = (step["prefect.deployments.steps.set_working_directory"] for step in deployment.pull_steps or ())
        assert (deployment.work_pool_name, place, deployment.job_variables) == ("gpu", {"directory": str(project)}, {})


@pytest.fixture(scope="module")
def worked(deployed: None, prefect: Prefect) -> str:
    """A run of the demo's deployment that a worker has taken; what the worker said."""
    prefect("deployment", "run", "finetune/demo", "--param", f"config={json.dumps(SMALL_DEMO)}")
    return prefect("worker", "start", "--pool", "gpu", "--run-once")


def test_a_worker_runs_the_demo_to_completion(worked: str) -> None:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        run, *others = [run for run in client.read_flow_runs() if run.deployment_id]
        assert not others and run.state is not None and run.state.is_completed(), worked
        tasks = [task for task in client.read_task_runs() if task.flow_run_id == run.id]
    assert {task.name for task in tasks} > STAGES


def test_results_lie_in_the_workers_store_below_the_project(worked: str, project: Path) -> None:
    manifests = list((project / "results").glob("*/*/manifest.json"))
    assert sorted(path.parts[-3] for path in manifests) == sorted(STAGES), worked
    (report,) = (project / "results").glob("reporting/*/report.html")
    assert report.stat().st_size > 10_000
