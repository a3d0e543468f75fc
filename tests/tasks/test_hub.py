"""How long the hub is waited for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from artifacts.errors import TransientError
from tasks import hub
from tasks.hub import RetryPolicy


def test_a_request_is_given_up_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(hub, "time", clock)

    def refused() -> None:
        raise EOFError("0 of 10 bytes arrived")

    with pytest.raises(TransientError):
        hub.ask("the model", refused, field="model.name", policy=RetryPolicy(attempts=1000, deadline=100))
    assert 50 < sum(slept) <= 100
