"""The command line itself: what it says of its commands, which numbers and paths it takes, and where it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest

from artifacts.store import Store
from flows import cli
from flows.commands.options import given_path, not_blank
from flows.stages import STAGES

CODETUNE = str(Path(sys.executable).with_name("codetune"))
NAMES = [name for commands in cli.COMMANDS.values() for name in commands]
NEEDED = {
    "complete": ["v1", "--prompt", "x"],
    "evaluate": ["v1"],
    "lineage": ["v1"],
    "preflight": ["demo"],
    "promote": ["v1", "--reason", "x"],
    "prune": ["--keep", "1"],
    "rollback": ["--reason", "x"],
    "run": ["demo"],
    "score": ["humaneval", "--completions", "x"],
    "why": ["training", "demo"],
}
"""What a command cannot do without."""


def options() -> Iterator[tuple[str, Any]]:
    for name in NAMES:
        for argument in cli.app[name].assemble_argument_collection():
            yield name, argument


OPTIONS = list(options())
IDS = [f"{name} {argument.names[0]}" for name, argument in OPTIONS]


def codetune(*arguments: str, **how: Any) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | how.pop("env", {})
    return subprocess.run([CODETUNE, *arguments], capture_output=True, timeout=60, env=environment, **how)


def test_help_describes_every_command_in_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(["--help"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert set(NAMES) == set(cli.app) - {"--help", "-h", "--version"}
    for name in NAMES:
        (line,) = [line for line in said if line.split()[1:2] == [name]]
        assert line.rstrip("│ ").endswith((".", "@k.")), line


def test_help_loads_no_command() -> None:
    script = "import sys; from flows import cli; cli.app('--help', result_action='return_value'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"prefect", "torch", "pydantic", "flows.commands.up"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(("name", "argument"), OPTIONS, ids=IDS)
def test_every_option_has_a_meaning_and_a_default(name: str, argument: Any) -> None:
    said = argument.parameter.help or ""
    assert len(said) > 15
    assert argument.required or argument.show_default or "efault" in said, f"{name} {argument.names}: {said}"


def test_the_version_is_that_of_the_package() -> None:
    done = codetune("--version")
    assert (done.returncode, done.stdout.decode().strip()) == (0, version("codetune"))


NUMERIC = [(name, argument) for name, argument in OPTIONS if {int, float} & {argument.hint, *get_args(argument.hint)}]
BEYOND = ["inf", "-inf", "nan", "-1", "1e308", str(10**12), "9" * 5_000, "1e400", "x", "", " ", "0x", "１２٣" * 9]


@pytest.mark.parametrize(("name", "argument"), NUMERIC, ids=[f"{name} {one.names[0]}" for name, one in NUMERIC])
@pytest.mark.parametrize("value", BEYOND, ids=lambda value: value[:8])
def test_no_command_takes_a_number_that_means_nothing(
    name: str, argument: Any, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = [
        part
        for part in NEEDED.get(name, [])
        if argument.names[0] not in NEEDED.get(name, []) or part not in (argument.names[0], "1")
    ]
    assert cli.guarded([name, *rest, f"{argument.names[0]}={value}"]) == 2
    said = capsys.readouterr().err
    assert argument.names[0].strip("-") in said.replace("\n", "").lower() and "Traceback" not in said


def test_the_numeric_options_are_the_known_ones() -> None:
    assert {f"{name} {one.names[0]}" for name, one in NUMERIC} >= {
        "complete --line",
        "complete --new-tokens",
        "prune --keep",
        "score --seconds",
        "score --workers",
        "up --port",
    }


PATHS = [(name, one) for name, one in OPTIONS if Path in {one.hint, *get_args(one.hint)}]


def test_every_path_is_read_in_the_same_way() -> None:
    assert len(PATHS) > 10 and {one.parameter.converter for _, one in PATHS} == {given_path}


SERVICES = ("up", "deploy", "worker")
"""These would start, where they take what a test gives them."""
BLANK = [(name, one) for name, one in OPTIONS if name in SERVICES and str in get_args(one.hint)]


@pytest.mark.parametrize(("name", "argument"), BLANK, ids=lambda one: getattr(one, "names", [one])[0])
def test_no_service_takes_a_blank_text(name: str, argument: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert argument.parameter.validator == (not_blank,)
    assert cli.guarded([name, f"{argument.names[0]}= "]) == 2
    assert "blank" in capsys.readouterr().err


TEXTS = [
    (name, one)
    for name, one in OPTIONS
    if str in {one.hint, *get_args(one.hint)}
    and one.names[0] not in ("--prompt", "--suffix", "--reason", "--k", "--set", "--quantization")
    and name not in SERVICES
]
IMPOSSIBLE = ["", " ", "~nosuchuser/x", "a" * 300, "a/" * 3_000, "\udcff"]


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=lambda value: repr(value[:8]))
@pytest.mark.parametrize(("name", "argument"), [*PATHS, *TEXTS], ids=lambda one: getattr(one, "names", [one])[0])
def test_no_command_takes_an_impossible_name(
    name: str,
    argument: Any,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CODETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    rest = NEEDED.get(name, [])
    places = [one for one in cli.app[name].assemble_argument_collection() if one.field_info.is_positional]
    at = next((i for i, one in enumerate(places) if one.names == argument.names), None)
    rest = [*rest[:at], value, *rest[at + 1 :]] if at is not None else [*rest, f"{argument.names[0]}={value}"]
    assert cli.guarded([name, *rest]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"store"}


def test_runs_tells_by_its_form_what_a_run_has_more_than_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Store(tmp_path).ledger.open("run", "demo")
    for key, form in enumerate(("", "gguf-f16", "gguf-q4_k_m")):
        entry.uses(f"{'shipped-' if form else ''}generation/{key}", of=form)
        entry.became(f"{'shipped-' if form else ''}generation/{key}", "ran", 1.0)
    entry.end("completed")
    assert cli.guarded(["runs", "--store", str(tmp_path), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert [*run["stages"]] == ["generation", "shipped-generation gguf-f16", "shipped-generation gguf-q4_k_m"]


def test_runs_of_older_versions_number_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = Store(tmp_path).ledger.open("run", "demo")
    entry.uses("shipped-generation/a")
    entry.uses("shipped-generation/b")
    entry.end("completed")
    assert cli.guarded(["runs", "--store", str(tmp_path), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert [*run["stages"]] == ["shipped-generation", "shipped-generation 2"]


REQUIRED = {name: [one for at, one in OPTIONS if at == name and one.required] for name in NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if REQUIRED[name]])
def test_what_a_command_lacks_is_named_and_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded([name]) == 2
    said = capsys.readouterr().err
    first, *_ = REQUIRED[name]
    called = first.name.strip("-").upper()
    assert said.startswith(f"error: {called if first.field_info.is_positional else first.name}: ")
    assert (first.parameter.help or "") in said
    usage = said[said.index(f"codetune {name}") :]
    places = [usage.index(one.name.strip("-").upper()) for one in REQUIRED[name]]
    assert places == sorted(places) and all(
        one.name in usage for one in REQUIRED[name] if one.field_info.is_keyword_only
    )


def test_a_refusal_is_said_whole_whatever_the_width_and_briefly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.guarded(["complete", "v1", "--prompt", "x", "--new-tokens", "many" * 30]) == 2
    assert "many" * 30 in (said := capsys.readouterr().err) and "codetune complete --help" in said
    assert cli.guarded(["complete", "v1", "--prompt", "x", "--new-tokens", "many" * 3000]) == 2
    assert len(capsys.readouterr().err) < 1000


def test_an_option_without_its_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.guarded(["run", "demo", "--set"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --set: ") and "training.max_steps=50" in said


@pytest.mark.parametrize("arguments", [["demo"], ["~/my.yaml"], ["demo", "training"], ["trainig", "demo"]])
def test_why_without_a_stage_names_those_that_can_be_asked_about(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.guarded(["why", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: STAGE: ") and "codetune why STAGE RECIPE" in said
    assert all(stage in said for stage in STAGES)


@pytest.mark.parametrize(
    "command",
    [["x{}"], ["models", "--x{}"], ["models", "x{}"], ["up", "--port", "{}"], ["recipes", "--settings={}"]],
)
def test_what_cannot_be_a_command_line_acts_on_no_terminal(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.guarded([part.format("\x1b]0;owned\x07\x1b[31m") for part in command]) == 2
    said = capsys.readouterr()
    assert "owned" in said.err and not {"\x1b", "\x07"} & {*said.out, *said.err}
