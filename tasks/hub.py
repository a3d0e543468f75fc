"""The hub as the stages use it: patient within bounds, and with errors that say what to do.

`huggingface_hub` retries some requests by itself, but not all of them, not those that break off inside the body of a
metadata answer, and it sleeps for as long as a `Retry-After` says. Here every request goes through one policy.
`HF_ENDPOINT` is read when it is needed (`huggingface_hub` reads it once, at import); `HF_TOKEN` and `HF_HOME` are left
to `huggingface_hub`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from artifacts.errors import CodetuneError, InputError, TransientError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

log = logging.getLogger(__name__)
T = TypeVar("T")

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOKEN_REMEDY = "check the spelling; if it is private or gated, accept its conditions on the hub and set HF_TOKEN"


@dataclass(frozen=True)
class RetryPolicy:
    """How long a request may take before it is given up."""

    attempts: int = 6
    """Tries in a row without a byte of progress."""
    first_wait: float = 0.5
    """Seconds before the second try; doubled each time."""
    longest_wait: float = 300.0
    """Seconds; a server that asks for a longer pause (`Retry-After`) is not waited for."""
    deadline: float = 1800.0
    """Seconds for one request with all its repetitions."""


def endpoint() -> str:
    """The hub's address, without a slash at its end."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def api() -> HfApi:
    """A client of the configured hub."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="codetune")


def ask(what: str, request: Callable[[], T], *, field: str, policy: RetryPolicy) -> T:
    """The answer to a request, repeated while its fault may pass.

    Args:
        what: what is asked for, in words: `the model codellama/CodeLlama-7b-hf`.
        field: the configuration field that names it.

    Raises:
        InputError: it does not exist, or may not be read.
        TransientError: the hub did not deliver within the bounds of `patience`.
    """
    trial = Retries(what, field, policy)
    while True:
        try:
            return request()
        except CodetuneError:
            raise
        except Exception as error:
            trial.failed(error)


class Retries:
    """Counts the failures of one request: waits where that may help, raises where it does not."""

    def __init__(self, what: str, field: str, policy: RetryPolicy) -> None:
        self._what, self._field, self._policy = what, field, policy
        self._failures = 0
        self._started = time.monotonic()

    def progressed(self) -> None:
        """Something arrived: the next failure counts as the first."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Sleep until the request may be repeated.

        Raises:
            InputError: the same request will fail for ever.
            TransientError: it failed too often or for too long.
            Exception: `error` itself, where it has nothing to do with the hub.
        """
        fault = _judge(error, self._what, self._field)
        if not isinstance(fault, _Passing):
            raise fault from error
        self._failures += 1
        wait = max(self._policy.first_wait * 2 ** (self._failures - 1), fault.retry_after)
        late = time.monotonic() + wait - self._started > self._policy.deadline
        if self._failures >= self._policy.attempts or wait > self._policy.longest_wait or late:
            later = "check the network and HF_ENDPOINT, or run again later: finished stages are kept"
            raise TransientError(
                f"the hub does not deliver {self._what}: {fault.reason} (gave up after attempt {self._failures})",
                remedy=f"run again in {fault.retry_after:.0f} s" if fault.retry_after else later,
            ) from error
        log.info("the hub did not deliver %s: %s; trying again in %.1f s", self._what, fault.reason, wait)
        time.sleep(wait)


class RemoteFile(io.RawIOBase):
    """A file of a data set or model at a fixed commit, read in ranges: nothing is fetched but what is asked for.

    A transfer that breaks off is continued where it broke. Not safe to share between threads.

    Args:
        size: its length in bytes, where that is known already; spares a request.

    Raises (from the constructor and from reading): as `ask`; the messages name the file.
    """

    def __init__(
        self,
        repository: str,
        commit: str,
        name: str,
        *,
        field: str,
        policy: RetryPolicy,
        size: int | None = None,
        kind: Literal["dataset", "model"] = "dataset",
    ) -> None:
        from huggingface_hub import hf_hub_url

        super().__init__()
        self.name, self._field, self._policy = name, field, policy
        self._what = f"{name} of the {'data set' if kind == 'dataset' else 'model'} {repository}"
        self._url = hf_hub_url(repository, name, repo_type=kind, revision=commit, endpoint=endpoint())
        self.size = self._ask_size() if size is None else size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        data = self._fetch(self._position, end) if end > self._position else b""
        self._position += len(data)
        return data

    def _ask_size(self) -> int:
        from huggingface_hub import get_hf_file_metadata

        metadata = ask(self._what, lambda: get_hf_file_metadata(self._url), field=self._field, policy=self._policy)
        if metadata.size is None:
            raise _no_hub(self._what)
        return metadata.size

    def _fetch(self, start: int, end: int) -> bytes:
        data, trial = bytearray(), Retries(self._what, self._field, self._policy)
        while len(data) < end - start:
            before = len(data)
            try:
                self._append(data, start + before, end)
            except CodetuneError:
                raise
            except Exception as error:
                if len(data) > before:
                    trial.progressed()
                trial.failed(error)
        return bytes(data)

    def _append(self, data: bytearray, start: int, end: int) -> None:
        """Add the bytes from `start` to `end`, or as many of them as arrive."""
        from huggingface_hub import constants, get_session, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but lazily exported

        headers = build_hf_headers(headers={"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"})
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", self._url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
            if response.status_code != 206 or begins is None or int(begins[1]) != start:
                raise _no_hub(f"the range that was asked for of {self._what}")
            arrived = 0
            for chunk in response.iter_raw():
                data += chunk[: end - start - arrived]
                arrived += len(chunk)
        if arrived < end - start:
            raise EOFError(f"{arrived} of {end - start} bytes arrived")


@dataclass(frozen=True)
class _Passing:
    """A fault that may pass."""

    reason: str
    retry_after: float = 0.0
    """Seconds that the server asks to wait."""


def _judge(error: Exception, what: str, field: str) -> Exception | _Passing:
    """What a fault means: one that may pass, one for the user, or (returned as it is) none of ours."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        # What downloads raise when the hub failed and the cache does not help; the cause says why.
        return _judge(error.__cause__, what, field)
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        remedy = "unset HF_HUB_OFFLINE, or run once with the hub within reach"
        return InputError(f"HF_HUB_OFFLINE is set, and {what} is not in the cache", field=field, remedy=remedy)
    if isinstance(error, errors.HFValidationError):
        return InputError(f"{what}: this is no name of a repository", field=field, remedy="use the form `owner/name`")
    if isinstance(error, errors.HfHubHTTPError):
        return _judge_answer(error, what, field)
    if isinstance(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
        return InputError(f"{endpoint()} is no address of a hub", field="HF_ENDPOINT", remedy="use https://<host>")
    if isinstance(error, (httpx2.TransportError, EOFError)) or str(error).startswith("Consistency check failed"):
        return _Passing(str(error) or type(error).__name__)
    if isinstance(error, (errors.FileMetadataError, json.JSONDecodeError)):
        return _no_hub(what)
    return error


def _judge_answer(error: HfHubHTTPError, what: str, field: str) -> Exception | _Passing:
    from huggingface_hub import errors

    status = error.response.status_code
    if status in _PASSING_STATUS:
        return _Passing(f"it answers {status}", _retry_after(error))
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"{what} is gated, and you have no access", field=field, remedy=_TOKEN_REMEDY)
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            f"{what} has no such revision", field=field, remedy="name a branch, tag or commit that it has"
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return InputError(f"the hub has no {what}", field=field, remedy="check the revision and the names of the files")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return InputError(f"the hub does not show {what}", field=field, remedy=_TOKEN_REMEDY)
    if status in (401, 403):
        return InputError(
            f"the hub refuses {what} ({status})", field=field, remedy="set HF_TOKEN to a token with access"
        )
    return InputError(f"the hub refuses {what} ({status})", field=field, remedy="check the name and HF_ENDPOINT")


def _retry_after(error: HfHubHTTPError) -> float:
    """Seconds from `Retry-After` (a number) or from the `RateLimit` header that the hub sends with its 429."""
    headers = error.response.headers
    for text in (headers.get("retry-after", ""), *re.findall(r"\bt=(\d+)", headers.get("ratelimit", ""))):
        if text.strip().isdigit():
            return float(text)
    return 0.0


def _no_hub(what: str) -> InputError:
    return InputError(
        f"{endpoint()} does not answer like a hub when asked for {what}",
        field="HF_ENDPOINT",
        remedy="unset HF_ENDPOINT, or point it to a complete mirror of the hub",
    )
