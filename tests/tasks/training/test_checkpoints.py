"""Checkpoints are complete or absent."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tasks.training.checkpoints import MANIFEST, Checkpoints


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path)
    made.prepare()
    for step in (10, 20, 30):
        folder = made.staging / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "optimizer.pt").write_text(f"state {step}")
        made.seal(step)
    return made


def test_the_last_two_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000020", "step-00000030"]
    newest = checkpoints.newest()
    assert newest is not None and (newest / "optimizer.pt").read_text() == "state 30"


@pytest.mark.parametrize("damage", ["altered", "missing", "no manifest", "torn manifest", "FIFO"])
def test_damage_steps_back(
    damage: str, checkpoints: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = tmp_path / "step-00000030"
    match damage:
        case "altered":
            (newest / "optimizer.pt").write_text("state 3O")
        case "missing":
            (newest / "optimizer.pt").unlink()
        case "FIFO":
            (newest / "optimizer.pt").unlink()
            os.mkfifo(newest / "optimizer.pt")
        case "no manifest":
            (newest / MANIFEST).unlink()
        case _:
            (newest / MANIFEST).write_text('{"step": 30, "files": {"opt')
    assert checkpoints.newest() == tmp_path / "step-00000020"
    (said,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "step 30 " in said


def test_half_written_checkpoints_are_none(checkpoints: Checkpoints, tmp_path: Path) -> None:
    half = checkpoints.staging / "checkpoint-40"
    half.mkdir()
    (half / "optimizer.pt").write_text("sta")
    checkpoints.prepare()
    assert not half.exists()
    assert checkpoints.newest() == tmp_path / "step-00000030"
