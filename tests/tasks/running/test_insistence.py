"""Prefect's clients while a server that was killed is started again."""

from __future__ import annotations

import time

import httpx
import pytest
from prefect.client.base import PrefectHttpxSyncClient

from tasks.running.insistence import RETRIES, insistence


@pytest.mark.parametrize(
    ("hoped_for", "refused", "answered"), [(True, RETRIES, True), (True, 99, False), (False, 1, False)]
)
def test_a_new_client_repeats_for_minutes_what_meets_no_server(
    monkeypatch: pytest.MonkeyPatch, hoped_for: bool, refused: int, answered: bool
) -> None:
    asked, waited = 0, []
    monkeypatch.setattr(time, "sleep", waited.append)

    def server(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        if asked <= refused:
            raise httpx.ConnectError("nobody listens", request=request)
        return httpx.Response(200)

    def get() -> bool:
        with PrefectHttpxSyncClient(transport=httpx.MockTransport(server)) as client:
            return client.get("http://127.0.0.1/").is_success

    with insistence(lambda: hoped_for):
        if answered:
            assert get()
        else:
            with pytest.raises(httpx.ConnectError):
                get()
    assert asked == (RETRIES + 1 if hoped_for else 1)
    assert (sum(waited) > 120) is hoped_for
    asked, waited[:] = 0, []
    with pytest.raises(httpx.ConnectError):
        get()
    assert asked == 1, "it insists no longer"
