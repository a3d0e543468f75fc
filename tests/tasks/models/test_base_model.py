"""Finding the base model: folders, and the hub through its real client."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from artifacts.errors import InputError, TransientError
from artifacts.progress import Progress, Tick
from tasks.hub import RetryPolicy
from tasks.models import base_model
from tasks.models.base_model import ModelConfig, fetch, locate
from tests.conftest import BASE_MODEL
from tests.hub import Hub

NAME = "codellama/CodeLlama-7b-Instruct-hf"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the built-in model, to be damaged."""
    return Path(shutil.copytree(BASE_MODEL, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache: `huggingface_hub` reads HF_HOME at import, so that here its constant is set."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def served(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The built-in model under the name of the reference model, with the litter that such repositories hold."""
    (model / "pytorch_model.bin").write_bytes(b"x" * 100_000)
    (model / "original").mkdir()
    (model / "original" / "consolidated.safetensors").write_bytes(b"x" * 100_000)
    with Hub(models={NAME: model}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setattr(base_model, "RETRY_POLICY", RetryPolicy(attempts=3, first_wait=0.01))
        yield server


# --- folders ---


def test_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = locate(ModelConfig(name="models/codellama-tiny"))
    assert found.revision is None and found.metadata == BASE_MODEL.resolve() == fetch(found)
    shutil.copytree(BASE_MODEL, tmp_path / "mine")
    assert locate(ModelConfig(name="mine")).fingerprint == found.fingerprint


def test_a_folder_has_no_revisions(model: Path) -> None:
    with pytest.raises(InputError) as refused:
        locate(ModelConfig(name=str(model), revision="v1"))
    assert refused.value.field == "model.revision"


def test_what_the_system_cannot_read_is_named(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to("/proc/self/mem")  # whose first bytes nobody can read, root neither
    with pytest.raises(InputError) as refused:
        locate(ModelConfig(name=str(model)))
    assert refused.value.field == "model.name" and str(model) in str(refused.value)
    assert "Input/output error" in str(refused.value)


def test_what_the_user_may_not_read_is_named(model: Path) -> None:
    model.chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=f"{model} .* Permission denied") as refused:
            locate(ModelConfig(name=str(model)))
        assert refused.value.field == "model.name"
    finally:
        os.seteuid(user)
        model.chmod(0o755)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_fingerprint_follows_contents(model: Path, name: str) -> None:
    before = locate(ModelConfig(name=str(model))).fingerprint
    content = (model / name).read_bytes()
    changed = content + b"\n" if name.endswith("json") else content[:-1] + bytes([content[-1] ^ 1])
    (model / name).write_bytes(changed)
    assert locate(ModelConfig(name=str(model))).fingerprint != before


def break_shards(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def drop_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda model: (model / "config.json").unlink(), "no config.json"),
    "broken config": (lambda model: (model / "config.json").write_text("{"), "config.json cannot be read"),
    "list as config": (lambda model: (model / "config.json").write_text("[]"), "no JSON object"),
    "other task": (
        lambda model: (model / "config.json").write_text(
            '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'
        ),
        "not a causal language model.*BertForMaskedLM",
    ),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "no weights"),
    "pickled weights": (
        lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"),
        "only pytorch_model.bin",
    ),
    "a shard missing": (break_shards, "model-00002-of-00002.safetensors"),
    "weights cut off": (lambda model: cut(model / "model.safetensors"), "no complete safetensors"),
    "pointer of Git LFS": (
        lambda model: (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "no complete safetensors",
    ),
    "a licence of somewhere else": (lambda model: (model / "LICENSE").symlink_to("/etc/passwd"), "/etc/passwd"),
    "a template of somewhere else": (lambda model: (model / "x.jinja").symlink_to("../../x"), "no part of the model"),
    "no tokenizer": (drop_tokenizer, "no tokenizer"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", DAMAGE)
def test_unusable_folder_is_refused(model: Path, damage: str) -> None:
    act, words = DAMAGE[damage]
    act(model)
    with pytest.raises(InputError, match=words) as refusal:
        locate(ModelConfig(name=str(model)))
    assert refusal.value.field == "model.name" and refusal.value.remedy


NO_REPOSITORIES = (
    *("no such name", "./missing", "/missing/model", "a/b/c", "codellama", "missing/", "~/missing/x", "a//b"),
    *(
        "../missing",
        "models/missing",
        r"models\missing",
        r".\x",
        r"C:\models\x",
        "~",
        "..",
        "/dev/null",
    ),
)


@pytest.mark.parametrize("name", NO_REPOSITORIES)
def test_what_begins_like_a_path_is_never_asked_of_the_hub(name: str, served: Hub) -> None:
    with pytest.raises(InputError) as refused:
        locate(ModelConfig(name=name))
    assert refused.value.field == "model.name" and refused.value.remedy and not served.requests


def unprefixed(model: Path) -> None:
    change_weights(model, lambda weights: {name.removeprefix("model."): one for name, one in weights.items()})


def change_weights(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    save_file(change(load_file(model / "model.safetensors")), model / "model.safetensors", metadata={"format": "pt"})


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "names without the prefix": (unprefixed, "without the prefix"),
    "a weight missing": (
        lambda model: change_weights(model, lambda all_: {n: w for n, w in all_.items() if "layers.3.mlp.up" not in n}),
        "1 of .* missing",
    ),
    "another width": (
        lambda model: change_weights(model, lambda all_: all_ | {"model.norm.weight": all_["model.norm.weight"][:9]}),
        "must be",
    ),
    "whole numbers": (
        lambda model: change_weights(
            model, lambda all_: all_ | {"model.norm.weight": all_["model.norm.weight"].astype("int8")}
        ),
        "stored as I8",
    ),
    "fewer layers": (lambda model: change_config(model, num_hidden_layers=9), "missing"),
    "more layers": (lambda model: change_config(model, num_hidden_layers=2), "layers up to number"),
    "no biases of the heads": (lambda model: change_config(model, attention_bias=True), "proj.bias"),
    "no biases beside them": (lambda model: change_config(model, mlp_bias=True), "proj.bias"),
    "another vocabulary": (lambda model: change_config(model, vocab_size=5000), "must be"),
    "an EOS id outside": (lambda model: change_config(model, eos_token_id=4096), "eos_token_id"),
    "quantized already": (lambda model: change_config(model, quantization_config={"quant_method": "gptq"}), "already"),
}


def change_config(model: Path, **changes: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", UNFIT)
def test_weights_that_are_not_those_of_the_configuration_are_refused(kind: str, model: Path) -> None:
    act, words = UNFIT[kind]
    act(model)
    with pytest.raises(InputError, match=words) as refused:
        locate(ModelConfig(name=str(model)))
    assert refused.value.field == "model.name" and refused.value.remedy


@pytest.mark.parametrize("kind", UNFIT)
def test_weights_on_the_hub_are_refused_before_they_are_downloaded(kind: str, served: Hub, model: Path) -> None:
    act, words = UNFIT[kind]
    act(model)
    with pytest.raises(InputError, match=words):
        locate(ModelConfig(name=NAME))
    assert sum(request.sent for request in served.served("*.safetensors")) < 100_000


# --- the hub ---


def test_locating_fetches_metadata_only_and_fetching_the_weights(served: Hub, cache: Path) -> None:
    found = locate(ModelConfig(name=NAME))
    weights = (BASE_MODEL / "model.safetensors").stat().st_size
    assert found.revision == served.repositories[("model", NAME)].commit
    assert served.bytes_served < weights / 2 and not (found.metadata / "model.safetensors").exists()
    ticks: list[Tick] = []
    folder = fetch(found, Progress(ticks.append))
    assert (folder / "model.safetensors").read_bytes() == (BASE_MODEL / "model.safetensors").read_bytes()
    assert not (folder / "pytorch_model.bin").exists() and not (folder / "original").exists()
    assert ticks[-1].completed == ticks[-1].total and ticks[-1].unit == "bytes"
    before = served.bytes_served
    fetch(found)
    assert served.bytes_served - before < 10_000


def test_a_name_with_a_pin_stands_for_that_commit(served: Hub, cache: Path) -> None:
    name, commit = "Qwen/Qwen2.5-Coder-3B", base_model.PINNED["Qwen/Qwen2.5-Coder-3B"]
    repository = replace(served.repositories["model", NAME], name=name, commit=commit)
    served.repositories["model", name] = repository
    assert locate(ModelConfig(name=name)).revision == commit
    assert not served.served(f"*{name}*main*") and served.served(f"*{name}*{commit}*")
    served.repositories["model", name] = replace(repository, commit="5" * 40)
    assert locate(ModelConfig(name=name, revision="main")).revision == "5" * 40
    assert len(set(base_model.PINNED.values())) == len(base_model.PINNED)


def test_cache_serves_without_the_hub(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = locate(ModelConfig(name=NAME))
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert locate(ModelConfig(name=NAME)) == found
        with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
            fetch(found)
    fetch(found)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    requests = len(served.requests)
    assert (fetch(locate(ModelConfig(name=NAME))) / "model.safetensors").exists()
    assert len(served.requests) == requests


def test_offline_without_cache_is_explained(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        locate(ModelConfig(name=NAME))


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": 503, "match": "/api/models/*", "times": 2},
        {"kind": 429, "match": "*/resolve/*", "times": 1, "retry_after": 0},
        {"kind": 503, "match": "*/model.safetensors", "method": "GET", "times": 1},
        {"kind": "break", "match": "*/model.safetensors", "after": 5_000_000, "times": 1},
    ],
    ids=["503-info", "429", "503-weights", "break"],
)
def test_passing_faults_are_waited_for(fault: dict[str, object], served: Hub) -> None:
    happening = served.fail(**fault)  # type: ignore[arg-type]
    folder = fetch(locate(ModelConfig(name=NAME)))
    assert (folder / "model.safetensors").read_bytes() == (BASE_MODEL / "model.safetensors").read_bytes()
    assert happening.happened == happening.times


def test_a_hub_that_stays_down_is_a_passing_fault(served: Hub) -> None:
    served.fail(503, times=1000)
    with pytest.raises(TransientError, match=r" 503 .* 3\)\n"):
        locate(ModelConfig(name=NAME))


@pytest.mark.parametrize(
    ("kind", "words"), [("gated", "gated"), (403, "refuses"), (401, "refuses"), (404, "does not show")]
)
def test_no_access_says_what_to_do(kind: int | str, words: str, served: Hub) -> None:
    served.fail(kind, "/api/*", times=1000)
    with pytest.raises(InputError, match=words) as refusal:
        locate(ModelConfig(name=NAME))
    assert "HF_TOKEN" in str(refusal.value)


def test_gated_files_of_a_public_page_are_refused(served: Hub) -> None:
    served.fail("gated", "*/resolve/*", times=1000)
    with pytest.raises(InputError, match="gated"):
        locate(ModelConfig(name=NAME))


def test_unknown_repository_and_revision_are_refused(served: Hub) -> None:
    with pytest.raises(InputError, match="nobody/nothing") as unknown:
        locate(ModelConfig(name="nobody/nothing"))
    assert unknown.value.field == "model.name" and "HF_TOKEN" in str(unknown.value.remedy)
    with pytest.raises(InputError, match=f"{NAME} at v9 ") as unknown:
        locate(ModelConfig(name=NAME, revision="v9"))
    assert unknown.value.field == "model.name" and "branch, tag" in str(unknown.value.remedy)


@pytest.mark.parametrize("damage", ["no weights", "no tokenizer", "no config", "other task"])
def test_unusable_repository_is_refused_before_weights_are_fetched(damage: str, served: Hub, model: Path) -> None:
    act, words = DAMAGE[damage]
    act(model)
    with pytest.raises(InputError, match=words):
        locate(ModelConfig(name=NAME))
    assert not served.served("*.safetensors")


def test_endpoint_that_is_no_address_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface")
    with pytest.raises(InputError, match="huggingface") as refused:
        locate(ModelConfig(name=NAME))
    assert refused.value.field == "HF_ENDPOINT"
    assert base_model.ModelConfig().name == NAME
