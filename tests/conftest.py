"""What tests share: a Prefect server of their own where they ask for one, and a clean environment."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import certifi
import pytest

from artifacts.store import Store
from flows import environment
from tests import small_model
from tests.servers import PrefectServer, tell_all, wait_for

environment.apply(quiet=True)  # as the command line does, before Prefect is imported
os.environ.pop("PYTHONSAFEPATH", None)  # tests start programs that import from this checkout's folder

ROOT = Path(__file__).resolve().parents[1]
BASE_MODEL = small_model.BASE_MODEL
SMALL_MODEL = small_model.cut()
SHARED = pytest.StashKey[PrefectServer]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long or wait for servers come first: else one of several pytest processes is left with one at
    the end, and the others have nothing to do in its pauses."""
    items.sort(key=lambda item: item.path.parent.name not in {"chaos", "flows", "training", "tasks"})


def pytest_collection_finish() -> None:
    """What all tests together import is no garbage: models are given back a hundred times, and each time half a million
    objects would be gone over. At the end Python takes them apart, else nanobind reports them as leaked."""
    gc.freeze()
    atexit.register(gc.unfreeze)


def pytest_configure(config: pytest.Config) -> None:
    """Of several pytest processes the one that governs the others starts a Prefect server for all of them: each of
    their own would take seconds to start, and time from the tests as long as it lives."""
    if hasattr(config, "workerinput"):
        return
    if not config.getoption("pythonwarnings"):
        os.environ["PYTHONWARNINGS"] = warnings_are_errors()
    config.add_cleanup(trust_one())
    if config.getoption("numprocesses", None):
        config.stash[SHARED] = server = PrefectServer()
        config.add_cleanup(server.stop)


def warnings_are_errors() -> str:
    """`PYTHONWARNINGS` for the processes that tests start: a warning that one of our modules causes is an error there,
    as pyproject.toml has it for the tests, unless `-W` says otherwise. Those of libraries about themselves are not for
    us to mend."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("artifacts", "tasks", "flows")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    return ",".join(f"error:::{module}" for module in modules)


def trust_one() -> Callable[[], None]:
    """One certificate for this process and those that it starts, in the place of all that there are. Each client of
    Prefect reads them, 40 ms, and a run has a dozen, though nobody here is asked over TLS. Returns what removes it."""
    folder = Path(tempfile.mkdtemp(prefix="codetune-trusted-"))
    folder.chmod(0o755)
    file = folder / "certificate.pem"
    file.write_text(certifi.contents().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")
    os.environ |= {"PREFECT_API_SSL_CERT_FILE": str(file), "SSL_CERT_FILE": str(file)}
    return partial(shutil.rmtree, folder)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    server = node.config.stash[SHARED]
    node.workerinput |= {"prefect_address": server.address, "prefect_database": str(server.database)}


@pytest.fixture(scope="session")
def prefect_server(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real Prefect server, whose database, given here, was empty when the session began."""
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    given = getattr(request.config, "workerinput", None)
    own = PrefectServer() if given is None else None
    address = own.address if own else given["prefect_address"]
    database = own.database if own else Path(given["prefect_database"])
    wait_for(address, database)
    # A flow run ends a second later with the heartbeat, and nothing here watches for dead flows.
    with (
        temporary_settings({PREFECT_API_URL: f"{address}/api", PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        _temporary_global_settings_context(get_settings_context()),  # Prefect's threads that began before know it, too
    ):
        yield database
        tell_all()
    if own:
        own.stop()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person's own setup reaches a test."""
    for name in ("CODETUNE_STORE", "CODETUNE_GPU_MEMORY_GIB", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
