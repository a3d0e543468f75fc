"""The key to the servers that are started here: whoever has it may have any program run on this machine.

It is Prefect's auth string, made once and kept in PREFECT_HOME, where its owner alone can read it. On a machine of
several people anybody may listen at any port; so whoever listens at an address must prove to have the key before it is
told the key.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import toml  # type: ignore[import-untyped] # with which Prefect reads and writes them
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_UI_URL,
)

from artifacts.errors import InputError
from flows.environment import LOOPBACK

PROFILE = "codetune"
"""What Prefect's own command calls the settings that reach the server which was started here last."""
PROOF = "/proof/"
"""Where a server that was started here proves that it has the key: its path goes on with what is to be answered."""


def place() -> Path:
    """The file of the key."""
    return Path(PREFECT_HOME.value()) / "codetune-key"


def own_key() -> str:
    """The key to servers of this person's: what PREFECT_SERVER_API_AUTH_STRING says, else one that is made here the
    first time.

    Raises:
        InputError: the file cannot be kept, or others could have read or written it.
    """
    if configured := PREFECT_SERVER_API_AUTH_STRING.value():
        return str(configured)
    path = place()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(new, "w") as file:
                file.write(f"codetune:{secrets.token_hex(16)}")
        return _read(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"the key to the server cannot be kept in {path}: {reason}",
            field="PREFECT_HOME",
            remedy="name a folder of your own with PREFECT_HOME",
        ) from error


def _read(path: Path) -> str:
    for _ in range(20):
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise InputError(
                    f"{path} is not a file that you alone can read, so it is no secret",
                    field="PREFECT_HOME",
                    remedy="remove it, and a new one is made; or name a folder of your own with PREFECT_HOME",
                )
            if key := file.read(1024).strip():
                return key
        time.sleep(0.05)  # another process has just made it
    raise InputError(f"{path} is empty", field="PREFECT_HOME", remedy="remove it, and a new one is made")


def proof(key: str, asked: str, address: tuple[str, int]) -> str:
    """What only a server with the key can answer; bound to where it was asked, so that nobody can hand the question on
    to a server elsewhere."""
    return hmac.new(key.encode(), f"{asked} {address[0]} {address[1]}".encode(), "sha256").hexdigest()


def has_key(address: str, key: str) -> bool:
    """Whether the server at an address of this machine was started with the key. It does not learn the key by this."""
    asked = secrets.token_hex(16)
    try:
        with (
            httpx.Client(timeout=10, verify=False, trust_env=False) as client,
            client.stream("GET", f"{address}{PROOF}{asked}") as answer,
        ):
            peer = answer.extensions["network_stream"].get_extra_info("server_addr")
            said = next(answer.iter_bytes(64), b"")
        return answer.status_code == 200 and hmac.compare_digest(said, proof(key, asked, peer[:2]).encode())
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def is_here(address: str) -> bool:
    """Whether an address is one of this machine's alone."""
    return urlsplit(address).hostname in LOOPBACK


def keep_profile(address: str, public: str, key: str) -> bool:
    """Have `prefect --profile codetune` talk to this server and print links with its public address; whether that could
    be done."""
    from prefect.settings import get_current_settings
    from prefect.settings.profiles import ProfilesCollection, load_profiles

    path = Path(get_current_settings().profiles_path or PREFECT_HOME.value() / "profiles.toml").resolve()
    settings = {PREFECT_API_URL: f"{address}/api", PREFECT_UI_URL: public, PREFECT_API_AUTH_STRING: key}
    try:
        profiles: ProfilesCollection = load_profiles(include_defaults=False)
        profiles.update_profile(PROFILE, settings, source=path)
        path.parent.mkdir(parents=True, exist_ok=True)
        file, name = tempfile.mkstemp(dir=path.parent, prefix=".profiles-")  # which its owner alone can read
        with os.fdopen(file, "w", encoding="utf-8") as new:
            new.write(toml.dumps(profiles.to_dict()))
        Path(name).replace(path)
    except (OSError, ValueError):
        return False
    return True


def opened(page: str, key: str | None) -> str:
    """The address of a page of a server with this key, as its owner opens it. What follows `#` is never sent: the page
    itself reads it. A password that somebody chose is not shown; the page asks for it."""
    shown = key and not PREFECT_SERVER_API_AUTH_STRING.value()
    return f"{page}#key={quote(key or '', safe=':')}" if shown else page
