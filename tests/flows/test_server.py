from __future__ import annotations

import http.server
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

from artifacts.errors import CodetuneError, InputError, StageError
from flows import access, environment, server
from flows.cli import guarded
from tests import records
from tests.flows.postgres import Postgres
from tests.servers import tell_all
from tests.waiting import until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which nobody named a server, and none is."""
    monkeypatch.setattr(server, "USUAL", "http://127.0.0.1:1")  # whatever runs on this machine is not ours
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)
    with temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}):
        yield tmp_path
        tell_all()


def test_a_servers_own_dashboard_finds_its_api(home: Path) -> None:
    records.copy_to(home / "prefect.db")
    started = server.start()
    with started.ready():
        assert PREFECT_API_URL.value() == f"{started.address}/api"
        assert PREFECT_API_AUTH_STRING.value() == access.own_key()
        assert httpx.get(f"{started.address}/ui-settings").json()["api_url"] == f"{started.address}/api"
        port = urlsplit(started.address).port
        sockets = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        assert {one.laddr.ip for one in sockets if one.laddr.port == port} == {"127.0.0.1"}
    assert started.temporary


def test_the_profile_prints_links_that_others_can_open(home: Path) -> None:
    assert access.keep_profile("http://127.0.0.1:4300", "https://gpu.example.org", "codetune:key")
    printed = subprocess.run(
        [Path(sys.executable).with_name("prefect"), "--profile", access.PROFILE, "config", "view", "--show-secrets"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for setting in (
        "API_URL='http://127.0.0.1:4300/api'",
        "UI_URL='https://gpu.example.org'",
        "AUTH_STRING='codetune:key'",
    ):
        assert setting in printed, printed


def process_of(started: server.Server) -> psutil.Process:
    port = str(urlsplit(started.address).port)
    return until(lambda: next((one for one in psutil.Process().children() if port in one.cmdline()), None))


def test_a_temporary_server_that_is_killed_is_started_again_with_the_same_records(home: Path) -> None:
    records.copy_to(home / "prefect.db")
    started = server.start()
    with started.ready():
        with get_client(sync_client=True) as client:
            flow = client.create_flow_from_name("before")
        process_of(started).kill()
        with get_client(sync_client=True) as another:  # which was answered nothing before
            assert another.read_flow(flow).name == "before"


def test_two_that_start_together_on_a_new_home_share_its_records(home: Path) -> None:
    started = [server.start(), server.start()]
    for one in started:
        with one.ready(), get_client(sync_client=True) as client:
            flows = [client.create_flow_from_name("the same")]
    with started[0].ready(), get_client(sync_client=True) as client:
        assert client.read_flow(flows[0]).name == "the same"


def test_two_homes_that_start_together_on_a_new_postgresql_share_its_records(
    home: Path, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database.url)
    started = []
    for name in ("one", "other"):
        (home / name).mkdir()
        with temporary_settings({PREFECT_HOME: home / name}):
            started.append(server.start())
    for name, one in zip(("one", "other"), started, strict=True):
        with one.ready(), get_client(sync_client=True) as client:
            client.create_flow_from_name(name)
    assert database.ask("select name from flow order by name") == ["one", "other"]


def test_one_that_cannot_be_started_again_ends_the_work_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STARTS", 1)  # each takes a minute on a machine that is full
    records.copy_to(home / "prefect.db")
    started = server.start()
    with pytest.raises(StageError) as ended, started.ready():
        process = process_of(started)
        process.suspend()
        (home / "prefect.db").write_bytes(b"no database" * 1000)
        (home / "prefect.db-wal").unlink(missing_ok=True)  # it may hold all of the database
        process.kill()
        threading.Event().wait(500)
    assert ended.value.field == "PREFECT_API_DATABASE_CONNECTION_URL"
    assert ended.value.remedy is not None and "same command" in ended.value.remedy


@pytest.fixture
def in_the_background() -> Iterator[None]:
    """Ctrl-C is ignored, as in what a script starts with `&`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import time; time.sleep(1000)"], ids=["ends", "hangs"])
def test_a_server_that_does_not_come_up_again_is_started_three_times(
    home: Path, monkeypatch: pytest.MonkeyPatch, in_the_background: None, program: str
) -> None:
    records.copy_to(home / "prefect.db")
    started, launched = server.start(), []

    def ending() -> subprocess.Popen[bytes]:
        launched.append(subprocess.Popen([sys.executable, "-c", program]))
        return launched[-1]

    with pytest.raises(CodetuneError), started.ready():
        monkeypatch.setattr(started, "_launch", ending)
        monkeypatch.setattr(server, "PATIENCE", 1.0)
        process_of(started).kill()
        threading.Event().wait(100)
    assert len(launched) == server.STARTS == 3


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num)")
        database.execute("INSERT INTO alembic_version VALUES ('of another version')")


