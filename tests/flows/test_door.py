"""Who is let in to a server that was started here: attacked by other sites' pages, other names and other users."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_HOME, temporary_settings

from artifacts.errors import InputError, StageError
from flows import access, deploying, server
from flows.output import Console
from flows.services import Services
from tests import records
from tests.flows.receiver import Receiver
from tests.waiting import free_port, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PUBLIC = "https://gpu.example.org"
COMMAND = ["/usr/bin/python3", "-c", "print(open(__import__('sys').argv[1]).read())"]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A PREFECT_HOME that other users could reach, were its files open to them."""
    folder = Path(tempfile.mkdtemp(prefix="codetune-home-"))
    folder.chmod(0o755)
    with temporary_settings({PREFECT_HOME: folder}):
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def closed(home: Path) -> Iterator[server.Server]:
    """A server as `codetune up` starts it."""
    records.copy_to(home / "prefect.db")
    key, address = access.own_key(), f"http://127.0.0.1:{free_port()}"
    with (home / "server.log").open("wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_DATABASE_CONNECTION_URL", raising=False)
        process = server.launch(address, key, output=log.fileno(), public=PUBLIC)
    there = server.Server(address, key)
    try:
        until(there.answers)
        with there.ready(), get_client(sync_client=True) as client:
            deploying.make_pool(client)
        yield there
    finally:
        process.terminate()
        process.wait()


def authorized(closed: server.Server) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(access.own_key().encode()).decode()}


def test_nobody_is_let_in_without_the_key(closed: server.Server) -> None:
    asked = [("POST", "/api/flow_runs/filter"), ("GET", "/api/admin/settings"), ("POST", "/api/deployments/")]
    for headers in ({}, {"Authorization": "Basic Og=="}, {"Authorization": "Bearer x"}, {"Cookie": "key=x"}):
        answers = [httpx.request(how, closed.address + path, headers=headers, json={}) for how, path in asked]
        assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert httpx.get(f"{closed.address}/api/admin/version", headers=authorized(closed)).status_code == 200


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Origin", "http://evil.example", 403),
        ("Origin", "http://127.0.0.1:1", 403),  # another program of this machine
        ("Origin", "null", 403),
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example", 421),
        ("Host", "127.0.0.1@evil.example", 421),
        ("Host", "", 421),
        ("Host", "[", 421),
        ("Host", "127.0.0.1:1, evil.example", 421),
        ("Origin", PUBLIC, 200),
        ("Host", "gpu.example.org", 200),
        ("Host", "localhost:1", 200),
        ("Host", "LOCALHOST.", 200),
        ("Host", "[::1]:4200", 200),
    ],
)
def test_other_sites_and_other_names_are_turned_away(closed: server.Server, name: str, value: str, status: int) -> None:
    """With the key, too: what they are after is a browser that has it."""
    for path in ("/api/admin/version", "/runs", "/ui-settings", "/api/health"):
        headers = {**authorized(closed), name: value, "Accept": "text/html"}
        assert httpx.get(closed.address + path, headers=headers).status_code == status, path


def test_the_page_finds_the_api_wherever_it_was_found(closed: server.Server) -> None:
    """By its public address, also behind a proxy that speaks https and tells another `Host`."""
    asked = [
        {},
        {"Host": "gpu.example.org"},
        {"Host": "gpu.example.org", "Referer": f"{PUBLIC}/x"},
        {"Referer": f"{PUBLIC}/"},
        {"Referer": "http://evil.example/"},
    ]
    found = [httpx.get(f"{closed.address}/ui-settings", headers=headers).json()["api_url"] for headers in asked]
    own = f"{closed.address}/api"
    assert found == [own, "http://gpu.example.org/api", f"{PUBLIC}/api", f"{PUBLIC}/api", own]
    told = server.Server(closed.address, "key", PUBLIC).variables
    assert told["PREFECT_UI_URL"] == PUBLIC and told["PREFECT_API_URL"] == f"{closed.address}/api"


def test_no_origin_is_told_that_it_may_ask(closed: server.Server) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin, allowed in (("http://evil.example", None), (PUBLIC, PUBLIC)):
        answer = httpx.options(f"{closed.address}/api/flow_runs/filter", headers={**preflight, "Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    "path", ["/api/events/in", "/api/events/out", "/api/logs/out", "/api/work_pools/gpu/workers/connect"]
)
@pytest.mark.parametrize("origin", [None, "http://evil.example"])
def test_no_socket_is_opened_without_the_key(closed: server.Server, path: str, origin: Any) -> None:
    async def ask() -> str:
        address = closed.address.replace("http:", "ws:") + path
        async with websockets.connect(address, origin=origin, subprotocols=["prefect"], proxy=None) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "auth", "token": "x"}))
            return str(await socket.recv())

    with pytest.raises((websockets.exceptions.ConnectionClosed, websockets.exceptions.InvalidStatus)):
        asyncio.run(ask())


def test_a_run_cannot_say_which_command_it_is(closed: server.Server) -> None:
    with closed.ready(), get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("attack")
        deployment = {"name": "attack", "flow_id": str(flow), "work_pool_name": "gpu"}
        for variables in ({"command": "id"}, {"env": {"LD_PRELOAD": "x"}}, {"working_dir": "/tmp"}, {"other": 1}):
            body = {**deployment, "job_variables": variables}
            answer = httpx.post(f"{closed.address}/api/deployments/", headers=authorized(closed), json=body)
            assert answer.status_code == 422, answer.text


