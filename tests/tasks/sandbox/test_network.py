"""Attacks on the network: real listeners on this machine, at which nothing arrives."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tasks.sandbox.attacks import attacked, body


@dataclass
class Listeners:
    """Sockets that listen, and where."""

    tcp: int
    udp: int
    unix: str
    abstract: str
    datagram: str
    sockets: list[socket.socket]

    def heard(self) -> bool:
        for one in self.sockets:
            one.settimeout(0)
            try:
                if one.type == socket.SOCK_STREAM:
                    one.accept()[0].close()
                else:
                    one.recv(9)
            except BlockingIOError:
                continue
            return True
        return False


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[Listeners]:
    tmp_path.chmod(0o777)
    unix, datagram, abstract = str(tmp_path / "s"), str(tmp_path / "d"), f"\0codetune-{tmp_path.name}"
    with ExitStack() as stack:
        made = []
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, unix),
            (socket.AF_UNIX, socket.SOCK_STREAM, abstract),
            (socket.AF_UNIX, socket.SOCK_DGRAM, datagram),
        ):
            one = stack.enter_context(socket.socket(family, kind))
            one.bind(address)
            if kind == socket.SOCK_STREAM:
                one.listen()
            made.append(one)
        for path in (unix, datagram):
            Path(path).chmod(0o777)
        yield Listeners(made[0].getsockname()[1], made[1].getsockname()[1], unix, abstract, datagram, made)


WAYS = {
    "TCP": "socket.create_connection(('127.0.0.1', {0.tcp}), 2)",
    "UDP": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {0.udp}))",
    "unix": "socket.socket(socket.AF_UNIX).connect({0.unix!r})",
    "abstract unix": "socket.socket(socket.AF_UNIX).connect({0.abstract!r})",
    "pair of datagrams": "a, b = socket.socketpair(type=socket.SOCK_DGRAM); a.sendto(b'x', {0.datagram!r})",
    "pair of streams": "a, b = socket.socketpair(); a.sendto(b'x', {0.datagram!r})",
    "event loop": "import asyncio; asyncio.run(asyncio.wait_for(asyncio.open_connection('127.0.0.1', {0.tcp}), 2))",
    "HTTP": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{0.tcp}', timeout=2)",
    "C library": "l = ctypes.CDLL(None, use_errno=True); f = l.socket(2, 1, 0)\n"
    "if f < 0 or l.connect(f, b'\\2\\0' + ({0.tcp}).to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8), 16):\n"
    "    raise OSError",
    "the answers' socket": "s = socket.socket(fileno=next(n for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{{n}}')));"
    " s.sendto(b'x', {0.datagram!r})",
    "listening": "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
    "raw": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "virtual machine sockets": "socket.socket(socket.AF_VSOCK)",
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_reached(way: str, listeners: Listeners) -> None:
    assert not attacked(body(WAYS[way].format(listeners))).passed
    assert not listeners.heard()


def test_the_listeners_would_hear(listeners: Listeners) -> None:
    with socket.create_connection(("127.0.0.1", listeners.tcp)):
        assert listeners.heard()


def test_an_event_loop_works_within() -> None:
    source = "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 3\ndef attack(): return asyncio.run(f())"
    assert attacked(source, "3").passed
