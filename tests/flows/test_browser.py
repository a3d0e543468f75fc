"""The dashboard of a real run in a real browser: progress, tables, pictures, and no request to another host."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import cli, server
from tests.flows.test_deployment import SMALL_DEMO

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
PATIENCE = 60_000
"""Milliseconds that a page may take."""


def _settings(values: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _settings(value, f"{prefix}{name}.")
        elif name != "recipe":
            found += ["--set", f"{prefix}{name}={json.dumps(value)}"]
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own with a dashboard, and on it a small run that is done and one that failed."""
    folder = tmp_path_factory.mktemp("watched")
    store = ["--store", str(folder / "store")]
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults={PREFECT_API_URL}):
        patch.setattr(server, "USUAL", "http://127.0.0.1:1")
        patch.setenv("PREFECT_HOME", str(folder))
        patch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{folder / 'prefect.db'}")
        started = server.start()
        with started.ready():
            assert cli.guarded(["run", "demo", *_settings(SMALL_DEMO), *store]) == 0
            assert cli.guarded(["run", "demo", "--set", "training.lora.target_modules=[query_proj]", *store]) == 2
        os.environ.pop("CODETUNE_STORE", None)
        yield started.address


@pytest.fixture(scope="module")
def artifacts(address: str) -> dict[str, dict[str, Any]]:
    import httpx

    found = httpx.post(f"{address}/api/artifacts/filter", json={}).json()
    return {one["key"]: one for one in found if one["key"]}


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    hosts: set[str | None] = set()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        yield page
        browser.close()
    assert hosts - {None} == {"127.0.0.1"}


def test_the_run_shows_stages_and_progress(page: Any, address: str, artifacts: dict[str, dict[str, Any]]) -> None:
    page.goto(f"{address}/runs/flow-run/{artifacts['run-overview']['flow_run_id']}")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.get_by_text("run-overview", exact=True).first.wait_for()
    page.get_by_text("training: 2 / 2 steps").first.wait_for()
    if target := os.environ.get("CODETUNE_SCREENSHOT"):
        page.wait_for_timeout(3000)  # the timeline is drawn after the page
        page.screenshot(path=Path(target))


def test_tables_are_tables(page: Any, address: str, artifacts: dict[str, dict[str, Any]]) -> None:
    page.goto(f"{address}/artifacts/artifact/{artifacts['run-overview']['id']}")
    page.locator("table td", has_text="training").first.wait_for()
    assert page.locator("table tr").count() > 7


def test_pictures_are_decoded(page: Any, address: str, artifacts: dict[str, dict[str, Any]]) -> None:
    page.goto(f"{address}/artifacts/artifact/{artifacts['training-training-figure-1']['id']}")
    page.wait_for_function("[...document.images].some(one => one.src.startsWith('data:') && one.naturalWidth > 0)")


def test_a_failed_run_says_what_to_do(page: Any, address: str, artifacts: dict[str, dict[str, Any]]) -> None:
    page.goto(f"{address}/artifacts/artifact/{artifacts['run-failure']['id']}")
    page.get_by_text("What to do").first.wait_for()
    page.get_by_text("choose among").first.wait_for()
