"""Every family of the table, on a tiny random model, from the tokenizer to the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from artifacts.progress import SILENT
from artifacts.schema import Plan
from tasks import backends
from tasks.backends.contract import JobShape
from tasks.exporting import ExportingConfig, run_exporting
from tasks.families import FAMILIES, Family, check_family
from tasks.families.chat import find_template
from tasks.families.marks import FimTokens
from tasks.generation import GenerationConfig, run_generation
from tasks.generation.completing import CompletionRequest, complete
from tasks.models.base_model import ModelConfig, locate
from tasks.models.vocabulary import CodeTokenizer, encode, load_tokenizer
from tasks.preflight.stage import check_model
from tasks.prompts import PromptsConfig, run_prompts
from tasks.tokenization import TokenizationConfig, run_tokenization
from tasks.tokenization.chunks import decode_chunks
from tasks.training import LoraSettings, TrainingConfig
from tests.tasks.families import models
from tests.tasks.generation import world
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import write_sample
from tests.tasks.training import jobs

ALL = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
APART = ("Code Llama", "Qwen2.5-Coder", "Qwen3", "Codestral", "StarCoder2", "CodeGemma", "Phi-3")
"""One family of each architecture; the others differ from one of them by their marks, which other tests look at."""
DOCS = Path(__file__).parents[3] / "docs" / "models.md"
TEXTS = [text + f"\n\n        deep = {number}\n" for number, text in enumerate(toys.CORPUS * 8)]
PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=4, accumulation=1, gradient_checkpointing=False, backend="transformers"
)
TRAINING = TrainingConfig(
    quantization="none", max_steps=2, save_steps=2, warmup_steps=1, cpu_threads=1, lora=LoraSettings(r=4, dropout=0.0)
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models by family, made when they are asked for."""
    place = tmp_path_factory.mktemp("families")

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = models.write(place / name.replace(" ", "-"), models.named(name))
            return self[name]

    return Made()


def tokenized(folder: Path, base: Path, form: str) -> tuple[CodeTokenizer, Any, Any]:
    model = locate(ModelConfig(name=str(base)))
    sample = write_sample(folder / f"sample-{form}", TEXTS, [world.source(name) for name in world.NAMES])
    workdir = folder / form
    workdir.mkdir()
    config = TokenizationConfig.model_validate({"format": form, "max_length": 96, "fim_rate": 1.0, "spm_rate": 0.5})
    return load_tokenizer(base), sample, run_tokenization(config, sample=sample, model=model, workdir=workdir)


