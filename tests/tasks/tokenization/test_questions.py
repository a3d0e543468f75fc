"""Questions about a file: what is asked, what the answer is, and what counts."""

from __future__ import annotations

import bisect
import random
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from artifacts import digest
from artifacts.errors import InputError
from tasks.families.chat import find_template
from tasks.models.base_model import ModelConfig, locate
from tasks.models.vocabulary import decode, encode, load_tokenizer
from tasks.tokenization import TokenizationConfig, run_tokenization
from tasks.tokenization.chunks import decode_chunks
from tasks.tokenization.questions import Question, questions
from tasks.tokenization.syntax import Unreadable
from tasks.training.batches import IGNORED, Batches
from tests.memory import peak
from tests.tasks.families import models
from tests.tasks.families.models import CHATML, LLAMA2
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import reference, write_sample

PYTHON = '''import os


class A:
    @cached
    def move(self, x):
        """Move it by x, é.

        Returns the place where it then is.
        """
        if x:
            return self.place + x
        return self.place

    def bare(self):
        return self.place + self.another

    def tell(self):
        """What there is to tell."""
        ...


def test_move():
    a = A()
    assert a.move(1) == 1
    assert a.move(0) == 0
    b = A().move(3)
    assert b == 3
'''
GO = """package m

// F does what it is told to.
// And more.
func F(a int) int {
	result := a + 12345
	return result
}

func TestF(t *testing.T) {
	one := F(1)
	if one != 1 {
		t.Fatal("it is not one, but", one)
	}
}
"""
JAVASCRIPT = """const x = 1; // this comment is about x alone
function bare(a) {
  return a.another + a.result;
}

/**
 * Adds two numbers up.
 */
export function add(a, b) {
  const result = a + b;
  return result;
}
"""
RUST = """/// Adds one to the number.
/// It is a number.
#[inline]
pub fn f(a: i32) -> i32 {
    let result = a + 1;
    return result;
}
"""


def asked(language: str, source: str) -> dict[str, Question]:
    found = questions(language, "src/a", source.encode())
    assert len({one.kind for one in found}) == len(found)
    return {one.kind: one for one in found}


def test_a_body_is_asked_for_by_signature_and_docstring() -> None:
    question = asked("Python", PYTHON)["body"]
    assert question.text == (
        "Write the body of this Python function from src/a:\n\n```python\n@cached\ndef move(self, x):\n"
        '    """Move it by x, é.\n\n    Returns the place where it then is.\n    """\n```'
    )
    assert question.answer == "```python\n    if x:\n        return self.place + x\n    return self.place\n```"


def test_an_explanation_is_the_docstring_that_is_not_shown() -> None:
    question = asked("Python", PYTHON)["explain"]
    assert question.answer == "Move it by x, é.\n\nReturns the place where it then is."
    assert '"""' not in question.text and question.text.endswith(
        "def move(self, x):\n    if x:\n        return self.place + x\n    return self.place\n```"
    )


def test_a_test_is_completed_from_its_middle() -> None:
    question = asked("Python", PYTHON)["test"]
    assert question.text.endswith("def test_move():\n    a = A()\n    assert a.move(1) == 1\n```")
    assert question.answer == "```python\n    assert a.move(0) == 0\n    b = A().move(3)\n    assert b == 3\n```"


@pytest.mark.parametrize(
    ("language", "source", "doc", "body"),
    [
        ("GO", GO, "F does what it is told to.\nAnd more.", "\tresult := a + 12345\n\treturn result\n}"),
        ("JavaScript", JAVASCRIPT, "Adds two numbers up.", "  const result = a + b;\n  return result;\n}"),
        ("Rust", RUST, "Adds one to the number.\nIt is a number.", "    let result = a + 1;\n    return result;\n}"),
    ],
)
def test_the_comment_before_a_function_documents_it(language: str, source: str, doc: str, body: str) -> None:
    found = asked(language, source)
    assert found["explain"].answer == doc and doc.split("\n")[0] not in found["explain"].text
    assert body in found["body"].answer and doc.split("\n")[0] in found["body"].text
    assert ("test" in found) == (language == "GO")


