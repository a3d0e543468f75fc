"""The full HumanEval through `codetune evaluate`, base and tuned, with every verdict explained."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows import cli
from tests.tasks.functional.suites import HUMAN_EVAL

SMALL = (
    "sampling.files=60",
    "training.max_steps=4",
    "training.warmup_steps=1",
    "exporting.forms=[]",
    "retention=null",
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes; run it with -m slow")
@pytest.mark.skipif(HUMAN_EVAL is None, reason="HumanEval.jsonl.gz is not there (../shared/data/human-eval)")
@pytest.mark.usefixtures("prefect_server")
def test_all_of_it_is_judged_and_every_verdict_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [part for change in SMALL for part in ("--set", change)] + ["--store", str(tmp_path / "store"), "--json"]
    assert cli.guarded(["run", "demo", *settings]) == 0
    model = json.loads(capsys.readouterr().out.splitlines()[-1])["model"]
    asked = ["--recipe", "demo", "--suite", str(HUMAN_EVAL)]
    assert cli.guarded(["evaluate", model, *asked, *settings]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (suite,) = found["report"]["functional"]
    assert suite["problems"] == 164
    for side in ("base", "tuned"):
        assert sum(suite[side]["reasons"].values()) == 164
        assert suite[side]["low"] <= suite[side]["passed"] / 164 <= suite[side]["high"]
    (verdicts,) = (tmp_path / "store" / "execution").glob("*/verdicts.parquet")
    reasons = pq.read_table(verdicts)["reason"].to_pylist()
    assert "error" not in reasons and "killed" not in reasons
