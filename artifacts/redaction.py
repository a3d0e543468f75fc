"""The one place that keeps secrets out of what is said: logs, errors, reports, manifests, the ledger.

A secret is what looks like one (`artifacts.credentials`), and the value of an environment variable that holds one by
its name (`HF_TOKEN`, `*_API_KEY`, …) or, if that is an address, its path alone, which is what libraries quote; and the
password in any address of the environment. Settings hold none: they would stand in Prefect's database, in manifests
and in the report (`flows.config` refuses them).
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from artifacts import credentials
from artifacts.escaping import visible

STARS = "**********"
_SHORTEST = 8
"""A shorter value is no secret worth the name, and would be found in ordinary words."""
_NAMES = re.compile(
    r"TOKEN$|SECRET|PASSWORD|PASSWD|PASSPHRASE|_PWD$|API_?KEY$|ACCESS_KEY|PRIVATE_KEY|ACCOUNT_KEY|CREDENTIAL|WEBHOOK"
    r"|AUTH_STRING$",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with stars in place of every secret."""
    for name, value in os.environ.items():
        for secret in _secrets_of(name, value):
            text = text.replace(secret, STARS)
    kept, end = [], 0
    for found in sorted(credentials.find(text)):
        if found.start >= end:
            kept += [text[end : found.start], STARS]
        end = max(end, found.end)
    return "".join([*kept, text[end:]])


@lru_cache(maxsize=1024)
def _secrets_of(name: str, value: str) -> tuple[str, ...]:
    """What of an environment variable must not be said, the longest first."""
    found = _written(value) if _NAMES.search(name) else set()
    if "://" in value:
        if found:
            found.add(value.partition("://")[2].partition("/")[2])
        try:
            password = urlsplit(value).password or ""
        except ValueError:  # no address after all
            password = ""
        found |= _written(password) | _written(unquote(password))
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True))


def _written(secret: str) -> set[str]:
    """The ways in which an address, JSON or Python write it."""
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    }


def without_secrets(value: Any, name: str = "") -> Any:
    """The same of a JSON value that has this name."""
    if isinstance(value, str):
        assigned, redacted = f"{name}={value}", redact(value)
        told_by_name = redact(assigned) not in (assigned, f"{name}={redacted}")
        return STARS if told_by_name else redacted
    if isinstance(value, dict):
        return {redact(str(part)): without_secrets(one, str(part)) for part, one in value.items()}
    return [without_secrets(one, name) for one in value] if isinstance(value, (list, tuple)) else value


def secret_settings(value: Any, name: str = "") -> Iterator[str]:
    """The dotted names of what holds a secret in a JSON value of this name."""
    if isinstance(value, dict):
        for part, one in value.items():
            yield from secret_settings(one, f"{name}.{redact(str(part))}" if name else redact(str(part)))
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from secret_settings(one, f"{name}.{number}")
    elif isinstance(value, (str, Path)) and without_secrets(str(value), name.rpartition(".")[2]) != str(value):
        yield name


def redact_logs() -> None:
    """Have every log record of this process redacted where it is made, so before any handler sees it, and what acts on
    a terminal spelled out."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            said = ""  # logging itself tells of arguments that do not fit
        if (clean := visible(redact(said))) != said:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1]:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (clean := visible(redact(trace))) != trace:
                record.exc_info, record.exc_text = None, clean
        return record

    # Not with the first record: that may come while what the detectors need is half imported, or memory is short.
    credentials.prepare()
    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)
