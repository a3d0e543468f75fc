"""Whatever is wrong with a model or an adapter ends, soon, in one message that names it; or it is used as it is."""

from __future__ import annotations

import random
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from artifacts.errors import InputError
from artifacts.reading import blamed_on
from tasks.generation import completing
from tasks.generation.completing import CompletionRequest
from tasks.models.base_model import ModelConfig, locate
from tasks.models.loading import attach_adapter, load_base
from tasks.preflight import JobShape
from tasks.preflight.stage import check_model
from tests.tasks.generation.world import PLAN
from tests.tasks.models import hostile
from tests.tasks.models.hostile import Damage

Case = tuple[str, Damage]
SECONDS = 60
"""Of computing for one input, children's included; mostly it is a tenth of one. What waits ends by pytest."""
MEMORY = 3 << 30
"""Bytes that this process may have in all."""
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors")
FACTORS = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.base(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture(scope="module")
def export(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile.adapter(tmp_path_factory.mktemp("export"), whole)


def use_model(folder: Path) -> None:
    """What happens to it before training: found, judged, and its weights read."""
    from transformers import AutoTokenizer

    model = locate(ModelConfig(name=str(folder)))
    check_model(model, JobShape(max_length=64))
    load_base(folder, "none", PLAN)
    with blamed_on(folder, field="model.name", remedy="restore it"):  # as training does
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def use_export(folder: Path) -> None:
    completing.complete(folder, CompletionRequest("def add("), new_tokens=2, quantization="none")


def outcomes(cases: Iterable[Case], source: Path, folder: Path, use: Callable[[Path], None]) -> Counter[str]:
    """How many were refused and accepted. Anything else that is raised is a failure, and so is a wait."""
    found: Counter[str] = Counter()
    for name, damage in cases:
        damage(hostile.copy(source, folder))
        began = computed()
        try:
            use(folder)
            found["accepted"] += 1
        except InputError as error:
            found["refused"] += 1
            assert error.field and error.remedy and len(str(error)) < 2_000, name
            assert str(folder) in error.problem or str(folder.name) in error.problem, (name, error.problem)
        except BaseException as error:
            raise AssertionError(f"{name}: {error!r}") from error
        assert computed() - began < SECONDS, name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 < MEMORY, name
    return found


def computed() -> float:
    """Seconds of this process and those that it started."""
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, WHOSE))


def some(cases: Iterator[Case], count: int) -> list[Case]:
    """Another seed than the whole table's order, the same in every run."""
    return random.Random(20).sample(list(cases), count)


def test_models_as_they_are_and_a_few_that_cannot_be(whole: Path, export: Path, tmp_path: Path) -> None:
    use_model(whole)
    use_export(export)
    assert outcomes(some(hostile.models(), 40), whole, tmp_path / "model", use_model)["refused"] > 20
    assert outcomes(some(hostile.adapters(), 40), export, tmp_path / "export", use_export)["refused"] > 20


NO_SUCH_ADAPTER = [
    *(f"factors {name}" for name in hostile.FACTORS),
    *(f"lineage {name}" for name in hostile.LINEAGES),
    "adapter lora_alpha 0",
    "adapter base_model_name_or_path ''",
]


def test_adapters_that_cannot_be_what_was_trained(export: Path, tmp_path: Path) -> None:
    cases = [case for case in hostile.adapters() if case[0] in NO_SUCH_ADAPTER]
    assert set(outcomes(cases, export, tmp_path / "export", use_export)) == {"refused"}


def test_an_adapter_of_50_000_layers_is_refused_soon(export: Path, tmp_path: Path) -> None:
    folder = hostile.copy(export, tmp_path / "export")
    pattern = {f"layers.{number}.self_attn.q_proj": 1 for number in range(50_000)}
    weights = {}
    for name in pattern:
        weights[f"base_model.model.model.{name}.lora_A.weight"] = np.ones((1, 2), "float32")
        weights[f"base_model.model.model.{name}.lora_B.weight"] = np.ones((2, 1), "float32")
    save_file(weights, folder / "adapter" / "adapter_model.safetensors")
    hostile.edit("adapter/adapter_config.json", r=2, rank_pattern=pattern)(folder)
    began = computed()
    with pytest.raises(InputError, match="another base model"):
        use_export(folder)
    assert computed() - began < 15


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float64")])
def test_the_one_factor_that_is_not_finite_is_named_before_it_is_used(
    dtypes: tuple[str, str], whole: Path, export: Path, tmp_path: Path
) -> None:
    folder = hostile.copy(export, tmp_path / "export")
    path = folder / "adapter" / "adapter_model.safetensors"
    weights = {name: one.astype(dtypes["lora_B" in name]) for name, one in load_file(path).items()}
    bad = sorted(weights)[-2]
    weights[bad][-1, -1] = float("nan")
    save_file(weights, path)
    with pytest.raises(InputError, match=re.escape(bad)):
        attach_adapter(load_base(whole, "none", PLAN), folder / "adapter")