DATABASES = {
    "damaged": lambda path: path.write_bytes(b"no database" * 1000),
    "of another version": foreign,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("what", DATABASES)
def test_it_is_said_why_a_server_did_not_come_up(what: str, home: Path) -> None:
    DATABASES[what](home / "prefect.db")
    with pytest.raises(StageError) as ended, server.start().ready():
        pass
    assert ended.value.field == "PREFECT_API_DATABASE_CONNECTION_URL"
    assert str(home) in str(ended.value.remedy) and "unset" not in str(ended.value.remedy)


@pytest.mark.parametrize("where", ["/proc/nowhere", "/dev/null", "/dev/null/x"])
def test_a_home_that_cannot_be_used_is_named(where: str, home: Path) -> None:
    with temporary_settings({PREFECT_HOME: Path(where)}), pytest.raises(InputError) as refused:
        server.start()
    assert refused.value.field == "PREFECT_HOME"


@pytest.mark.parametrize("api", ["http://127.0.0.1:99999/api", "127.0.0.1:4200", "ftp://a/api", "http:///api"])
def test_an_address_that_is_none_is_named(api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(InputError) as refused:
        server.start()
    assert refused.value.field == "PREFECT_API_URL"


class Friendly(http.server.BaseHTTPRequestHandler):
    """A program that answers everything."""

    body = b"<h1>It works!</h1>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None: ...


@pytest.mark.parametrize("body", [b"<h1>It works!</h1>", b"", b"{}", b"ok", b"1", b'"true"', b"\xff"])
def test_another_program_is_not_taken_for_a_server(body: bytes) -> None:
    handler = type("Handler", (Friendly,), {"body": body})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{other.server_port}"
        assert not server.answers(address) and not access.has_key(address, "x")
        other.shutdown()


@pytest.mark.parametrize("port", ["65536", "70000", "0", "-1", "99999999999999999999"])
def test_a_port_that_is_none_is_one_message(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["up", f"--port={port}"]) == 2
    said = capsys.readouterr().err
    assert "--port" in said and len(said.splitlines()) < 5 and "Traceback" not in said


PROXIES = [
    "http://127.0.0.1:1",
    "https://u:p@127.0.0.1:1",
    "127.0.0.1:1",
    "socks5://127.0.0.1:1",
    "socks://127.0.0.1:1/",
]
UNUSABLE = ["socks4://127.0.0.1:1", "ftp://a", "http://[", "http://a:99999", "://"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", PROXIES + UNUSABLE)
def test_this_machine_is_not_asked_through_a_proxy(name: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in [one for one in os.environ if one.lower().endswith("_proxy")]:
        monkeypatch.delenv(other)
    monkeypatch.setenv("no_proxy", "internal.example")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv(name, proxy)
    environment.spare_loopback()
    assert (name in os.environ) == (proxy in PROXIES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Friendly) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        for host in ("127.0.0.1", "localhost"):
            assert httpx.get(f"http://{host}:{here.server_port}").status_code == 200
        here.shutdown()
    with pytest.raises((httpx.HTTPError, OSError)):  # others still are
        httpx.get("http://elsewhere.invalid", timeout=2)


def test_prefect_tells_its_makers_nothing_and_announces_nothing() -> None:
    unmarked = {name: value for name, value in os.environ.items() if name not in ("DO_NOT_TRACK", "CI")}
    ask = "from prefect._internal.analytics.enabled import is_telemetry_enabled as on; print(on())"
    command = [sys.executable, "-c", f"from flows import environment; environment.apply(quiet=True); {ask}"]
    assert subprocess.check_output(command, env=unmarked, text=True).strip() == "False"


def test_a_setting_that_prefect_does_not_take_is_named(tmp_path: Path) -> None:
    wrong = {"PREFECT_API_URL": "http://[", "PREFECT_SERVER_API_PORT": "abc", "PREFECT_LOGGING_LEVEL": "loud"}
    for name, value in wrong.items():
        command = [Path(sys.executable).with_name("codetune"), "worker"]
        done = subprocess.run(command, env={**os.environ, name: value}, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2 and f"error: {name}:" in done.stderr and "Traceback" not in done.stderr


def test_a_configured_server_that_is_down_says_what_to_do() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(StageError, match="PREFECT_API_URL"),
    ):
        server.start().ready(patience=0.2).__enter__()


@pytest.mark.parametrize(("address", "verified"), [("http://a", False), ("https://a", True), ("HTTPS://a", True)])
def test_certificates_are_left_out_for_plain_http_alone(
    address: str, verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def get(_url: str, *, timeout: float, verify: bool, trust_env: bool) -> httpx.Response:
        asked.append(verify)
        return httpx.Response(200, json=True)

    monkeypatch.setattr(httpx, "get", get)
    assert server.answers(address) and asked == [verified]
