"""Merged weights are base + scaling · B·A, rounded to fp16 once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.errors import StageError
from tasks.exporting.adapter import WEIGHTS, Adapter
from tasks.exporting.merging import check_fit, merge, read_entries
from tests.conftest import BASE_MODEL
from tests.tasks.exporting.pieces import make_checkpoint, tiny_llama

MAX_SHARD = 200_000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base") / "llama", BASE_MODEL)


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def merged_with_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    return {name: tensor.half() for name, tensor in model.merge_and_unload().state_dict().items()}


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"use_rslora": True, "r": 4},
        {"target_modules": "all-linear", "alpha_pattern": {"down_proj": 3}, "rank_pattern": {"up_proj": 2}},
        {"target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    ],
)
def test_equal_to_pefts_own_merge_of_the_fp32_model(tmp_path: Path, base: Path, lora: dict[str, Any]) -> None:
    adapter = Adapter.read(make_checkpoint(tmp_path, base, **lora).path / "adapter")
    merge(base, adapter, tmp_path / "merged", MAX_SHARD)
    found, expected, before = (load_all(tmp_path / "merged"), merged_with_peft(base, adapter.folder), load_all(base))
    assert found.keys() == expected.keys() == before.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float16
        torch.testing.assert_close(tensor, expected[name], rtol=2**-10, atol=1e-7)  # one unit in the last place
        assert torch.equal(tensor, before[name]) == (name.removesuffix(".weight") not in adapter.modules)


def test_shards_are_small_and_indexed(tmp_path: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM

    adapter = Adapter.read(make_checkpoint(tmp_path, base).path / "adapter")
    merge(base, adapter, tmp_path / "merged", MAX_SHARD)
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors"))
    assert len(files) > 2 and set(index["weight_map"].values()) == set(files)
    tensors = load_all(tmp_path / "merged")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    largest = max(tensor.nbytes for tensor in tensors.values())
    assert all((tmp_path / "merged" / name).stat().st_size < max(MAX_SHARD, largest) + 4000 for name in files)
    model, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(loading.values()) and model.dtype == torch.float16


def test_same_bytes_again_and_settings_of_an_unquantized_model(tmp_path: Path, base: Path) -> None:
    from artifacts import digest

    adapter = Adapter.read(make_checkpoint(tmp_path, base).path / "adapter")
    (base / "LICENSE").write_text("do what you like")
    digests = set()
    for name in ("one", "two"):
        merge(base, adapter, tmp_path / name, 2_000_000_000)
        names = sorted(path.name for path in (tmp_path / name).iterdir())
        digests.add(digest.of_files(tmp_path / name, names))
    assert len(digests) == 1
    assert {"LICENSE", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    settings = json.loads((tmp_path / "one" / "config.json").read_text())
    assert settings["dtype"] == "float16" and "quantization_config" not in settings


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"bias": "lora_only"}])
def test_kinds_that_are_no_sum_are_refused(tmp_path: Path, base: Path, lora: dict[str, Any]) -> None:
    adapter = make_checkpoint(tmp_path, base, **lora).path / "adapter"
    with pytest.raises(StageError) as refused:
        merge(base, Adapter.read(adapter), tmp_path / "merged", MAX_SHARD)
    assert "exporting.forms=[]" in str(refused.value.remedy)
    assert not (tmp_path / "merged").exists()


def test_fan_in_fan_out_is_refused(tmp_path: Path, base: Path) -> None:
    folder = make_checkpoint(tmp_path, base).path / "adapter"
    settings = json.loads((folder / "adapter_config.json").read_text()) | {"fan_in_fan_out": True}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(StageError, match="fan_in_fan_out") as refused:
        Adapter.read(folder).check_mergeable()
    assert refused.value.field == "exporting.forms"


def test_adapted_embeddings_that_are_tied_are_refused(tmp_path: Path) -> None:
    import peft  # noqa: F401  # what torch says of itself on its first import would be raised anew by `pytest.warns`

    tied = tiny_llama(tmp_path / "tied", BASE_MODEL, tie_word_embeddings=True)
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        adapter = Adapter.read(make_checkpoint(tmp_path, tied, target_modules=["embed_tokens"]).path / "adapter")
    with pytest.raises(StageError, match="tied") as refused:
        merge(tied, adapter, tmp_path / "merged", MAX_SHARD)
    assert refused.value.field == "exporting.forms"


@pytest.mark.parametrize("change", [{"num_hidden_layers": 1}, {"hidden_size": 32, "intermediate_size": 48}])
def test_adapter_of_another_model_is_refused(tmp_path: Path, base: Path, change: dict[str, int]) -> None:
    adapter = Adapter.read(make_checkpoint(tmp_path, base).path / "adapter")
    other = tiny_llama(tmp_path / "other", BASE_MODEL, **change)
    with pytest.raises(StageError, match=r"q_proj is \(64, 64\)") as refused:
        check_fit(adapter, read_entries(other))
    assert refused.value.field == "model.name"


def test_values_beyond_fp16_are_refused(tmp_path: Path, base: Path) -> None:
    folder = make_checkpoint(tmp_path, base).path / "adapter"
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor * 1e4 for name, tensor in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(StageError, match=r"q_proj\.weight .* fp16\n") as refused:
        merge(base, Adapter.read(folder), tmp_path / "merged", MAX_SHARD)
    assert refused.value.field == "exporting.forms"


def test_a_damaged_adapter_is_refused(tmp_path: Path, base: Path) -> None:
    folder = make_checkpoint(tmp_path, base).path / "adapter"
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(StageError, match="cannot be read"):
        Adapter.read(folder)


def test_memory_is_that_of_single_tensors(tmp_path: Path) -> None:
    """120 MB in six files are merged in a process that may take 90 MB: one file mapped, one tensor twice."""
    base = tmp_path / "base"
    base.mkdir()
    places = {f"layers.{part}.proj.weight": f"{part}.safetensors" for part in range(6)}
    for name, place in places.items():
        save_file({name: torch.zeros(2500, 4000, dtype=torch.float16)}, base / place)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (base / "config.json").write_text("{}")
    ran = subprocess.run([sys.executable, "-c", MERGING, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert torch.equal(load_file(tmp_path / "merged" / "model.safetensors")[name], torch.zeros(2500, 4000).half())


MERGING = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from tasks.exporting.adapter import Adapter
from tasks.exporting.merging import merge

folder = Path(sys.argv[1])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
taken = int(status["VmData"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (taken + 90_000_000,) * 2)
merge(folder / "base", Adapter(folder, {}, {}), folder / "merged", 2_000_000_000)
try:
    torch.ones(200_000_000, dtype=torch.uint8)
except RuntimeError:
    sys.exit(0)
sys.exit("the limit does not hold")
"""
