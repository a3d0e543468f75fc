"""Tokenization: the chunks that a few files give."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from artifacts.schema import DatasetSample
from flows.config import PipelineConfig
from tasks.models.base_model import ModelReference
from tasks.tokenization import STAGE
from tests.settings.table import Lab, Row
from tests.tasks.families.models import LLAMA2
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import reference, write_sample


def model(lab: Lab) -> ModelReference:
    return reference(toys.code_llama(lab.folder()))


def sample(lab: Lab) -> DatasetSample:
    return write_sample(lab.folder(), toys.CORPUS * 3, toys.CORPUS[:1])


def qwen(lab: Lab) -> ModelReference:
    return reference(toys.byte_level(lab.folder(), names=toys.QWEN))


def look_chunks(lab: Lab, config: PipelineConfig) -> dict[str, list[Any]]:
    """Ids and masks of both sides."""
    return chunks(lab, config, lab.once(model))


def look_chunks_of_qwen(lab: Lab, config: PipelineConfig) -> dict[str, list[Any]]:
    """The same for a vocabulary that has marks for repositories and files."""
    return chunks(lab, config, lab.once(qwen))


def look_questions(lab: Lab, config: PipelineConfig) -> dict[str, list[Any]]:
    """The same of a test, for a model with a chat template."""
    base = lab.once(model)
    (base.metadata / "chat_template.jinja").write_text(LLAMA2)
    tests = write_sample(lab.folder(), [TEST, *toys.CORPUS], toys.CORPUS[:1])
    made = STAGE.run(config.tokenization, sample=tests, model=base, workdir=lab.folder())
    sides = {side: pq.read_table(made.path / f"{side}.parquet").to_pylist() for side in ("train", "held_out")}
    return {side: [(row["input_ids"], row["chunk"]) for row in rows] for side, rows in sides.items()}


def chunks(lab: Lab, config: PipelineConfig, model: ModelReference) -> dict[str, list[Any]]:
    made = STAGE.run(config.tokenization, sample=lab.once(sample), model=model, workdir=lab.folder())
    sides = {side: pq.read_table(made.path / f"{side}.parquet").to_pylist() for side in ("train", "held_out")}
    return {side: [(row["input_ids"], row.get("completion_mask")) for row in rows] for side, rows in sides.items()}


TEST = "def test_add():\n    total = add(1, 2)\n    assert total == 3\n    total = add(3, 4)\n    assert total == 7\n"
FIM = {"tokenization.format": "fim", "tokenization.max_length": 64}
WITH_CONTEXT = {
    "tokenization.format": "fim",
    "tokenization.fim_rate": 1.0,
    "tokenization.max_length": 320,
    "tokenization.context": {"share": 0.9, "max_tokens": 160},
}
TRAIN = frozenset({"train"})
BOTH = frozenset({"train", "held_out"})

ROWS = {
    f"tokenization.{name}": row
    for name, row in {
        "format": Row("causal", "fim", look_chunks, apart=TRAIN),
        "max_length": Row(32, 16, look_chunks, apart=BOTH),
        "fim_rate": Row(0.2, 1.0, look_chunks, FIM, apart=TRAIN),
        "spm_rate": Row(0.0, 1.0, look_chunks, FIM, apart=TRAIN),
        "syntax_rate": Row(0.0, 1.0, look_chunks, FIM, apart=TRAIN),
        "context": Row(None, {"max_tokens": 160}, look_chunks, FIM | {"tokenization.max_length": 320}, apart=TRAIN),
        "context.share": Row(0.1, 1.0, look_chunks, WITH_CONTEXT, apart=TRAIN),
        "context.max_tokens": Row(160, 120, look_chunks, WITH_CONTEXT, apart=TRAIN),
        "context.names": Row("infill", "own", look_chunks_of_qwen, WITH_CONTEXT, apart=TRAIN),
        "question_rate": Row(0.0, 0.5, look_questions, apart=TRAIN),
        "seed": Row(0, 1, look_chunks, FIM, apart=TRAIN),
        "add_eos": Row(True, False, look_chunks, apart=BOTH),
    }.items()
}
