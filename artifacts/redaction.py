"""The one place that keeps secrets out of what is said: logs, errors, reports, manifests, the ledger.

A secret is the value of an environment variable that holds one by its name (`HF_TOKEN`, `*_API_KEY`, …) or, if that is
an address, its path alone, which is what libraries quote; the password in any address of the environment; what looks
like a token of the hub; an `Authorization` header; and the credentials or the secret parameters of a URL. Settings that
hold a secret are pydantic's `SecretStr`, which shows itself as stars, and `Unkeyed`, so that they stand in no key and
no manifest.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

STARS = "**********"
_SHORTEST = 8
"""A shorter value is no secret worth the name, and would be found in ordinary words."""
_NAMES = re.compile(r"TOKEN$|SECRET|PASSWORD|API_KEY$|ACCESS_KEY|CREDENTIAL|WEBHOOK|AUTH_STRING$", re.IGNORECASE)
_HEADER = re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\",}]+", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
# Without the scheme before it: to look for one in the base64 of a report's pictures took 0.6 s.
_CREDENTIALS = re.compile(r"(://)[^\s/@'\"]+@")
_PARAMETER = re.compile(r"([?&](?:[a-z_-]*(?:token|key|secret|signature|password|sig))=)[^&\s'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with stars in place of every secret."""
    for name, value in os.environ.items():
        for secret in _secrets_of(name, value):
            text = text.replace(secret, STARS)
    text = _HEADER.sub(rf"\1{STARS}", text)
    text = _HUB_TOKEN.sub(STARS, text)
    text = _CREDENTIALS.sub(rf"\1{STARS}@", text)
    return _PARAMETER.sub(rf"\1{STARS}", text)


@lru_cache(maxsize=1024)
def _secrets_of(name: str, value: str) -> tuple[str, ...]:
    """What of an environment variable must not be said, the longest first."""
    found = {value, quote(value, safe="")} if _NAMES.search(name) else set()
    if "://" in value:
        if found:
            found.add(value.partition("://")[2].partition("/")[2])
        password = _password(value)
        found |= {password, unquote(password)}
    return tuple(sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True))


def _password(address: str) -> str:
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""  # no address after all


def redact_logs() -> None:
    """Have every log record of this process redacted where it is made, so before any handler sees it."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        said = _message(record)
        if said is not None and (clean := redact(said)) != said:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1]:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (clean := redact(trace)) != trace:
                record.exc_info, record.exc_text = None, clean
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)


def _message(record: logging.LogRecord) -> str | None:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return None  # logging itself tells of arguments that do not fit
