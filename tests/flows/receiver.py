"""The receiver of a webhook, on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "s3cret-part"


class Receiver:
    """A webhook's receiver that answers with `status` (a redirect to `location`), or not at all when it is 0."""

    def __init__(self, status: int = 200, location: str | None = None) -> None:
        received: list[dict[str, Any]] = []
        self.received, self.released = received, threading.Event()
        released = self.released

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if status == 0:
                    released.wait()
                    return
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.end_headers()

            def do_GET(self) -> None:
                received.append({"got": self.path})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"

    def heard(self, run: object) -> list[dict[str, Any]]:
        """What it was told of a run."""
        return [said for said in self.received if said["run"]["id"] == str(run)]

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