@ALL
@pytest.mark.parametrize("form", ["causal", "fim", "instruct"])
def test_every_text_comes_back_in_every_form(
    family: Family, form: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    able = {"causal": True, "fim": family.marks is not None, "instruct": models.TOYS[family.name].chat is not None}
    if not able[form]:
        with pytest.raises(InputError, match=r"tokenization\.format"):
            tokenized(tmp_path, folders[family.name], form)
        return
    tokenizer, _, made = tokenized(tmp_path, folders[family.name], form)
    assert not made.train.dropped
    files: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(made.path / "train.parquet").to_pylist():
        files.setdefault(row["path"], []).append(row)
    assert [decode_chunks(tokenizer, rows).decode() for rows in files.values()] == TEXTS
    begins = {row["input_ids"][0] == tokenizer.bos for rows in files.values() for row in rows}
    assert form == "instruct" or begins == {models.TOYS[family.name].bos is not None}


@ALL
def test_a_gap_is_asked_for_in_the_order_of_the_family(family: Family, folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(folders[family.name])
    fim, marks = FimTokens.find(tokenizer), family.marks
    assert (fim is None) == (marks is None)
    if fim is None or marks is None:
        return
    names = {index: name for name, index in tokenizer.ids.items()}
    before, after = encode(tokenizer, "a = "), encode(tokenizer, "\n", continues=True)
    ids = fim.prompt(tokenizer.bos, before, after)
    order = [names[index] for index in ids if index in names and index != tokenizer.bos]
    expected = [marks.suffix, marks.prefix] if marks.suffix_first else [marks.prefix, marks.suffix]
    assert order == [*expected, *([marks.middle] if marks.middle else [])]
    assert names[fim.end] == (marks.end or models.TOYS[family.name].eos)
    middle = [] if marks.middle else before
    assert fim.parts([*ids, 5]) == (before if marks.middle else [], after, [*middle, 5])


@pytest.mark.parametrize("name", [name for name, toy in models.TOYS.items() if toy.chat])
def test_questions_are_those_of_the_tokenizers_own_template(name: str, folders: dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    folder = folders[name]
    tokenizer, template = load_tokenizer(folder), find_template(folder)
    assert template is not None
    theirs = AutoTokenizer.from_pretrained(folder)
    text = theirs.apply_chat_template(
        [{"role": "user", "content": "Add x."}], tokenize=False, add_generation_prompt=True
    )
    ids = template.ask(tokenizer, "Add x.")
    names = {index: special for special, index in tokenizer.ids.items()}
    written = b"".join(names[index].encode() if index in names else tokenizer.pieces[index] for index in ids).decode()
    assert written.replace(" ", "") == text.replace(" ", "")
    assert [names[index] for index in template.ends(tokenizer)] == [models.TOYS[name].ends]


@pytest.mark.parametrize(
    "family", [pytest.param(one, id=one.name, marks=[] if one.name in APART else pytest.mark.slow) for one in FAMILIES]
)
def test_it_is_trained_exported_and_asked(family: Family, folders: dict[str, Path], tmp_path: Path) -> None:
    base = folders[family.name]
    model = locate(ModelConfig(name=str(base)))
    job = JobShape(quantization="none", lora_target_modules=("all-linear",), max_length=96)
    shape = check_model(model, job)
    tokenizer, sample, tokens = tokenized(tmp_path, base, "fim" if family.marks else "causal")
    chosen = backends.choose(shape, job, None).name
    assert chosen == ("fused" if family.llama_layers else "transformers")
    config = TRAINING.model_copy(update={"lora": LoraSettings(r=4, dropout=0.0, target_modules=("all-linear",))})
    trained = {}
    for name in {chosen, "transformers"}:
        plan = PLAN.model_copy(update={"backend": name})
        trained[name] = jobs.train_here(tmp_path / name, tokens, config, plan, base)
    assert trained[chosen].metrics["loss"] == pytest.approx(trained["transformers"].metrics["loss"], rel=1e-4)
    checkpoint = jobs.handed_over(tmp_path / "transformers")
    (tmp_path / "export").mkdir()
    exported = run_exporting(
        ExportingConfig(quantization="none"),
        model=model,
        sample=sample,
        tokens=tokens,
        checkpoint=checkpoint,
        plan=PLAN,
        workdir=tmp_path / "export",
        progress=SILENT,
    )
    assert json.loads((exported.path / "merged" / "config.json").read_text())["model_type"] == family.model_type
    few = {"max_chunks": 2, "line_prompts": 2, "block_prompts": 0, "fim_prompts": 2 if family.marks else 0}
    (tmp_path / "answers").mkdir()
    (tmp_path / "asked").mkdir()
    config = PromptsConfig.model_validate({"max_new_tokens": 24, **few})
    made = run_generation(
        GenerationConfig(quantization="none", cpu_threads=1),
        model=model,
        prompts=run_prompts(config, model=model, sample=sample, tokens=tokens, workdir=tmp_path / "asked"),
        exported=exported,
        parts=world.built_in(tmp_path / "parts"),
        plan=PLAN.model_copy(update={"backend": chosen}),
        workdir=tmp_path / "answers",
    )
    assert made.losses == 2 and made.speed is not None and made.speed.backend == chosen
    request = CompletionRequest("def add(first", after="\n" if family.marks else None)
    answers = complete(exported.path, request, new_tokens=4, quantization="none")
    assert isinstance(answers.tuned, str) and tokenizer.bos == load_tokenizer(exported.path / "merged").bos


def test_the_docs_have_the_table() -> None:
    told = {row[0]: row[1:] for row in map(_cells, DOCS.read_text(encoding="utf-8").splitlines()) if len(row) == 7}
    told = {name: cells for name, cells in told.items() if name in models.TOYS}
    assert told == {
        family.name: [
            f"`{family.model_type}`",
            "yes",
            _fim(family),
            "yes" if models.TOYS[family.name].chat else "no template",
            "yes" if family.llama_layers else "no",
            "adapter, merged, GGUF",
        ]
        for family in FAMILIES
    }


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _fim(family: Family) -> str:
    if family.marks is None:
        return "no"
    return (
        "suffix first" if family.marks.suffix_first else "both orders" if family.marks.both_orders else "prefix first"
    )


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "deepseek_v2", "qwen2_moe", None])
def test_a_family_that_is_not_in_the_table_is_refused_by_name(kind: str | None) -> None:
    with pytest.raises(InputError) as caught:
        check_family({"model_type": kind})
    assert caught.value.field == "model.name" and str(kind) in caught.value.problem
    assert all(family.name in str(caught.value.remedy) for family in FAMILIES)


def test_a_short_text_lies_within_a_sliding_window(folders: dict[str, Path]) -> None:
    model = locate(ModelConfig(name=str(folders["Mistral"])))
    fused = backends.get("fused")
    shape = check_model(model, JobShape(max_length=96))
    assert fused.unsupported(shape, JobShape(max_length=256), None) is None
    assert "sliding window of 256" in str(fused.unsupported(shape, JobShape(max_length=257), None))
