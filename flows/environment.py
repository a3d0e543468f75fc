"""The settings of Prefect and of the libraries that a run wants, as defaults below the person's own."""

from __future__ import annotations

import gc
import logging
import os
import re
import tomllib
import warnings
from typing import Any
from urllib.parse import urlsplit

from artifacts import garbage, private
from artifacts.errors import InputError
from artifacts.installation import PROJECT
from artifacts.redaction import redact_logs

log = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "true",  # unset, tokenizers warns whenever a process is started after its first use
    # Threads that spin while they wait slow each other down on a busy machine: three runs at once on two cores take
    # half the time with this, one alone 3 % more. Read when torch loads its OpenMP library.
    "GOMP_SPINCOUNT": "5000",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",  # a nearly full GPU cannot afford fragments
    "PYTHONSAFEPATH": "1",  # what libraries start imports nothing from the current folder either
    "DO_NOT_TRACK": "1",  # Prefect tells its makers of no run, and has nothing to announce in the terminal
}

_COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch keeps code that it compiles and runs. Unset, others can make it first, in the temporary folder."""


def apply(*, quiet: bool) -> None:
    """Set what is not set. Call before Prefect is imported: it reads its settings then. From now on garbage is
    collected seldom.

    Args:
        quiet: keep Prefect's own records of a run out of the terminal; the dashboard has them.
    """
    defaults = dict(LIBRARIES)
    defaults |= _flatten(tomllib.loads((PROJECT / "prefect.toml").read_text(encoding="utf-8")))
    if quiet:
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS"] = "flows.sentences.Sentences"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if _COMPILED not in os.environ:
        os.environ[_COMPILED] = str(private.cache_folder("inductor"))
    spare_loopback()
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")  # who needs it says so
    gc.set_threshold(*garbage.SELDOM)
    redact_logs()
    for package in (
        "artifacts",
        "tasks",
        "flows",
    ):  # Prefect hands on what they let through
        logging.getLogger(package).setLevel(logging.INFO)


def spare_loopback(*own: str) -> None:
    """Have nothing of this machine, nor at its `own` addresses, asked through a proxy. Proxies that no client here can
    use are left out: each client would refuse to be made, whomever it is to ask."""
    proxies = {name for name in os.environ if name.lower() in _PROXIES and os.environ[name]}
    for name in proxies:
        # Desktops write “socks” and mean the version that everything speaks.
        address = os.environ[name] = re.sub("^socks:", "socks5:", os.environ[name], flags=re.IGNORECASE)
        if not _is_usable(address if "://" in address else f"http://{address}"):
            log.warning("%s is left out: it is no address of an http, https or socks5 proxy", name)
            del os.environ[name]
    if proxies:
        spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        spared = ",".join(filter(None, [spared, *LOOPBACK, *own]))
        os.environ |= {"no_proxy": spared, "NO_PROXY": spared}  # the lower one goes before where both are read


def wrong_setting(error: ValueError) -> InputError | None:
    """What to say when Prefect cannot be imported because of a setting of this person's; None for another error."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError) or not error.title.endswith("Settings"):
        return None
    prefix = re.sub(
        r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", error.title.removesuffix("Settings")
    )  # of ServerAPISettings and the like
    wrong = error.errors(include_url=False, include_context=False)[0]
    name = "_".join(["PREFECT", *filter(None, [prefix]), *map(str, wrong["loc"])]).upper()
    if not wrong["loc"]:
        name = "PREFECT_API_URL"
    said = wrong["msg"].removeprefix("Value error, ")
    given = "" if isinstance(wrong["input"], dict) else f" (got {wrong['input']})"
    return InputError(
        f"Prefect does not take a setting: {said[:1].lower()}{said[1:]}{given}",
        field=name,
        remedy="correct or unset it: variables PREFECT_… and the profile that `prefect config view` shows count",
    )


def _is_usable(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return parts.scheme in {"http", "https", "socks5", "socks5h"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _flatten(table: dict[str, Any], prefix: str = "PREFECT") -> dict[str, str]:
    """`prefect.toml` as Prefect's environment variables: `[logging] level` is `PREFECT_LOGGING_LEVEL`."""
    settings: dict[str, str] = {}
    for name, value in table.items():
        variable = f"{prefix}_{name.upper()}"
        if isinstance(value, dict):
            settings |= _flatten(value, variable)
        else:
            settings[variable] = ",".join(value) if isinstance(value, list) else str(value).lower()
    return settings
