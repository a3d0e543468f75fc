from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from artifacts.errors import StageError
from flows import server


def test_a_servers_own_dashboard_finds_its_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "USUAL", "http://127.0.0.1:1")  # whatever runs on this machine is not ours
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        started = server.start()
        with started.ready():
            assert PREFECT_API_URL.value() == f"{started.address}/api"
            assert httpx.get(f"{started.address}/ui-settings").json()["api_url"] == f"{started.address}/api"
            port = urlsplit(started.address).port
            sockets = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
            assert {one.laddr.ip for one in sockets if one.laddr.port == port} == {"127.0.0.1"}
    assert started.temporary


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
