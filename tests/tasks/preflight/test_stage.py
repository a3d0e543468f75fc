"""The stage as a whole, on this machine."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError, PreflightRefused
from artifacts.presentation import Table, to_markdown
from artifacts.progress import SILENT
from artifacts.schema import Plan, PreflightReport
from flows import cli
from tasks.preflight import STAGE, JobShape, PreflightConfig, run_preflight
from tests.tasks.preflight.machines import CODE_LLAMA, TINY, model_folder


def _run(folder: Path, config: dict[str, Any], **job: Any) -> PreflightReport:
    model = model_folder(folder / "model", config)
    settings = PreflightConfig(device="cpu")
    return run_preflight(settings, model=model, job=JobShape(**job), workdir=folder, progress=SILENT)


def test_files_say_what_the_handle_says(tmp_path: Path) -> None:
    report = _run(tmp_path, TINY)
    assert Plan.model_validate_json((tmp_path / "plan.json").read_text()) == report.plan
    assert json.loads((tmp_path / "probe.json").read_text())["cpus"] >= 1
    assert report.machine.startswith("CPU") or "sm_" in report.machine


def test_equal_machines_give_equal_plans(tmp_path: Path) -> None:
    first, second = _run(tmp_path, TINY), _run(tmp_path, TINY)
    assert first.plan.fingerprint == second.plan.fingerprint
    assert STAGE.identify is not None and STAGE.identify(PreflightConfig()) == STAGE.identify(PreflightConfig())


def test_a_job_that_does_not_go_with_the_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="target_modules"):
        _run(tmp_path, TINY, lora_target_modules=("no_such_module",))
    with pytest.raises(InputError, match="max_length"):
        _run(tmp_path, TINY, max_length=99_999)


def test_a_seven_billion_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PreflightRefused):
        _run(tmp_path, CODE_LLAMA)
    assert not (tmp_path / "plan.json").exists()


def test_everything_is_shown(tmp_path: Path) -> None:
    report = _run(tmp_path, TINY)
    (section,) = STAGE.show(report)
    text = "\n".join(map(to_markdown, section.blocks))
    assert report.machine in text and "4 × 1" in text and "peak memory" in text
    checks = section.blocks[-1]
    assert isinstance(checks, Table) and len(checks.rows) == len(report.checks)


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_said_first(
    tracker: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def distribution(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("tasks.training.config.distribution", distribution)
    monkeypatch.chdir(tmp_path)
    (tmp_path / tracker).mkdir()  # what wandb leaves behind looks like a package
    for command in ("preflight", "run"):
        setting = ["--set", f"training.trackers=[{tracker}]", "--store", str(tmp_path / "store")]
        assert cli.guarded([command, "demo", *setting]) == 2
        assert f"pip install {tracker}" in capsys.readouterr().err
