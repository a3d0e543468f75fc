"""What is said where there is no server, or one that knows nothing of the project; the rest is tested in
test_deployment.py."""

from __future__ import annotations

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from artifacts.errors import InputError
from flows import deploying


@pytest.mark.parametrize("command", [["deploy"], ["worker"]])
def test_a_server_must_be_named(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli import guarded

    with temporary_settings({PREFECT_API_URL: None}):
        assert guarded(command) == 2
    assert "error: PREFECT_API_URL: " in capsys.readouterr().err


def test_a_worker_needs_the_pool(prefect_server: None) -> None:
    with get_client(sync_client=True) as client, pytest.raises(InputError, match="gpu") as error:
        deploying.check_pool(client)
    assert "codetune deploy" in str(error.value)
