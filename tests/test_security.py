"""Recipes, tables and models are data: attacks with each of them, and scans of the sources where those are the honest
check."""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import torch

from artifacts.errors import InputError, StageError
from artifacts.ledger import Ledger
from artifacts.redaction import STARS, redact, redact_logs
from flows import deploying, environment
from flows.config import PipelineConfig, build
from flows.finetune import finetune
from tasks import preflight
from tasks.models import base_model
from tasks.models.base_model import ModelConfig, locate
from tasks.models.loading import load_base
from tasks.models.shape import read_shape
from tasks.sampling import SamplingConfig, run_sampling
from tasks.training.checkpoints import Checkpoints
from tests.conftest import BASE_MODEL
from tests.flows.receiver import SECRET as WEBHOOK
from tests.flows.receiver import Receiver
from tests.tasks.training import jobs
from tests.waiting import until

ROOT = Path(__file__).parents[1]
SOURCES = [path for package in ("artifacts", "tasks", "flows") for path in sorted((ROOT / package).rglob("*.py"))]
SECRET = "correct-horse-battery-staple"
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SANDBOXED = {"sandbox"}
"""Where code that a model wrote is run, behind walls of its own (tests/tasks/…/sandbox)."""


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def calls() -> Iterator[tuple[Path, str, dict[str, ast.expr]]]:
    """Every call in the sources: the file, the dotted name, the keyword arguments."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), {one.arg or "": one.value for one in node.keywords}


def literal(value: ast.expr | None) -> Any:
    return value.value if isinstance(value, ast.Constant) else None


# --- code in data ---------------------------------------------------------------------------------------------


def test_nothing_unpickles_or_evaluates() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not UNPICKLERS & {name.partition(".")[0] for name in names}, path
    for path, name, given in calls():
        assert SANDBOXED & set(path.parts) or name not in ("eval", "exec", "__import__", "os.system"), path
        assert not literal(given.get("shell")) and not literal(given.get("allow_pickle")), path
        assert name != "torch.load" or literal(given.get("weights_only")) is True, path
        assert not name.startswith("yaml.") or name in ("yaml.safe_load", "yaml.safe_dump", "yaml.parse"), path
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
                # classes that make objects by the names in a text are called Loader, FullLoader, UnsafeLoader, …
                assert not node.attr.endswith(("Loader", "Constructor")) or node.attr.startswith("Safe"), path


def test_every_loading_of_a_model_refuses_its_code() -> None:
    kinds = ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM")
    loading = [one for one in calls() if one[1].startswith(kinds) and ".from_" in one[1]]
    assert len(loading) >= 6
    for path, name, given in loading:
        assert isinstance(given["trust_remote_code"], ast.Constant) and given["trust_remote_code"].value is False, path
        assert name != "AutoModelForCausalLM.from_pretrained" or literal(given["use_safetensors"]) is True, path


def test_a_recipe_cannot_run_code(tmp_path: Path) -> None:
    recipe, mark = tmp_path / "mine.yaml", tmp_path / "mark"
    recipe.write_text(f"recipe: demo\nreporting:\n  title: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        build(str(recipe))
    with pytest.raises(InputError, match="not valid YAML"):
        build("demo", [f"reporting.title=!!python/object/apply:os.system ['touch {mark}']"])
    assert not mark.exists()


def test_a_models_own_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(BASE_MODEL, model)
    config = json.loads((model / "config.json").read_text()) | {"model_type": "evil"}
    config["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilForCausalLM"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # nor when somebody would say yes
    with pytest.raises(InputError):
        read_shape(model)
    with pytest.raises((InputError, StageError)):
        load_base(model, "none", jobs.PLAN)
    assert not mark.exists()


KERNELS: list[dict[str, Any]] = [
    {"_attn_implementation": "someone/kernels"},
    {"attn_implementation": "paged|someone/kernels@main:attention"},
    {"attn_implementation": {"": "someone/kernels"}},
    {"experts_implementation": "someone/kernels"},
    {"text_config": {"model_type": "llama", "_attn_implementation": "someone/kernels"}},
]


@pytest.mark.parametrize("changes", KERNELS, ids=str)
def test_a_model_does_not_say_whose_kernels_are_run(changes: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BASE_MODEL, model)
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="someone/kernels"):
        locate(ModelConfig(name=str(model)))
    (model / "config.json").write_text(json.dumps(config).replace("someone/kernels", "sdpa"))
    if changes.keys() == {"_attn_implementation"}:
        assert locate(ModelConfig(name=str(model)))


def test_pickled_weights_of_a_base_model_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BASE_MODEL, model, ignore=shutil.ignore_patterns("*.safetensors"))
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(InputError, match=r" only pytorch_model\.bin") as caught:
        locate(ModelConfig(name=str(model)))
    assert "safe_serialization=True" in str(caught.value) and not (tmp_path / "mark").exists()


def test_a_tampered_checkpoint_is_caught_by_its_seal(tmp_path: Path) -> None:
    checkpoint = sealed_checkpoint(tmp_path)
    (checkpoint / "optimizer.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest() is None
    assert not (tmp_path / "mark").exists() and not checkpoint.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Data, and the folder of a training that has a checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    tokens = jobs.dataset(folder / "data", jobs.rows())
    jobs.train_here(folder / "run", tokens, jobs.CONFIG.model_copy(update={"max_steps": 2}))
    return tokens, folder / "run"


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_a_checkpoint_with_a_new_seal_cannot_run_code(tmp_path: Path, name: str, trained: tuple[Any, Path]) -> None:
    """Whoever can write the store can seal as well: what transformers then loads must be data all the same."""
    run = shutil.copytree(trained[1], tmp_path / "run")
    checkpoints = Checkpoints(run / "checkpoints")
    newest = checkpoints.newest()
    assert newest
    staged = checkpoints.staging / "checkpoint-2"
    shutil.copytree(newest, staged, ignore=shutil.ignore_patterns("checkpoint.json"))
    assert (staged / name).exists()
    torch.save(Bomb(tmp_path / "mark"), staged / name)
    checkpoints.seal(2)
    with pytest.raises(pickle.UnpicklingError):
        jobs.train_here(run, trained[0], jobs.CONFIG.model_copy(update={"max_steps": 4}))
    assert not (tmp_path / "mark").exists()


def sealed_checkpoint(folder: Path) -> Path:
    checkpoints = Checkpoints(folder / "run" / "checkpoints")
    checkpoints.prepare()
    staged = checkpoints.staging / "checkpoint-2"
    staged.mkdir()
    torch.save({}, staged / "optimizer.pt")
    return checkpoints.seal(2)


# --- paths ----------------------------------------------------------------------------------------------------


def test_no_path_of_a_table_is_written_to(tmp_path: Path) -> None:
    names = ["../../escaped.py", str(tmp_path / "absolute.py"), "nul\0byte.py", "~/home.py", "a/../../b.py", "-rf.py"]
    rows = [
        {"content": f"value_{number} = {number}\n" * 9, "repo": f"../repo-{number}", "path": name}
        for number, name in enumerate(names)
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "table.parquet")
    source = {"kind": "table", "paths": [str(tmp_path / "data" / "table.parquet")], "language": "Python"}
    source["columns"] = {"content": "content", "repo": "repo", "path": "path"}
    (work := tmp_path / "store" / "work").mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    run_sampling(SamplingConfig.model_validate({"source": source, "held_out": 0.3}), workdir=work)
    made = set(tmp_path.rglob("*")) - before
    assert made == {work / "train.parquet", work / "held_out.parquet"}


def test_a_recipe_has_no_setting_for_where_to_write() -> None:
    with pytest.raises(InputError, match="no such setting"):
        build("demo", ["store=/tmp/elsewhere"])
    with pytest.raises(InputError):
        build("demo", ["training.output_dir=/tmp/elsewhere"])


# --- secrets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"the token {SECRET} was refused",
        "hf_abcdefghijklmnopqrstuvwx is no good",
        f"https://me:{SECRET}@mirror.example/api does not answer",
        f"POST https://hooks.example/send?token={SECRET}&room=1 gave 500",
    ],
)
def test_secrets_are_stars_in_errors_logs_and_the_ledger(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    redact_logs()
    secrets = (SECRET, "hf_abcdefghijklmnopqrstuvwx")
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("tasks.hub").exception("%s", text)
    entry = Ledger(tmp_path).open("run", "demo")
    entry.end("failed", text)
    said = [str(InputError(text, remedy=text)), caplog.text, (tmp_path / "run.json").read_text(), redact(text)]
    assert all(STARS in one and not any(secret in one for secret in secrets) for one in said)


def test_ordinary_text_is_left_alone() -> None:
    text = "https://hub.example/codellama?revision=main: 4,096 tokens, see tasks/hub.py"
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f"Max retries exceeded with url: /hooks/{SECRET} (Caused by …)",
        "password=sesame-open-thyself and sesame%2Dopen are no use",
        "headers={'Authorization': 'Bearer 0123456789abcdef', 'Accept': '*/*'}",
    ],
)
def test_parts_of_secrets_are_stars_too(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What libraries quote of an address: its path, or the password in it."""
    monkeypatch.setenv("CODETUNE_WEBHOOK", f"https://chat.example/hooks/{SECRET}")
    monkeypatch.setenv("DATABASE", "postgresql://me:sesame-open-thyself@127.0.0.1:5432/prefect")
    said = redact(text)
    assert STARS in said and not any(one in said for one in (SECRET, "sesame-open-thyself", "0123456789abcdef"))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    opened = Receiver()
    monkeypatch.setenv("CODETUNE_WEBHOOK", opened.address)
    yield opened
    opened.close()


