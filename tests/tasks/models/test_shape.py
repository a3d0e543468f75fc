"""The shape read from config.json is that of the model transformers builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import InputError
from tasks.models.shape import ALL_LINEAR, ModelShape, _built_shape, read_shape
from tests.conftest import BASE_MODEL
from tests.tasks.preflight.machines import CODE_LLAMA, TINY, model_folder, shape_of


def test_code_llama_has_the_known_number_of_parameters(seven: ModelShape) -> None:
    assert seven.parameters == 6_738_546_688
    assert seven.lora_parameters(8, ("q_proj", "v_proj")) == 4_194_304


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
def test_reading_and_building_agree(tmp_path: Path, model_type: str) -> None:
    config = TINY | {"model_type": model_type, "num_key_value_heads": 2, "num_hidden_layers": 2}
    read = shape_of(tmp_path, config)
    built = _built_shape(tmp_path, config)
    assert built.parameters == read.parameters
    assert sorted(built.linears, key=str) == sorted(read.linears, key=str)


def test_an_architecture_unlike_llama_is_built_without_weights(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000})
    assert {kind.name for kind in shape.linears} == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert shape.lora_parameters(8, ("c_attn",)) == 2 * 8 * (64 + 192)


def test_a_target_that_does_not_exist_is_answered_with_those_that_do(seven: ModelShape) -> None:
    with pytest.raises(InputError, match="query_proj") as refused:
        seven.check_targets(("q_proj", "query_proj"))
    assert refused.value.field == "training.lora.target_modules"
    assert "q_proj" in str(refused.value.remedy) and "down_proj" in str(refused.value.remedy)


def test_targets_are_named_as_peft_names_them(seven: ModelShape) -> None:
    seven.check_targets(("self_attn.q_proj", "down_proj"))
    seven.check_targets((ALL_LINEAR,))
    assert len(seven.targets((ALL_LINEAR,))) == 7


NO_TARGETS = (
    *("proj", "_proj", "attn.q_proj", "q_proj.weight", "self_attn", "mlp", "model", "", " q_proj", "Q_PROJ"),
    *(".*_proj", "q_proj|v_proj", "lm_head", "embed_tokens", "norm", "c_attn", "query_key_value", "default"),
)


@pytest.mark.parametrize("name", NO_TARGETS)
def test_what_is_no_end_of_a_linear_layer_s_name_is_refused(seven: ModelShape, name: str) -> None:
    for names in ((name,), ("q_proj", name)):
        with pytest.raises(InputError, match="no linear layer") as refused:
            seven.check_targets(names)
        assert "embed_tokens" not in str(refused.value.remedy) and "lm_head" not in str(refused.value.remedy)


def test_transposed_layers_are_refused_before_training(tmp_path: Path) -> None:
    shape = shape_of(tmp_path, {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000})
    for names in (("c_attn",), (ALL_LINEAR,)):
        with pytest.raises(InputError, match="Conv1D"):
            shape.check_targets(names)


@pytest.mark.parametrize("config", [{}, {"model_type": "llama"}, {"model_type": "no-such-thing"}])
def test_a_configuration_of_no_model_is_an_input_error(tmp_path: Path, config: dict[str, object]) -> None:
    reference = model_folder(tmp_path, config)
    with pytest.raises(InputError, match=r"model\.name"):
        read_shape(reference.metadata)


@pytest.mark.skipif(not (BASE_MODEL / "config.json").exists(), reason="the built-in model is not here")
def test_the_built_in_model_is_small() -> None:
    shape = read_shape(BASE_MODEL)
    assert 5e6 < shape.parameters < 12e6 and shape.model_type == CODE_LLAMA["model_type"]
