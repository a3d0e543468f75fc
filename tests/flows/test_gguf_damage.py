"""An export whose GGUF file was altered, or that was pruned: whatever would use it says so in one message."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.errors import InputError
from artifacts.registry import Registry
from artifacts.schema import ExportedModel
from artifacts.store import Store
from flows import cli, naming, reevaluation
from tasks.gguf import server
from tests.flows.test_llama import publish
from tests.flows.test_models import publish as publish_version

FORM, FILE = "gguf-q8_0", "model-q8_0.gguf"
COMMANDS = {
    "serve": ["serve", "MODEL", "--port", "18013"],
    "complete": ["complete", "MODEL", "--form", FORM, "--prompt", "x"],
    "push": ["push", "MODEL", "org/name", "--form", FORM],
}
Capture = pytest.CaptureFixture[str]


def alter(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"F", b"X"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage is noticed before anything is loaded."""
    monkeypatch.setattr(server, "check_installed", lambda: None)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)


def run(command: str, model: str, store: Store) -> int:
    arguments = [model if part == "MODEL" else part for part in COMMANDS[command]]
    return cli.guarded([*arguments, "--store", str(store.place)])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", [alter, cut, Path.unlink])
def test_a_damaged_file_is_refused(command: str, damage: Callable[[Path], None], store: Store, capsys: Capture) -> None:
    export = publish(store, {FORM: b"GGUF" * 50})
    damage(export / FORM / FILE)
    assert run(command, str(export), store) == 2
    said = capsys.readouterr().err
    assert said.count("error") == 1 and f"{FORM}/{FILE}" in said and "Traceback" not in said


@pytest.mark.parametrize("damage", [alter, cut, Path.unlink])
def test_it_is_not_evaluated_either(damage: Callable[[Path], None], store: Store) -> None:
    export = publish(store, {FORM: b"GGUF" * 50})
    damage(export / FORM / FILE)
    with pytest.raises(InputError, match=f"incomplete or missing in the store: .*{FORM}/{FILE}"):
        reevaluation._open(store, naming.place_of(str(export), store), ExportedModel)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_whose_export_was_pruned_is_refused(command: str, store: Store, capsys: Capture) -> None:
    shutil.rmtree(publish_version(store, "some-key", Registry(store.registry)))
    assert run(command, "champion", store) == 2
    said = capsys.readouterr().err
    assert said.count("error") == 1 and "it was removed from the store" in said and "Traceback" not in said
    with pytest.raises(InputError, match="incomplete or missing in the store"):
        reevaluation._open(store, naming.place_of("champion", store), ExportedModel)