@pytest.mark.parametrize("name", ["attention_dropout", "hidden_dropout", "resid_pdrop", "dropout", "layerdrop"])
@pytest.mark.parametrize("value", [1, 1.0, 1.5, -0.1])
def test_a_model_that_drops_everything_is_refused(name: str, value: float, whole: Path, tmp_path: Path) -> None:
    folder = hostile.copy(whole, tmp_path / "model")
    hostile.edit("config.json", **{name: value})(folder)
    with pytest.raises(InputError, match=name):
        locate(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("base", ["someone/else", "/nowhere", "."])
def test_an_adapter_beside_a_models_weights_is_not_put_on_them(
    base: str, whole: Path, export: Path, tmp_path: Path
) -> None:
    folder = hostile.copy(whole, tmp_path / "model")
    for path in (export / "adapter").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    hostile.edit("adapter_config.json", base_model_name_or_path=base)(folder)
    with pytest.raises(InputError, match="holds an adapter"):
        locate(ModelConfig(name=str(folder)))


EXPLODING = [name for name in hostile.TOKENIZER if "explodes" in name]


@pytest.mark.parametrize("name", ["an id of 10^9", "merges of unknown pieces", EXPLODING[0]])
def test_tokenizers_that_take_for_ever_or_everything(name: str, whole: Path, tmp_path: Path) -> None:
    case = (name, hostile.change("tokenizer.json", hostile.TOKENIZER[name]))
    assert outcomes([case], whole, tmp_path / "model", use_model) == {"refused": 1}


LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 3},
        {**LLAMA_3, "low_freq_factor": 4.0, "high_freq_factor": 4.0},
        {**LLAMA_3, "low_freq_factor": 4.0, "high_freq_factor": 1.0},
    ],
    ids=("lengths", "equal", "turned round"),
)
def test_positions_that_cannot_be_turned_are_refused_before_the_weights(
    rope: dict[str, object], whole: Path, tmp_path: Path
) -> None:
    folder = hostile.copy(whole, tmp_path / "model")
    hostile.edit("config.json", rope_scaling=rope)(folder)
    with pytest.raises(InputError, match="rope_scaling"):
        check_model(locate(ModelConfig(name=str(folder))), JobShape(max_length=64))


TRANSFORMERS_REFUSES: list[dict[str, object]] = [
    {"padding_side": None},
    {"truncation_side": None},
    {"split_special_tokens": None},
    {"chat_template": [{}]},
    {"chat_template": [{"name": "tools"}]},
    {"bos_token": {"content": "<s>"}},
    {"additional_special_tokens": [{"content": "<s>"}]},
    {"added_tokens_decoder": {"1": "<s>"}},
]


@pytest.mark.parametrize("settings", TRANSFORMERS_REFUSES, ids=str)
def test_what_transformers_refuses_of_a_tokenizer_is_refused_before_the_weights(
    settings: dict[str, object], whole: Path, tmp_path: Path
) -> None:
    folder = hostile.copy(whole, tmp_path / "model")
    hostile.edit("tokenizer_config.json", **settings)(folder)
    with pytest.raises(InputError) as refused:
        check_model(locate(ModelConfig(name=str(folder))), JobShape(max_length=64))
    assert refused.value.field == "model.name" and refused.value.remedy


@pytest.mark.slow
@pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes; run it with -m slow")
@pytest.mark.timeout(3600)
def test_models_by_the_hundred(whole: Path, tmp_path: Path) -> None:
    found = outcomes(hostile.models(), whole, tmp_path / "model", use_model)
    found += outcomes(hostile.noise(FILES, 300, 7), whole, tmp_path / "model", use_model)
    assert found["refused"] > 700


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_adapters_by_the_hundred(export: Path, tmp_path: Path) -> None:
    found = outcomes(hostile.adapters(), export, tmp_path / "export", use_export)
    found += outcomes(hostile.noise(FACTORS, 150, 7), export, tmp_path / "export", use_export)
    assert found["refused"] > 350
