"""A webhook that hears how a run ended: one POST of JSON to the address in `CODETUNE_WEBHOOK`. Unset, nothing is sent.
Redirects are not followed: an answer other than 2xx means that it was not delivered.

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
from base64 import b64encode
from datetime import UTC, datetime
from threading import Thread
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from artifacts.errors import CodetuneError
from artifacts.escaping import visible
from artifacts.redaction import redact

log = logging.getLogger(__name__)

VARIABLE: Final = "CODETUNE_WEBHOOK"
ATTEMPTS = 3
TIMEOUT = 5.0
"""Seconds for each attempt, from the look-up of the name to the answer's status."""
PAUSE = 1.0
"""Seconds between two attempts."""


def notify(flow: Any, flow_run: Any, state: Any) -> None:
    """A Prefect state hook: called by keyword with the flow, its run and the state that it ended in. Never raises."""
    del flow
    address = os.environ.get(VARIABLE)
    if not address:
        return
    if not address.lower().startswith(("http://", "https://")):
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
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

    result = getattr(state.data, "result", state.data)
    config = flow_run.parameters.get("config")
    recipe = config.get("recipe") if isinstance(config, dict) else getattr(config, "recipe", None)
    dashboard = PREFECT_UI_URL.value() or (PREFECT_API_URL.value() or "").removesuffix("/api")
    started = flow_run.start_time or state.timestamp
    said = {
        "run": {"id": str(flow_run.id), "name": flow_run.name},
        "state": "cancelled" if state.is_cancelling() else state.name.lower(),
        "recipe": str(recipe) if recipe else None,
        "seconds": round(max(0.0, ((state.timestamp or datetime.now(UTC)) - started).total_seconds()), 1),
        "dashboard": f"{dashboard}/runs/flow-run/{flow_run.id}",
    }
    if state.is_completed():
        verdict = getattr(result, "verdict", None)
        said |= {"verdict": verdict, "reasons": list(getattr(result, "reasons", ()))}
    else:
        said["error"] = explain(result, state.message)
    return {name: _plain(value) for name, value in said.items()}


def _plain(value: Any) -> Any:
    """The same without secrets, and with what acts on a terminal spelled out."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return visible(redact(value)) if isinstance(value, str) else value


def explain(error: Any, fallback: str | None = None) -> dict[str, str | None]:
    """What a person needs to hear of a failure: where, what is wrong, what to do."""
    if isinstance(error, CodetuneError):
        return {"field": error.field, "problem": error.problem, "remedy": error.remedy}
    problem = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else fallback
    remedy = "look at the run's log; finished stages are kept, so running again continues where this ended"
    return {"field": None, "problem": redact(problem or "the run ended without a word"), "remedy": remedy}


def _post(address: str, body: bytes) -> str:
    """Why it was not taken; empty when it was. Not by httpx, which logs addresses.

    In a thread: neither the look-up of a name nor an answer that comes byte by byte keeps to a socket's time-out.
    Nothing waits for one that is late, and the answer's own contents are never read.
    """
    outcome: list[str] = []
    thread = Thread(target=lambda: outcome.append(_sent(address, body)), name="webhook", daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return outcome[0] if outcome else f"no answer within {TIMEOUT:g} s"


def _sent(address: str, body: bytes) -> str:
    try:
        parts = urlsplit(address)
        user, _, host = parts.netloc.rpartition("@")
        headers = {"Content-Type": "application/json", "User-Agent": "codetune"}
        if user:
            headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
        request = Request(urlunsplit(parts._replace(netloc=host, fragment="")), body, headers, method="POST")
        # a program of this machine is not reached through a proxy
        proxies = [ProxyHandler({})] if parts.hostname in ("127.0.0.1", "::1", "localhost") else []
        with build_opener(_NoRedirects, *proxies).open(request, timeout=TIMEOUT):
            return ""
    except HTTPError as error:
        error.close()
        moved = ", which leads elsewhere; give the address that it leads to" if 300 <= error.code < 400 else ""
        return f"status {error.code}{moved}"
    except Exception as error:  # its text may quote the address
        reason = getattr(error, "reason", None)
        return type(reason if isinstance(reason, Exception) else error).__name__


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would turn the message into a request without one, to a host that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None