def leak(*_: Any, **__: Any) -> Any:
    """What a library says of an address that does not answer: all of it."""
    return requests.get(f"http://127.0.0.1:1/{SECRET}/and/{WEBHOOK}")


def leak_in_part(_config: Any, *, mapper: Any, **_: Any) -> Any:
    return list(mapper.map("reading", leak, [1]))


PLACES: dict[str, tuple[Any, str, Any]] = {
    "where the model is looked for": (base_model, "locate", leak),
    "where a key is made": (preflight, "STAGE", replace(preflight.STAGE, identify=leak)),
    "in a stage": (preflight, "STAGE", replace(preflight.STAGE, run=leak)),
    "in a part of a stage": (preflight, "STAGE", replace(preflight.STAGE, run=leak_in_part, parallel=True)),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_of_a_librarys_error_gets_out(
    place: str,
    prefect_server: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    receiver: Receiver,
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("CODETUNE_STORE", str(tmp_path))
    monkeypatch.setattr(*PLACES[place])
    with caplog.at_level(logging.DEBUG):
        state: Any = finetune(build("demo"), return_state=True)
    assert state.is_failed() and STARS in state.message and STARS in receiver.received[0]["error"]["problem"]
    records = logged(prefect_server, state.state_details.flow_run_id)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    said = [state.message, caplog.text, json.dumps(receiver.received), kept.decode(errors="replace"), records]
    assert not [text for text in said if SECRET in text or WEBHOOK in text]


LEAKY = [
    {"reporting": {"title": "ghp_16C7e42F292c6912E7710c838347Ae178B4a"}},
    {"workers": {"runner": "dask", "address": f"tcp://me:{SECRET}@10.0.0.5:8786"}},
    {"sampling": {"source": {"kind": "local", "paths": [f"https://me:{SECRET}@host/x.git"], "nosuch": SECRET}}},
    {"nosuch": {"hf_token": "swordfish-and-more"}},
]


@pytest.mark.parametrize("settings", LEAKY)
def test_a_secret_among_the_settings_is_refused_and_forgotten(
    settings: dict[str, Any], prefect_server: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a run is started from the dashboard: the server has its parameters before anybody looks at them."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    redact_logs()
    state: Any = finetune({"recipe": "demo", **settings}, return_state=True)
    assert state.is_failed() and isinstance(state.result(raise_on_failure=False), InputError)
    with closing(sqlite3.connect(prefect_server)) as database:
        records = "\n".join(database.iterdump())
    for secret in (SECRET, "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "swordfish-and-more"):
        assert secret not in records and secret not in caplog.text and secret not in state.message
    with pytest.raises(InputError) as caught:
        PipelineConfig.model_validate({"recipe": "demo", **settings})
    assert STARS not in str(caught.value) and "environment" in str(caught.value)


def logged(records: Path, run: Any) -> str:
    """All that the server's database holds, once the log of a run has arrived."""
    with closing(sqlite3.connect(records)) as database:
        arrived = "select 1 from log where flow_run_id = ? and message like '%Finished in state Failed%'"
        until(lambda: database.execute(arrived, (str(run),)).fetchone())
        return "\n".join(database.iterdump())


# --- listening ------------------------------------------------------------------------------------------------


def test_server_and_worker_listen_on_loopback_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a server then does: `tests/flows/test_server.py`."""
    names = ("PREFECT_SERVER_API_HOST", "PREFECT_WORKER_WEBSERVER_HOST", "PREFECT_RUNNER_SERVER_HOST")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    environment.apply(quiet=True)
    assert {os.environ[name] for name in names} == {"127.0.0.1"}
    monkeypatch.setenv(names[0], "0.0.0.0")
    environment.apply(quiet=True)
    assert os.environ[names[0]] == "0.0.0.0"


def test_deployments_with_a_secret_are_refused_before_a_server_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"name": "demo", "parameters": {"config": {"model": {"name": f"https://me:{SECRET}@host/x"}}}}
    (tmp_path / "prefect.yaml").write_text(json.dumps({"deployments": [entry]}))
    monkeypatch.setattr(deploying, "PROJECT", tmp_path)
    with pytest.raises(InputError, match="secret") as caught:
        deploying._deploy_keeping(None, None, False)  # type: ignore[arg-type]  # neither is asked
    assert caught.value.field == "demo.config.model.name" and SECRET not in str(caught.value)