def test_a_fence_is_longer_than_those_inside() -> None:
    source = 'def f():\n    """Four words are enough."""\n    return "```" + another_name_of_it\n'
    assert asked("Python", source)["body"].answer.startswith("````python\n")


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("Python", "x = 1\n"),
        ("Python", 'def f():\n    """Too short."""\n    return another_name_of_it\n'),
        ("Python", "def f():\n    return (another_name_of_it\n\ndef g(:\n"),
        ("Python", "def test_x():\n    pass\n"),
        ("C", "int f(int a);\n"),
    ],
)
def test_nothing_is_asked_where_there_is_nothing_to_ask(language: str, source: str) -> None:
    assert questions(language, "a", source.encode()) == []


def test_without_a_grammar_nothing_is_asked() -> None:
    with pytest.raises(Unreadable):
        questions("Lua", "a", b"function f() end\n")


def run(folder: Path, texts: list[str], rate: float, kind: str = "Code Llama", **changes: Any) -> Any:
    if kind == "Code Llama":
        model = reference(toys.code_llama(folder / "model"))
        (model.metadata / "chat_template.jinja").write_text(LLAMA2)
    else:
        model = reference(toys.byte_level(folder / "model", names=(*toys.QWEN, "<|im_start|>", "<|im_end|>")))
        (model.metadata / "chat_template.jinja").write_text(CHATML)
    sample = write_sample(folder / "sample", texts, texts[:2])
    settings = {"max_length": 512, "question_rate": rate, "format": "fim"} | changes
    (folder / "made").mkdir(exist_ok=True)
    config = TokenizationConfig.model_validate(settings)
    return model, run_tokenization(config, sample=sample, model=model, workdir=folder / "made")


@pytest.mark.parametrize("kind", ["Code Llama", "Qwen2.5-Coder"])
@pytest.mark.parametrize("form", ["causal", "fim", "instruct"])
def test_questions_stand_beside_the_files_and_count_by_their_answers(kind: str, form: str, tmp_path: Path) -> None:
    texts = [PYTHON + f"# {number}\n" for number in range(12)]
    model, made = run(tmp_path, texts, 0.5, kind, format=form)
    tokenizer, template = load_tokenizer(model.metadata), find_template(model.metadata)
    assert template
    rows = pq.read_table(made.path / "train.parquet").to_pylist()
    files: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["chunk"] >= 0:
            files.setdefault(row["path"], []).append(row)
    assert [decode_chunks(tokenizer, each).decode() for each in files.values()] == texts
    known = {(one.text, one.answer) for one in questions("Python", "src/file3.py", PYTHON.encode())}
    expected = [
        [*template.ask(tokenizer, text), *encode(tokenizer, answer), *template.ends(tokenizer)]
        for text, answer in known
    ]
    found = [row for row in rows if row["chunk"] < 0 and row["path"] == "src/file3.py"]
    assert found and all(row["input_ids"] in expected for row in found)
    for row in found:
        answer = [index for index, counts in zip(row["input_ids"], row["completion_mask"], strict=True) if counts]
        assert decode(tokenizer, answer) in {one for _, one in known} and len(row["input_ids"]) <= 512
    held_out = pq.read_table(made.path / "held_out.parquet")
    assert min(held_out["chunk"].to_pylist()) == 0 and "completion_mask" not in held_out.column_names
    count = sum(row["chunk"] < 0 for row in rows)
    assert sum(many for what, many in made.train.made.items() if what.startswith("question")) == count


AROUND = {
    "Code Llama": ("<s> [INST] ", " [/INST]", "</s>"),
    "DeepSeek-Coder": ("<｜begin▁of▁sentence｜>### Instruction:\n", "\n### Response:\n", "<|EOT|>"),
    "Qwen2.5-Coder": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
}
"""What each family's template has before a question, before the answer and after it."""


