"""The perplexities and answers that lm-evaluation-harness finds, which loads model, adapter and tokenizer itself.

The tokenizer is the one that docs/evaluation.md tells its users to make, made by the lines that stand there.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.rows import Row
from artifacts.schema import ExportedModel, Generations
from tasks.evaluation import EvaluationConfig, run_evaluation
from tasks.generation.losses import measure
from tasks.generation.models import Pair, Side
from tasks.models.vocabulary import encode, load_tokenizer
from tasks.tokenization import TokenizationConfig, run_tokenization
from tests.conftest import BASE_MODEL
from tests.tasks.functional import suites
from tests.tasks.generation import world

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install --no-deps lm_eval")

DOCS = Path(__file__).parents[3] / "docs" / "evaluation.md"
CONTEXT = 512
MODULES = ("bisect", "keyword", "queue", "sched", "shelve", "tabnanny")
TEXTS = {name: Path(import_module(name).__file__ or "").read_text()[:1200] for name in MODULES}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """On the whole base, which also writes lines. (The few layers write tokens at which our answers end and the
    harness's do not.)"""
    return world.noise_adapter(tmp_path_factory.mktemp("noise"), BASE_MODEL)


@pytest.fixture(scope="module")
def made(noise: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Generations:
    """What base and tuned make of files that fit a sequence, begun with BOS and ended with EOS."""
    folder = tmp_path_factory.mktemp("harness")
    place = world.build(folder / "world", TEXTS, base=BASE_MODEL)
    (folder / "whole").mkdir()
    settings = TokenizationConfig(max_length=CONTEXT)
    tokens = run_tokenization(settings, sample=place.sample, model=place.model, workdir=folder / "whole")
    changes = {"line_prompts": 12, "fim_prompts": 0, "block_prompts": 0, "prompt_tokens": CONTEXT, "repeated": 0.1}
    return world.generate(replace(place, tokens=tokens), noise, folder / "made", **changes)


@pytest.fixture(scope="module", params=["base", "tuned"])
def side(request: pytest.FixtureRequest) -> Side:
    name: Side = request.param
    return name


@pytest.fixture(scope="module")
def every_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_documented(BASE_MODEL, tmp_path_factory.mktemp("tokenizer") / "every-space")


def as_documented(model: Path, folder: Path) -> Path:
    """The tokenizer that the lines in docs/evaluation.md make of this model's."""
    (lines,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    exec(lines.replace("EXPORT", str(model)).replace("every-space", str(folder)), {})
    return folder


@pytest.fixture(scope="module")
def harness(side: Side, noise: ExportedModel, every_space: Path) -> Iterator[Any]:
    """The harness with one of both; it adds no BOS of its own to what it is told."""
    from lm_eval.models.huggingface import HFLM

    adapter = {"peft": str(noise.path / "adapter")} if side == "tuned" else {}
    settings = {"dtype": "float32", "device": "cpu", "batch_size": 4, "max_length": CONTEXT, "add_bos_token": False}
    yield HFLM(pretrained=str(BASE_MODEL), tokenizer=str(every_space), **settings, **adapter)


def asked(kind: str, *requests: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, arguments, 0) for arguments in requests]


def test_losses_and_perplexity_agree(harness: Any, side: Side, made: Generations, tmp_path: Path) -> None:
    rows = {row["repo"]: row for row in pq.read_table(made.path / "losses.parquet").to_pylist()}
    texts = {name: f"{TEXTS[name]}</s>" for name in rows}
    found = harness.loglikelihood_rolling(asked("loglikelihood_rolling", *((text,) for text in texts.values())))
    assert len(rows) == len(MODULES)
    assert [row[side] for row in rows.values()] == pytest.approx([-likelihood for likelihood in found], rel=1e-5)
    tokens = sum(len(harness.tok_encode(text)) for text in texts.values())
    report = run_evaluation(EvaluationConfig(resamples=2000), generations=made, workdir=tmp_path)
    assert getattr(report.metric("perplexity"), side) == pytest.approx(math.exp(-sum(found) / tokens), rel=1e-5)


def test_greedy_answers_agree(harness: Any, side: Side, made: Generations) -> None:
    rows = pq.read_table(made.path / "completions.parquet").to_pylist()
    until = {"until": ["\n"], "max_gen_toks": world.ASKED["max_new_tokens"]}
    found = harness.generate_until(asked("generate_until", *((f"<s>{row['prompt']}", dict(until)) for row in rows)))
    assert [row[side] for row in rows] == found and len(set(found)) > 6
    assert any(answer.startswith(" ") for answer in found)


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "CodeLlamaTokenizer"])
def test_a_solution_that_it_decodes_is_indented_as_it_was(kind: str, tmp_path: Path) -> None:
    """transformers makes its own decoder for the second class, whatever the file says."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    model = tmp_path / "model"
    shutil.copytree(BASE_MODEL, model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": kind}))
    place = as_documented(model, tmp_path / "every-space")
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (model, place))
    assert type(before).__name__ == {"PreTrainedTokenizerFast": "TokenizersBackend"}.get(kind, kind)
    harness = HFLM.__new__(HFLM)
    broken = 0
    for prompt, solution in solved():
        ids = after(prompt + solution).input_ids
        assert ids == before(prompt + solution).input_ids
        answer = ids[len(after(prompt).input_ids) :]
        for harness.tokenizer, shown in ((before, solution.removeprefix(" ")), (after, solution)):
            assert harness.tok_decode(answer) == shown
        broken += not compiles(prompt + before.decode(answer))
    assert broken == (1 if suites.HUMAN_EVAL is None else 160)


def solved() -> list[tuple[str, str]]:
    """The prompts and solutions of HumanEval, where it is at hand."""
    if suites.HUMAN_EVAL is None:
        return [(suites.row()["prompt"], suites.row()["canonical_solution"])]
    return [(problem.prompt, problem.canonical_solution) for problem in suites.human_eval().problems]


def compiles(program: str) -> bool:
    with suppress(IndentationError):
        return bool(compile(program, "program", "exec"))
    return False


def test_texts_longer_than_the_context_agree_in_rolling_windows(harness: Any, side: Side, noise: ExportedModel) -> None:
    text = "".join(TEXTS.values())
    tokenizer = load_tokenizer(BASE_MODEL)
    assert tokenizer.bos is not None
    windows = list(rolling([tokenizer.bos, *encode(tokenizer, text)]))
    pair = Pair(BASE_MODEL, noise.path / "adapter", "none", world.PLAN)
    pair.prepare(CONTEXT + 1)
    with pair.side(side) as computing:
        ours = sum(measure(computing, windows, batch_size=2))
    (found,) = harness.loglikelihood_rolling(asked("loglikelihood_rolling", (text,)))
    assert len(windows) > 3 and ours == pytest.approx(-found, rel=1e-5)


def rolling(ids: Sequence[int]) -> Iterator[Row]:
    """Every token once, each from at most `CONTEXT` before it, and from as many in the last window."""
    for number, start in enumerate(range(0, len(ids) - 1, CONTEXT)):
        end = min(start + CONTEXT, len(ids) - 1)
        seen = ids[max(0, end - CONTEXT) : end + 1]
        counts = [False] * (len(seen) - (end - start)) + [True] * (end - start)
        yield {"repo": "", "path": "", "chunk": number, "input_ids": seen, "counts": counts}
