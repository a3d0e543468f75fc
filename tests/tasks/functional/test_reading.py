"""Suite files in the forms of their authors; what is broken is named."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from tasks import functional
from tests.hub import Hub
from tests.tasks.functional.suites import (
    EVAL_PLUS,
    HUB_HUMAN_EVAL_PLUS,
    HUB_MBPP_PLUS,
    INFILLING,
    MBPP,
    human_eval,
    row,
    write,
)


def passes(problem: functional.Problem, completion: str) -> bool:
    suite = functional.Suite(name="one", problems=(problem,))
    made = [functional.Solution(task_id=problem.task_id, completion=completion)]
    return next(functional.check(suite, made)).passed


@pytest.mark.parametrize("form", [row(), EVAL_PLUS, MBPP, INFILLING], ids=["HumanEval", "plus", "MBPP+", "infilling"])
def test_the_solution_of_every_form_passes_and_nothing_does_not(form: dict[str, Any], tmp_path: Path) -> None:
    (problem,) = functional.read_suite(write(tmp_path / "s.jsonl", form)).problems
    assert passes(problem, problem.canonical_solution)
    assert not passes(problem, "    return None\n" if problem.form == "completion" else "\n")


@pytest.mark.parametrize(
    ("rows", "field", "value"),
    [
        ([row(), '{"task_id": "T/1"'], None, "line 2 .*delimiter"),
        ([row(), "[1]"], None, "line 2 .*object"),
        ([row(), {key: value for key, value in row(1).items() if key != "test"}], "test", "line 2 of s.jsonl"),
        ([row(prompt=3)], "prompt", r"text .* 3\n"),
        ([row(), row()], None, "line 2 .*'T/0' .*line 1 "),
        ([row(prompt="def twice(x):\0\n")], "prompt", "NUL"),
        ([row(entry_point="a b")], "entry_point", "'a b'"),
        ([""], None, "no problem"),
        ([EVAL_PLUS | {"atol": "x"}], "atol", "'x'"),
        ([EVAL_PLUS | {"atol": float("inf")}], "atol", "0 to 1 .* inf"),
        ([EVAL_PLUS | {"atol": float("nan")}], "atol", "0 to 1 .* nan"),
        ([MBPP | {"test_imports": [1]}], "test_imports", r"\[1\]"),
        ([MBPP | {"test_imports": "import os"}], "test_imports", "'import os'"),
        ([MBPP | {"test_list": [None, *MBPP["test_list"]]}], "test_list", r"\[None, "),
    ],
)
def test_what_is_broken_is_named(rows: list[Any], field: str | None, value: str, tmp_path: Path) -> None:
    """The field of a row, else the file."""
    path = write(tmp_path / "s.jsonl", *rows)
    with pytest.raises(InputError, match=value) as caught:
        functional.read_suite(path)
    assert caught.value.field == (field or str(path)) and caught.value.remedy


def test_a_torn_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row()).encode())[:-20])
    with pytest.raises(InputError, match="cannot be read"):
        functional.read_suite(path)


def test_prompts_are_unstripped_and_stop_by_the_papers_rules() -> None:
    problem = human_eval().problems[0]
    assert len(human_eval().problems) == 164 and problem.prompt.endswith('"""\n')
    assert functional.stop("    return 1\n\ndef other():", problem) == "    return 1\n"
    assert not functional.ended("    return 1\n    # not at the margin\n    if x: print(x)\n", problem)


def test_an_instruct_answer_becomes_a_completion() -> None:
    problem = human_eval().problems[53]
    assert problem.prompt.strip() in functional.instruct_prompt(problem)
    answer = "Here you are:\n```python\ndef add(x, y):\n    return x + y\n```\nIt adds."
    assert passes(problem, functional.completion_of_answer(answer, problem))


@pytest.mark.parametrize(
    ("name", "data_set", "form"),
    [
        ("humaneval+", "evalplus/humanevalplus", HUB_HUMAN_EVAL_PLUS),
        ("mbpp+", "evalplus/mbppplus", HUB_MBPP_PLUS),
    ],
)
def test_the_hubs_parquet_files_are_read_and_judge(
    name: str, data_set: str, form: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([form]), tmp_path / "data" / "test-00000-of-00001-5973903632b82d40.parquet")
    with Hub(datasets={data_set: (tmp_path, "b" * 40)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        (problem,) = functional.suite(name).problems
    assert passes(problem, problem.canonical_solution)
    assert not passes(problem, problem.canonical_solution.replace("return ", "return ()  # "))


def test_a_light_variant_is_another_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variant in ("Light", ""):
        light = {**INFILLING, "task_id": f"RandomSpanInfilling{variant}/HumanEval/0/1"}
        write(tmp_path / f"HumanEval-RandomSpanInfilling{variant}.jsonl", light)
    with Hub(datasets={"loubnabnl/humaneval_infilling": (tmp_path, "c" * 40)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        (problem,) = functional.suite("humaneval-infilling-random-span").problems
    assert problem.task_id == "RandomSpanInfilling/HumanEval/0/1" and problem.parent == "HumanEval/0"


def test_a_published_suite_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "HumanEval-SingleLineInfilling.jsonl", INFILLING)
    write(tmp_path / "data" / "HumanEval-MultiLineInfilling.jsonl", row())
    with Hub(datasets={"loubnabnl/humaneval_infilling": (tmp_path, "a" * 40)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        suite = functional.suite("humaneval-infilling-single-line")
        pinned = functional.suite(f"humaneval-infilling-single-line@{'a' * 40}")
    assert [problem.parent for problem in suite.problems] == ["HumanEval/0"]
    assert functional.suite(f"humaneval-infilling-single-line@{'a' * 40}") == pinned == suite  # the hub is gone
    with pytest.raises(InputError, match="no suite 'humanevil'"):
        functional.suite("humanevil")


def test_a_hub_out_of_reach_is_said_at_once_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        functional.suite("mbpp+")
    assert caught.value.field == "suite" and ".jsonl.gz" in str(caught.value.remedy)
    assert time.monotonic() - started < 8


def test_a_parquet_file_that_stands_for_more_than_memory_is_refused(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000, pa.int32()), ["x" * 4_000_000])
    pq.write_table(pa.table({"task_id": texts}), tmp_path / "s.parquet")
    with pytest.raises(InputError, match=r"s\.parquet cannot be") as caught:
        functional.read_suite(tmp_path / "s.parquet")
    assert caught.value.remedy