@pytest.mark.parametrize("family", AROUND)
def test_of_real_code_the_loss_counts_the_answer_alone(family: str, tmp_path: Path) -> None:
    """By the labels that training gets."""
    files = [Path(module.__file__ or "") for module in (bisect, shlex, textwrap)]
    sources = [file.read_text(encoding="utf-8") for file in files]
    sample = write_sample(tmp_path / "sample", sources)
    model = locate(ModelConfig(name=str(models.write(tmp_path / "model", models.named(family)))))
    config = TokenizationConfig(max_length=512, question_rate=0.5)
    run_tokenization(config, sample=sample, model=model, workdir=tmp_path)
    batches = Batches(
        tmp_path / "train.parquet", size=1, steps=pq.read_metadata(tmp_path / "train.parquet").num_rows, seed=1
    )
    known = [
        one for number, text in enumerate(sources) for one in questions("Python", f"src/file{number}.py", text.encode())
    ]
    before, between, end = AROUND[family]
    tokenizer, found = AutoTokenizer.from_pretrained(model.metadata), set()
    for row in batches.dataset():
        ids, labels = row["input_ids"], row["labels"]
        if IGNORED not in labels:
            continue  # a file: all of it counts
        first = next(place for place, label in enumerate(labels) if label != IGNORED)
        assert labels == [*[IGNORED] * first, *ids[first:]]
        found.add((tokenizer.decode(ids[:first]), tokenizer.decode(ids[first:])))
    assert len(found) >= 3
    assert found <= {(f"{before}{one.text}{between}", f"{one.answer}{end}") for one in known}


def test_the_share_is_that_of_all_sequences(tmp_path: Path) -> None:
    texts = [PYTHON * 3 + f"# {number}\n" for number in range(40)]
    for rate in (0.1, 0.4):
        folder = tmp_path / str(rate)
        folder.mkdir()
        _, made = run(folder, texts, rate, "Qwen2.5-Coder", max_length=420)
        asked = sum(many for what, many in made.train.made.items() if what.startswith("question"))
        assert rate * 0.75 < asked / made.train.chunks < rate * 1.25


def test_the_same_questions_whatever_the_batches(tmp_path: Path) -> None:
    texts = [PYTHON + f"# {number}\n" for number in range(9)]
    digests = set()
    for size in (1, 1 << 20):
        folder = tmp_path / str(size)
        folder.mkdir()
        random.seed(size)
        _, made = run(folder, texts, 0.3, "Qwen2.5-Coder", batch_bytes=size)
        digests.add(digest.of_files(made.path, ("train.parquet", "held_out.parquet")))
    assert len(digests) == 1


def test_what_does_not_fit_the_sequence_is_not_asked(tmp_path: Path) -> None:
    _, made = run(tmp_path, [PYTHON] * 4, 0.5, "Qwen2.5-Coder", max_length=64)
    assert not any(what.startswith("question") for what in made.train.made)


def test_no_file_that_was_asked_about_stays_in_memory() -> None:
    def ask(files: int) -> None:
        for number in range(files):
            assert questions("Python", "a.py", f"number = {number}\n".encode() + PYTHON.encode() * 10)

    ask(2)  # imports
    more = 294 * 10 * len(PYTHON)  # characters of text
    assert peak(lambda: ask(300)) - peak(lambda: ask(6)) < more / 18


def test_a_model_without_a_chat_template_is_told(tmp_path: Path) -> None:
    model = reference(toys.code_llama(tmp_path / "model"))
    sample = write_sample(tmp_path / "sample", [PYTHON])
    with pytest.raises(InputError) as caught:
        run_tokenization(TokenizationConfig(question_rate=0.1), sample=sample, model=model, workdir=tmp_path)
    assert caught.value.field == "tokenization.question_rate" and "question_rate=0" in str(caught.value.remedy)


def test_held_out_and_other_code_is_asked_nothing() -> None:
    config = TokenizationConfig(question_rate=0.5, seed=3)
    assert config.held_out.question_rate == 0 and config.held_out.keyed() == TokenizationConfig().keyed()
    assert "seed" in config.keyed()
