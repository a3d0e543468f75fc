"""A folder in which somebody starts things holds whatever it holds: none of it is imported, and the server there may be
killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from artifacts.installation import PACKAGES
from tests.waiting import until

NAMES = (
    "secrets",
    "tasks",
    "flows",
    "artifacts",
    "random",
    "typing",
    "signal",
    "torch",
    "prefect",
    "sitecustomize",
    "aiosqlite",
)
SMALL = [
    "sampling.files=24",
    "tokenization.max_length=64",
    "training.max_steps=4",
    "training.warmup_steps=1",
    "training.processes=2",
    "exporting.forms=[]",
    "retention=null",
    "prompts.max_chunks=4",
    "prompts.line_prompts=2",
    "prompts.fim_prompts=2",
    "prompts.block_prompts=0",
    "evaluation.resamples=2000",
]


def laid_with_traps(folder: Path) -> Path:
    """Modules that anything of ours might import, which leave a mark; returns the file of the marks."""
    folder.mkdir(exist_ok=True)
    marks = folder / "marks"
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(marks)!r}, 'a').write({name!r})\nraise SystemExit(99)\n")
    (folder / "logging.yml").write_text(f"version: 1\nhandlers: {{x: {{(): os.system, command: touch {marks}}}}}\n")
    (folder / ".env").write_text(f"PREFECT_LOGGING_SETTINGS_PATH={folder}/logging.yml\n")
    (folder / "prefect.toml").write_text('[api]\nurl = "http://127.0.0.1:9/api"\n')
    (folder / "pyproject.toml").write_text('[tool.prefect.server.api]\nhost = "0.0.0.0"\n')
    return marks


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment in which a run starts a server of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_") or "_SSL_" in name}
    return ours | {"PREFECT_HOME": str(tmp_path / "prefect"), "CODETUNE_LOCKS": str(tmp_path), "OMP_NUM_THREADS": "1"}


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("codetune")), *arguments]


@pytest.mark.slow
def test_a_run_imports_nothing_from_there_and_outlives_its_server(elsewhere: dict[str, str], tmp_path: Path) -> None:
    marks = laid_with_traps(tmp_path / "theirs")
    changes = [word for change in SMALL for word in ("--set", change)]
    with (said := tmp_path / "said.txt").open("w") as file:
        run = subprocess.Popen(
            command("run", "demo", "--json", *changes),
            cwd=marks.parent,
            env=elsewhere,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    try:
        until(lambda: "✓ sampling" in said.read_text() or run.poll() is not None)
        assert run.poll() is None, said.read_text()
        below = psutil.Process(run.pid).children()
        (server,) = [one for one in below if "flows.serve" in one.cmdline()]
        # Where it sees no address, Prefect starts a server that is open to everybody.
        assert not [one for one in below if "uvicorn" in one.cmdline()]
        server.kill()
        out = run.communicate()[0]
    finally:
        run.kill()
    assert run.returncode == 0 and not marks.exists(), said.read_text()
    summary = json.loads(out.splitlines()[-1])
    assert Path(summary["report"]).exists() and "starting it again" in said.read_text()


@pytest.mark.parametrize("arguments", [["--version"], ["recipes"], ["runs"], ["up", "--port", "70000"], ["worker"]])
def test_commands_import_nothing_from_there(arguments: list[str], elsewhere: dict[str, str], tmp_path: Path) -> None:
    marks = laid_with_traps(tmp_path / "theirs")
    done = subprocess.run(command(*arguments), cwd=marks.parent, env=elsewhere, capture_output=True, text=True)
    assert done.returncode in (0, 2) and not marks.exists(), done.stderr


@pytest.mark.parametrize("kind", ["FIFO", "no text"])
def test_files_of_settings_there_are_not_even_opened(kind: str, elsewhere: dict[str, str], tmp_path: Path) -> None:
    for name in (".env", "prefect.toml", "pyproject.toml", "matplotlibrc"):
        os.mkfifo(tmp_path / name) if kind == "FIFO" else (tmp_path / name).write_bytes(b"\xff\xfe")
    asked = command("up", "--port", "70000")
    done = subprocess.run(asked, cwd=tmp_path, env=elsewhere, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "70000" in done.stderr + done.stdout


_SETTINGS = """
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_HOST
setup_logging()
print(PREFECT_API_URL.value(), PREFECT_SERVER_API_HOST.value())
"""


@pytest.mark.parametrize("module", ["flows.serve", "flows.labour", "tasks.running.run"])
def test_nothing_there_sets_anything_of_prefect(module: str, elsewhere: dict[str, str], tmp_path: Path) -> None:
    """A setting of Prefect may say what is run: its configuration of logs names functions."""
    marks = laid_with_traps(tmp_path / "theirs")
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import {module}\n{_SETTINGS}"],
        cwd=marks.parent,
        env=elsewhere | {"PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "None 127.0.0.1\n" and not marks.exists(), done.stderr


def test_an_empty_entry_of_the_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `PYTHONPATH=$PYTHONPATH:/lib` leaves it where there was none."""
    from flows import processes

    marks = laid_with_traps(tmp_path / "theirs")
    monkeypatch.setenv("PYTHONPATH", ":/lib")
    environment = processes.own_environment()
    process = processes.spawn(
        ["-c", "import secrets, random, tasks.running.run"], environment=environment, folder=marks.parent
    )
    assert process.wait(60) == 0 and not marks.exists()
