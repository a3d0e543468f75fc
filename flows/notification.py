"""A webhook that hears how a run ended: one POST of JSON to the address in `CODETUNE_WEBHOOK`. Unset, nothing is sent.

The address is read from the environment of the process that does the work, not from the recipe: most such addresses
are secrets by themselves, and a run's parameters stand in the dashboard, its settings in manifests and in the report.
For the same reason it is never logged, nor are errors that might quote it.

What is not covered: a run whose process is killed outright tells nobody, unless a Prefect worker started it; the
worker then calls these hooks.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.request
from datetime import UTC, datetime
from typing import Any, Final

from artifacts.errors import CodetuneError
from artifacts.redaction import redact

log = logging.getLogger(__name__)

VARIABLE: Final = "CODETUNE_WEBHOOK"
ATTEMPTS = 3
TIMEOUT = 5.0
"""Seconds that the receiver may take for each attempt."""
PAUSE = 1.0
"""Seconds between two attempts."""


def notify(flow: Any, flow_run: Any, state: Any) -> None:
    """A Prefect state hook: called by keyword with the flow, its run and the state that it ended in. Never raises."""
    del flow
    address = os.environ.get(VARIABLE)
    if not address:
        return
    if not address.startswith(("http://", "https://")):
        log.warning("nobody was notified: %s is no http address", VARIABLE)
        return
    try:
        body = json.dumps(message(flow_run, state)).encode()
    except Exception as error:
        log.warning("nobody was notified: the message could not be made (%s)", type(error).__name__)
        return
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        if not (problem := _post(address, body)):
            return
    log.warning("nobody was notified: the webhook did not take it in %d attempts (%s)", ATTEMPTS, problem)


def message(flow_run: Any, state: Any) -> dict[str, Any]:
    """What is sent: run, state, recipe, seconds, where to look, and the verdict or what went wrong."""
    result = getattr(state.data, "result", state.data)
    started = flow_run.start_time or state.timestamp
    said = {
        "run": {"id": str(flow_run.id), "name": flow_run.name},
        "state": "cancelled" if state.is_cancelling() else state.name.lower(),
        "recipe": _recipe(flow_run.parameters.get("config")),
        "seconds": round(max(0.0, ((state.timestamp or datetime.now(UTC)) - started).total_seconds()), 1),
        "dashboard": f"{_dashboard()}/runs/flow-run/{flow_run.id}",
    }
    if state.is_completed():
        verdict = getattr(result, "verdict", None)
        return {**said, "verdict": verdict, "reasons": list(getattr(result, "reasons", ()))}
    return {**said, "error": explain(result, state.message)}


def explain(error: Any, fallback: str | None = None) -> dict[str, str | None]:
    """What a person needs to hear of a failure: where, what is wrong, what to do."""
    if isinstance(error, CodetuneError):
        return {"field": error.field, "problem": error.problem, "remedy": error.remedy}
    problem = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else fallback
    remedy = "look at the run's log; finished stages are kept, so running again continues where this ended"
    return {"field": None, "problem": redact(problem or "the run ended without a word"), "remedy": remedy}


def _post(address: str, body: bytes) -> str:
    """Why it was not taken; empty when it was. Not by httpx, which logs addresses."""
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return ""
    except Exception as error:  # its text may quote the address
        status = getattr(error, "code", None)
        return f"status {status}" if status else type(error).__name__


def _recipe(config: Any) -> str | None:
    value = config.get("recipe") if isinstance(config, dict) else getattr(config, "recipe", None)
    return str(value) if value else None


def _dashboard() -> str:
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

    return str(PREFECT_UI_URL.value() or (PREFECT_API_URL.value() or "").removesuffix("/api"))