def other_user(*command: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    return subprocess.run(nobody, capture_output=True, text=True, cwd="/", env={"PATH": os.environ["PATH"]})


def test_another_user_reads_neither_key_nor_records(closed: server.Server, home: Path) -> None:
    private = ["codetune-key", "prefect.db"]
    assert {stat.S_IMODE((home / name).stat().st_mode) for name in private} == {0o600}
    for name in private:
        assert "PermissionError" in other_user(*COMMAND, str(home / name)).stderr
    port = closed.address.rpartition(":")[2]
    processes = other_user(
        "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
    ).stdout
    assert port in processes and access.own_key().partition(":")[2] not in processes


def test_a_server_writes_nothing_into_the_installation(closed: server.Server, home: Path) -> None:
    """It may be another user's: Prefect by itself ended there with a `PermissionError`."""
    assert "<html" in httpx.get(closed.address, verify=False).text and (home / "ui" / "v1" / "index.html").is_file()


def test_another_user_neither_holds_up_the_worker_nor_reads_the_servers_log(home: Path) -> None:
    """To have a file open is enough to lock it."""
    services = Services(server.Server("http://127.0.0.1:1"), "mine", Console())
    (log := home / "said.log").touch(0o644)
    with pytest.raises(StageError):
        services.start_server(lambda _: subprocess.Popen(["true"]), log)
    services._patience = 0.1
    with pytest.raises(StageError):  # it has its name, and no server to ask
        services.start_worker()
    (lock,) = home.glob("codetune-worker-mine*.lock")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (lock, log)} == {0o600}


@pytest.mark.parametrize("way", ["link", "open to others", "a folder", "a pipe"])
def test_a_key_that_others_may_have_made_is_refused(way: str, tmp_path: Path) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        path = access.place()
        (target := tmp_path / "theirs").write_text("codetune:theirs")
        make = {
            "link": lambda: path.symlink_to(target),
            "open to others": lambda: (path.write_text("codetune:x"), path.chmod(0o644)),
            "a folder": path.mkdir,
            "a pipe": lambda: os.mkfifo(path, 0o600),
        }
        make[way]()
        with pytest.raises(InputError) as refused:
            access.own_key()
    assert refused.value.field == "PREFECT_HOME"


def test_whoever_listens_must_have_the_key_before_it_is_told(closed: server.Server) -> None:
    """A program of another user that hands everything on to the real server learns nothing."""
    relay = f"""
import http.server, sys, urllib.request
class Relay(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.headers.get("Authorization"), flush=True)
        try: status, answer = 200, urllib.request.urlopen("{closed.address}" + self.path).read()
        except OSError as error: status, answer = error.code, b""
        self.send_response(status); self.send_header("content-length", str(len(answer))); self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Relay).serve_forever()
"""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", relay, address.rpartition(":")[2]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        until(lambda: server.answers(address))
        assert access.has_key(closed.address, access.own_key())
        assert not access.has_key(address, access.own_key())
        with pytest.raises(InputError), server.Server(address).ready(5):
            pass
    finally:
        process.terminate()
    assert {*process.communicate()[0].split()} == {"None"}


# --- a browser ------------------------------------------------------------------------------------------------


@pytest.fixture
def page() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as library:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-software-rasterizer", "--disable-background-networking"]
        browser = library.chromium.launch(executable_path=CHROMIUM, args=flags)
        opened = browser.new_page()
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def test_the_printed_address_opens_the_dashboard_and_others_then_do(page: Any, closed: server.Server) -> None:
    page.goto(f"{closed.address}/runs")
    page.wait_for_url("**/locked*")
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if "/api/" in answer.url else None)
    page.goto(closed.page("/runs"))
    page.get_by_text("Runs").first.wait_for()
    page.wait_for_load_state("networkidle")
    assert "key" not in page.url and statuses and not {401, 403} & {*statuses}
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(f"{closed.address}/docs")  # Prefect's own, which would load a script of another host
    page.wait_for_load_state("networkidle")
    policy = httpx.get(f"{closed.address}/docs", headers={"Accept": "text/html"}).headers["content-security-policy"]
    assert "default-src 'self'" in policy and all(url.startswith(closed.address) for url in asked)
    page.goto(f"{closed.address}/deployments#key=codetune:wrong")  # as a page elsewhere may have it opened
    page.get_by_text("Deployments").first.wait_for()
    assert "/deployments" in page.url and page.locator("input[type=password]").count() == 0


ATTACK = """async address => {
  const body = JSON.stringify({name: "x", flow_id: "00000000-0000-0000-0000-000000000000"});
  const ways = [
    {}, {mode: "no-cors"}, {credentials: "include"}, {method: "POST", body},
    {method: "POST", body, mode: "no-cors", credentials: "include"},
    {method: "POST", body, headers: {"content-type": "application/json", authorization: "Basic eA=="}},
  ];
  const read = [];
  for (const way of ways)
    read.push(await fetch(address + "/api/flow_runs/", way).then(answer => answer.text(), () => ""));
  const frame = document.createElement("iframe");
  frame.src = address + "/runs";
  await new Promise(done => { frame.onload = done; document.body.append(frame); });
  try { read.push(frame.contentDocument?.body.innerText ?? ""); } catch { read.push(""); }
  return read;
}"""


def test_a_page_of_another_site_gets_nothing_from_a_browser_that_has_the_key(page: Any, closed: server.Server) -> None:
    page.goto(closed.page("/runs"))
    page.get_by_text("Runs").first.wait_for()
    refused: list[int] = []
    elsewhere = Receiver()  # another port of this machine is another site, too
    page.goto(elsewhere.address)
    page.on("response", lambda answer: refused.append(answer.status) if "/api/flow_runs" in answer.url else None)
    assert {*page.evaluate(ATTACK, closed.address)} == {""}
    assert refused and {*refused} <= {401, 403}
    elsewhere.close()
