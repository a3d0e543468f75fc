"""What stands before Prefect's server: who gets in, and how a browser does.

Prefect's own check, of the auth string, lets in whoever has the key. Before it, requests are turned away that come from
another site's page (`Origin`), or under a name that is none of this server's (`Host`): a page of that name could have
been told to look here for it.

A browser is given the key by the address that its owner opens, in the part after `#`, which is never sent. Prefect's
dashboard keeps it where no other address can read it, this machine's other ports included, as a cookie would not.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from html import escape
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.websockets import WebSocketClose

from flows import access
from flows.environment import LOOPBACK

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCKED = "/locked"
GUARDED = {
    # Prefect's pages of documentation load scripts of other hosts, which could read the key.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws: wss:; form-action 'self'; base-uri 'self'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_KEEP_KEY = """<script>
(() => {
  const given = decodeURIComponent((location.hash.match(/^#key=(.*)/) || [])[1] || "");
  if (given) history.replaceState(null, "", location.pathname + location.search);
  for (const key of [given && btoa(given), localStorage.getItem("prefect-password")]) {
    if (!key) continue;
    const asked = new XMLHttpRequest();
    asked.open("GET", "/api/admin/version", false);
    asked.setRequestHeader("Authorization", "Basic " + key);
    asked.send();
    if (asked.status != 401) return localStorage.setItem("prefect-password", key);
  }
  location.replace("/locked?page=" + encodeURIComponent(location.pathname + location.search));
})();
</script>"""
_LOCKED = """<!doctype html><meta charset="utf-8"><title>codetune</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 42em; margin: 4em auto; padding: 0 1em }}</style>
<h1>This dashboard is locked</h1>
<p>Open it by the address that <code>codetune up</code> or <code>codetune run</code> printed, with all that follows
<code>#</code>. That is needed once for each browser.</p>
<p>Or give its key here. It stands in <code>{place}</code> on the machine of the server, or in what was given to it as
<code>PREFECT_SERVER_API_AUTH_STRING</code>:</p>
<form><input type="password" size="44" autocomplete="off"> <button>Open</button></form>
<script>
document.querySelector("form").onsubmit = event => {{
  event.preventDefault();
  const page = new URLSearchParams(location.search).get("page") || "/";
  const there = new URL(page, location.origin);
  if (there.origin != location.origin) return;
  there.hash = "key=" + encodeURIComponent(document.querySelector("input").value.trim());
  location.replace(there);
}};
</script>"""


class Entrance:
    """An application that hands on to another what may come in: what is asked of this server by a name that it has, and
    by no page of another site.

    Args:
        application: the other.
        addresses: where this one listens and what it is called; other names are this machine's own.
    """

    remedy = ""
    """How it gets another name."""

    def __init__(self, application: Application, addresses: Iterable[str]) -> None:
        self._application = application
        parts = [urlsplit(address) for address in addresses]
        self._origins = {f"{part.scheme}://{part.netloc}" for part in parts}
        self._names = {*LOOPBACK, socket.gethostname().lower(), *(part.hostname for part in parts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._application(scope, receive, send)
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host, scope):
            return await _refuse(421, f"this server is not called {host!r}{self.remedy}", scope, receive, send)
        if origin is not None and not self._is_ours(origin, host):
            return await _refuse(403, "pages of other sites have no business here", scope, receive, send)
        return await self._admit(scope, receive, send, headers)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        await self._application(scope, receive, send)

    def _is_own(self, host: str, scope: Scope) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name = (parts.hostname or "").rstrip(".") if parts.port != 0 else ""  # no number raises
        except ValueError:
            return False
        return name in self._names or name == (scope.get("server") or ("",))[0]

    def _is_ours(self, origin: str, host: str) -> bool:
        return origin in {f"http://{host}", f"https://{host}", *self._origins}


class Door(Entrance):
    """The entrance of Prefect's server.

    Args:
        application: Prefect's.
        key: the auth string; without one everybody on this machine may ask anything.
        addresses: see `Entrance`.
    """

    remedy = "; `codetune up --public-address` or PREFECT_UI_URL says what it is called"

    def __init__(self, application: Application, key: str | None, addresses: Iterable[str]) -> None:
        super().__init__(application, addresses)
        self._key = key

    async def _admit(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and (answer := await self._own(scope, headers)):
            return await answer(scope, receive, send)
        return await self._application(scope, receive, send)

    async def _own(self, scope: Scope, headers: Headers) -> Response | None:
        """What is answered here, or by Prefect with something changed."""
        path = scope["path"]
        if self._key and path.startswith(access.PROOF):
            asked = path.removeprefix(access.PROOF)[:64]
            return PlainTextResponse(access.proof(self._key, asked, tuple(scope["server"])))
        if path == LOCKED:
            return HTMLResponse(_LOCKED.format(place=escape(str(access.place()))), headers=GUARDED)
        if path.endswith("/ui-settings"):
            status, _, body = await self._ask(scope)
            # Wherever the browser found the page, the API is there too; and the page never asks for a password. A proxy
            # before this server may speak https and call it by another name; a page of another site may ask, too.
            host, page = headers["host"], urlsplit(headers.get("referer", ""))
            found = f"{page.scheme}://{page.netloc}"
            found = found if self._is_ours(found, host) else f"{scope['scheme']}://{host}"
            settings = json.loads(body) | {"api_url": f"{found}/api", "auth": None}
            return Response(json.dumps(settings), status, {"Cache-Control": "no-store"}, "application/json")
        if "text/html" in headers.get("accept", "") and not path.startswith("/api"):
            status, answered, body = await self._ask(scope)
            if answered.get("content-type", "").startswith("text/html"):
                script = _KEEP_KEY if self._key else ""
                shown = body.decode().replace("<head>", f"<head>{script}", 1)
                return HTMLResponse(shown, status, headers={**GUARDED, "Cache-Control": "no-store"})
            kept = {name: value for name, value in answered.items() if name != "content-length"}
            return Response(body, status, headers=kept)
        return None

    async def _ask(self, scope: Scope) -> tuple[int, Headers, bytes]:
        """Prefect's answer as a whole: neither packed nor left out because the browser knows it."""
        left_out = {b"accept-encoding", b"if-none-match", b"if-modified-since", b"range"}
        asked = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in left_out]}
        unsaid: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
        messages: list[Message] = []

        async def receive() -> Message:
            if not unsaid:
                await asyncio.Event().wait()  # until whoever asks is done: nobody hangs up here
            return unsaid.pop()

        async def send(message: Message) -> None:
            messages.append(message)

        await self._application(asked, receive, send)
        start = next(one for one in messages if one["type"] == "http.response.start")
        body = b"".join(one.get("body", b"") for one in messages if one["type"] == "http.response.body")
        return start["status"], Headers(raw=start["headers"]), body


async def _refuse(status: int, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        return await WebSocketClose(1008, reason)(scope, receive, send)
    return await PlainTextResponse(reason + "\n", status)(scope, receive, send)
