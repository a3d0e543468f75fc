"""`codetune push` against a hub that takes files: what arrives, who may read it, and transfers that break."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import _http

from artifacts.schema import Comparison, ExportedForm, ExportedModel
from artifacts.store import Store
from flows import cli
from tasks import hub as hubs
from tasks import pushing
from tests.uploads import LARGE, TOKEN, TakingHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own

Capture = pytest.CaptureFixture[str]
EXACT = Comparison(against="", largest_difference=0, bound=0, positions=0)
BASE = "/home/someone/models/base-7b"
LINK = "/home/someone/base-7b"
"""The same folder, as it was configured."""
CARD = f"---\nlibrary_name: peft\n---\n\n# base-7b\n\nFor `{BASE}`, `{LINK}`.\n\n## Evaluation\n\nNot in this card.\n"
NAME = "org/model"


@pytest.fixture
def model(store: Store) -> Path:
    """An export of two forms, whose base model is a folder here."""
    workdir = store.workdir("exporting", "key")
    for form in ("adapter", "merged"):
        (workdir / form).mkdir()
        (workdir / form / "README.md").write_text(CARD.replace("peft", form))
        (workdir / form / "LICENSE").write_text("Do as you like.")
    (workdir / "adapter" / "adapter_model.safetensors").write_bytes(b"a" * LARGE)
    (workdir / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": LINK}))
    (workdir / "merged" / "config.json").write_text("{}")
    for part in "12":
        (workdir / "merged" / f"model-{part}.safetensors").write_bytes(part.encode() * (LARGE + 1))
    (workdir / "lineage.json").write_text(json.dumps({"rows": [BASE]}))
    forms = tuple(ExportedForm(name=name, bytes=8, comparison=EXACT) for name in ("adapter", "merged"))
    return store.publish("exporting", "key", ExportedModel(base_model=BASE, forms=forms), workdir).path


@pytest.fixture
def taking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TakingHub]:
    with TakingHub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # what it speaks to is nowhere but on the hub
        monkeypatch.setattr(pushing, "POLICY", hubs.RetryPolicy(attempts=2, first_wait=0.01))
        monkeypatch.setattr(_http, "time", SimpleNamespace(time=time.time, sleep=lambda seconds: None))
        yield hub


def push(model: Path, *arguments: str, name: str = NAME) -> int:
    return cli.guarded(["push", str(model), name, *arguments, "--store", str(model.parents[1])])


def test_forms_and_one_card_arrive_and_nothing_else(model: Path, taking: TakingHub, capsys: Capture) -> None:
    assert push(model, "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    repository = taking.repositories["model", NAME]
    assert repository.private and told["private"] and told["commit"] == repository.commit
    assert (
        set(repository.files())
        == set(told["files"])
        == {
            "LICENSE",
            "README.md",
            "adapter/LICENSE",
            "adapter/README.md",
            "adapter/adapter_config.json",
            "adapter/adapter_model.safetensors",
            "config.json",
            "model-1.safetensors",
            "model-2.safetensors",
        }
    )
    card = (repository.folder / "README.md").read_text()
    assert "library_name: merged" in card and "| `adapter/adapter_model.safetensors` | 4,096 |" in card
    assert card.index("## Files") < card.index("## Evaluation")


def test_what_arrived_is_what_was_exported(model: Path, taking: TakingHub, tmp_path: Path) -> None:
    assert push(model) == 0
    there = Path(snapshot_download(NAME, endpoint=taking.endpoint, cache_dir=tmp_path / "cache"))
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json"):
        assert (there / name).read_bytes() == (model / "merged" / name).read_bytes()


def test_no_folder_of_this_machine_is_told(model: Path, taking: TakingHub) -> None:
    assert push(model) == 0
    folder = taking.repositories["model", NAME].folder
    assert all(b"/home/someone" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base-7b"


def test_one_form_alone_is_at_the_top(model: Path, taking: TakingHub) -> None:
    assert push(model, "--form", "adapter", "--public") == 0
    repository = taking.repositories["model", NAME]
    assert not repository.private and "adapter_config.json" in repository.files()
    assert "## Files" not in (repository.folder / "README.md").read_text()


def test_gguf_files_arrive_with_one_modelfile_that_of_the_smallest(store: Store, taking: TakingHub) -> None:
    workdir, forms = store.workdir("exporting", "other"), {"gguf-f16": 2, "gguf-q8_0": 1}
    for form, size in forms.items():
        (workdir / form).mkdir()
        (workdir / form / f"model-{form.removeprefix('gguf-')}.gguf").write_bytes(form.encode() * size * LARGE)
        (workdir / form / "Modelfile").write_text(f"FROM ./{form}\n")
        (workdir / form / "README.md").write_text(CARD)
    made = tuple(ExportedForm(name=name, bytes=size, comparison=EXACT) for name, size in forms.items())
    model = store.publish("exporting", "other", ExportedModel(base_model="base", forms=made), workdir).path
    assert push(model) == 0
    there = taking.repositories["model", NAME]
    assert set(there.files()) == {"Modelfile", "README.md", "model-f16.gguf", "model-q8_0.gguf"} and there.private
    assert (there.folder / "Modelfile").read_text() == "FROM ./gguf-q8_0\n"
    assert (there.folder / "model-f16.gguf").read_bytes() == (model / "gguf-f16" / "model-f16.gguf").read_bytes()


def test_the_card_has_the_results_of_the_newest_run(model: Path, store: Store, taking: TakingHub) -> None:
    cards = store.place / "reporting" / "report" / "cards"
    cards.mkdir(parents=True)
    (cards / "merged.md").write_text(CARD.replace("Not in this card.", "It is better."))
    entry = store.ledger.open("run", "demo")
    for place in ("exporting/key", "reporting/report"):
        entry.uses(place)
    entry.end("completed")
    assert push(model) == 0
    assert "It is better." in (taking.repositories["model", NAME].folder / "README.md").read_text()


def test_a_broken_transfer_is_continued_by_the_same_command(model: Path, taking: TakingHub, capsys: Capture) -> None:
    late = hashlib.sha256(b"2" * (LARGE + 1)).hexdigest()
    fault = taking.fail("break", f"/storage/{late}", method="PUT", times=1000)
    assert push(model) == 1
    said = capsys.readouterr().err
    assert "run the same command again" in said and "model-2.safetensors" in said
    assert taking.repositories["model", NAME].files() == []  # nobody loads a half
    fault.times = 0
    arrived = set(taking.stored)
    before = len(taking.served("/storage/*"))
    assert arrived and push(model) == 0
    assert not arrived & {one.path.rpartition("/")[2] for one in taking.served("/storage/*")[before:]}
    assert "model-1.safetensors" in taking.repositories["model", NAME].files()


def test_a_fault_that_passes_is_not_noticed(model: Path, taking: TakingHub) -> None:
    taking.fail("break", "/storage/*", method="PUT")
    taking.fail(503, "*/commit/main")
    assert push(model) == 0 and len(taking.commits) == 1


def test_the_same_again_makes_no_commit(model: Path, taking: TakingHub) -> None:
    assert push(model) == push(model) == 0
    assert len(taking.commits) == 1 and len(taking.served("/storage/*")) == 3


def test_a_public_repository_is_not_filled_by_accident(model: Path, taking: TakingHub, capsys: Capture) -> None:
    taking.add(NAME, private=False)
    assert push(model) == 2
    assert "everybody can read it" in capsys.readouterr().err and not taking.stored
    assert push(model, "--public") == 0


def test_the_token_is_never_shown(model: Path, taking: TakingHub, capsys: Capture) -> None:
    taking.fail(403, "/api/repos/create")
    assert push(model) == 2
    said = capsys.readouterr()
    assert TOKEN not in said.err + said.out and "HF_TOKEN" in said.err


@pytest.mark.parametrize("name", ["model", "a/b/c", "org/..", "org/a b"])
def test_a_name_that_is_none_is_refused(model: Path, taking: TakingHub, name: str, capsys: Capture) -> None:
    assert push(model, name=name) == 2
    assert "owner/name" in capsys.readouterr().err and not taking.requests


def test_without_a_token_nothing_is_asked(
    model: Path, taking: TakingHub, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert push(model) == 2
    assert "HF_TOKEN" in capsys.readouterr().err and not taking.requests


def test_a_dry_run_sends_nothing(model: Path, taking: TakingHub, capsys: Capture) -> None:
    assert push(model, "--dry-run") == 0
    assert "model-1.safetensors" in capsys.readouterr().err and not taking.requests


def test_an_unknown_form_and_an_altered_export_are_refused(model: Path, taking: TakingHub, capsys: Capture) -> None:
    assert push(model, "--form", "onnx") == 2
    assert "use one of adapter, merged" in capsys.readouterr().err
    (model / "merged" / "model-1.safetensors").write_bytes(b"2" * (LARGE + 1))
    assert push(model) == 2
    assert "model-1.safetensors were altered" in capsys.readouterr().err and not taking.requests
