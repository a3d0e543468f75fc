"""Functional suites as prompts, right to the token, and what becomes of the answers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from artifacts.schema import ExportedModel
from tasks import functional
from tasks.execution import ExecutionConfig, run_execution
from tasks.families.chat import ChatTemplate, find_template
from tasks.families.marks import FimTokens
from tasks.functional import Suite, read_suite
from tasks.generation.work import Programs
from tasks.models.base_model import ModelConfig, locate
from tasks.models.vocabulary import CodeTokenizer, decode, encode, load_tokenizer
from tasks.prompts import PromptsConfig
from tasks.prompts.problems import Asked, ask, suites, suites_fingerprint
from tests.conftest import SMALL_MODEL
from tests.tasks.families import models
from tests.tasks.functional.suites import INFILLING, MBPP, row, write
from tests.tasks.generation import world

CONFIG = PromptsConfig(functional_tokens=24)
LLAMA2 = ChatTemplate("<s>[INST] ", " [/INST]", " </s>")


@pytest.fixture(scope="module")
def tokenizer() -> CodeTokenizer:
    return load_tokenizer(SMALL_MODEL)


def suite_of(folder: Path, *rows: dict[str, object]) -> Suite:
    return read_suite(write(folder / "small.jsonl", *rows))


def put(suite: Suite, tokenizer: CodeTokenizer, *, instruct: bool = False) -> list[Asked]:
    return ask([suite], tokenizer, CONFIG, context=2048, template=LLAMA2 if instruct else None)[0]


def test_a_prompt_is_what_stands_in_the_file(tokenizer: CodeTokenizer, tmp_path: Path) -> None:
    prompt = '\n\ndef twice(x):\n    """Twice ▁ x.\t"""\n  \n'
    (asked,) = put(suite_of(tmp_path, row(prompt=prompt)), tokenizer)
    (item,) = asked.items
    assert item.prompt_ids[0] == tokenizer.bos and decode(tokenizer, list(item.prompt_ids[1:])) == prompt == item.prompt
    assert (item.repo, item.path, item.domain, item.truth) == ("T/0", "T/0", "retention", "    return x * 2\n")


def test_a_gap_is_asked_for_token_by_token(tokenizer: CodeTokenizer, tmp_path: Path) -> None:
    (asked,) = put(suite_of(tmp_path, INFILLING), tokenizer, instruct=True)  # which has no form for gaps
    (item,), fim = asked.items, FimTokens.of(tokenizer)
    before, after = encode(tokenizer, INFILLING["prompt"]), encode(tokenizer, INFILLING["suffix"], continues=True)
    assert item.prompt_ids == (tokenizer.bos, fim.prefix, *before, fim.suffix, *after, fim.middle)
    assert item.repo == "HumanEval/0"


def test_answers_end_by_the_rules_of_every_form_in_the_suite(tmp_path: Path) -> None:
    asked = Programs(suite_of(tmp_path, row(), MBPP).problems, instructed=False)
    assert asked.stopped("    return 1\n\ndef other():", "T/0") == "    return 1\n"
    assert asked.stopped("def similar():\n    pass\n\ndef other():", "Mbpp/2").endswith("def other():")
    assert asked.ended("    return 1\nprint(2)") and not asked.ended("    return 1\n\ndef other():")


def test_an_instruct_model_is_asked_in_its_template_too(tokenizer: CodeTokenizer, tmp_path: Path) -> None:
    plain, instructed = put(suite_of(tmp_path, row()), tokenizer, instruct=True)
    assert (plain.record.name, instructed.record.name) == ("small", "small-instruct") and instructed.record.instructed
    text = decode(tokenizer, list(instructed.items[0].prompt_ids[1:]))
    assert text.startswith("[INST] Complete") and text.endswith("[/INST]") and row()["prompt"] in text
    answer = "Sure:\n```python\ndef twice(x):\n    return x + x\n```\n"
    rules = Programs(instructed.suite.problems, instructed=True)
    assert rules.ended(answer) and not rules.ended(answer[:-5])
    assert rules.stopped(answer + "It adds.", "T/0").endswith("    return x + x")


def test_what_both_models_write_is_run(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    """By an instruct model, in every form; verdicts are those that the completions have by themselves."""
    model = tmp_path / "model"
    shutil.copytree(SMALL_MODEL, model)
    (model / "chat_template.jinja").write_text(models.LLAMA2)
    assert find_template(model) == LLAMA2 and find_template(SMALL_MODEL) is None
    small = write(tmp_path / "small.jsonl", row(0), row(1, test="def check(f): pass\n"))
    files = [str(small), str(write(tmp_path / "gaps.jsonl", INFILLING))]
    place = replace(small_world, model=locate(ModelConfig(name=str(model))), retention=None)
    few = {"line_prompts": 0, "fim_prompts": 0, "block_prompts": 0, "max_chunks": 2, "repeated": 0.4}
    made = world.generate(place, noise, tmp_path / "made", functional=files, functional_tokens=16, **few)
    assert [(one.name, one.problems) for one in made.functional] == [("small", 2), ("small-instruct", 2), ("gaps", 1)]
    rows = pq.read_table(made.path / "completions.parquet").to_pylist()
    suite = Suite(name="all", problems=(*read_suite(small).problems, *suites(files)[1].problems))
    assert [row["again"] == row["base"] for row in rows] == [True, False, True, False, True]
    assert [row["prompt"] for row in rows if row["suite"] == "small"] == [one.prompt for one in suite.problems[:2]]
    assert all(functional.stop(rows[number]["base"], suite.problems[0]) == rows[number]["base"] for number in (0, 1))
    run_execution(ExecutionConfig(), generations=made, workdir=made.path)
    told = pq.read_table(made.path / "verdicts.parquet").to_pylist()
    texts = [functional.Solution(task_id=one["task_id"], completion=rows[one["item"]][one["side"]]) for one in told]
    assert [one["passed"] for one in told] == [verdict.passed for verdict in functional.check(suite, texts)]


def test_prompts_beyond_the_context_are_refused(tokenizer: CodeTokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"T/0 .* 40\b") as caught:
        ask([suite_of(tmp_path, row())], tokenizer, CONFIG, context=40, template=None)
    assert caught.value.field == "prompts.functional_tokens"


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    names = [str(write(folder / "small.jsonl", row())) for folder in (tmp_path, tmp_path / "other")]
    with pytest.raises(InputError, match="'small'") as refused:
        suites(names)
    assert refused.value.field == "prompts.functional"


def test_the_fingerprint_follows_the_problems_and_not_their_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [write(folder / "small.jsonl", row()) for folder in (tmp_path, tmp_path / "other")]
    prints = [suites_fingerprint(PromptsConfig(functional=(str(file),))) for file in files]
    write(files[1], row(test="def check(candidate): pass\n"))
    assert prints[0] == prints[1] != suites_fingerprint(PromptsConfig(functional=(str(files[1]),)))
    assert "functional" not in PromptsConfig(functional=("x",)).keyed()
