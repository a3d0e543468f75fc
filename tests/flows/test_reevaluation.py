"""Before an export is judged again: what it says of itself, as its manifest may have been altered, and the suite."""

from __future__ import annotations

import copy
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from artifacts.errors import InputError
from artifacts.schema import ExportedModel, Plan
from artifacts.store import Store
from flows.config import build
from flows.reevaluation import _inputs, _reevaluate

PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=1, accumulation=1, gradient_checkpointing=False, backend="transformers"
)
PLACE = {"place": "sampling/" + "0" * 64}
WHOLE: dict[str, Any] = {
    "sample": PLACE,
    "tokens": PLACE,
    "base": PLACE,
    "plan": PLAN.model_dump(mode="json"),
    "model": {"name": "models/codellama-tiny", "revision": None, "fingerprint": "0"},
}
WRONG: tuple[Any, ...] = (5, -1.5, "", [], [1], True, {"a": 1}, "x" * 300, "../../etc", "/etc/passwd", "a/b/c", "\0")


def read(inputs: Any) -> Any:
    exported = cast(ExportedModel, SimpleNamespace(path=Path("/export")))
    manifest = SimpleNamespace(provenance={"inputs": inputs})
    return _inputs(exported, cast(Store, SimpleNamespace(manifest=lambda _: manifest)))


def test_what_codetune_writes_is_read() -> None:
    assert read(WHOLE).plan == PLAN and read(WHOLE).model.name == "models/codellama-tiny"


@pytest.mark.parametrize("part", ["", *WHOLE, "sample.place", "base.place", "model.revision", "model.fingerprint"])
def test_anything_else_is_said_to_be_the_exports_fault(part: str) -> None:
    *above, last = ["inputs", *filter(None, part.split("."))]
    for value in WRONG:
        altered = {"inputs": copy.deepcopy(WHOLE)}
        place: Any = altered
        for name in above:
            place = place[name]
        place[last] = value
        if above[-1:] == ["model"] and isinstance(value, str) and value:
            continue  # a text is what it is; that it is no such revision is said later
        if (last, value) == ("fingerprint", ""):
            continue
        with pytest.raises(InputError, match="/export"):
            read(altered["inputs"])


@pytest.mark.parametrize("suite", ["humaneval", "mbpp+", "humaneval-infilling-single-line"])
def test_without_a_hub_a_suite_is_refused_at_once_and_a_file_would_do(
    suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the model is looked for."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(InputError, match=f"{re.escape(suite)} .*fetched") as caught:
        _reevaluate("no such model", build("demo"), [suite])
    assert caught.value.field == "suite" and "HumanEval.jsonl.gz" in str(caught.value.remedy)
    assert time.monotonic() - started < 20
