"""A TCP proxy in front of a server: counts round trips, delays, cuts, goes away."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from .base import HOST

Tamper = Callable[[bytes], tuple[bytes, str]]


class CountingProxy:
    """Listens on a port of its own and passes everything on to host:port.

    A round trip is what a client waits for: data from the client after an answer (or at the start
    of a connection) begins one, whatever number of packets or commands it is made of. So a pipeline
    is one.
    """

    def __init__(self, port: int, host: str = HOST) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._gathered = threading.Condition()
        self._connections: list[_Connection] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.delay = 0.0
        """Seconds that data from the client waits before it is passed on."""
        self.swallow = False
        """True: data from the client is read and goes nowhere, so no answer ever comes."""
        self.tamper: Tamper | None = None
        """What a client gets instead of data from the server, and how its connection goes on: ""
        as before, "end" (in the orderly way) or "reset"."""
        self.gather = 0
        """Above 0: nothing is passed on before so many connections have sent something."""
        self.round_trips = 0
        self.connections = 0
        self.bytes_sent = 0
        """Bytes from clients to the server."""
        self.bytes_received = 0
        self.listen()

    def url(self, url: str) -> str:
        """The same URL, through this proxy."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        netloc = f"{user}@{HOST}:{self.port}" if user else f"{HOST}:{self.port}"
        return urlunsplit(parts._replace(netloc=netloc))

    def reset(self) -> None:
        """All counts to zero."""
        with self._lock:
            self.round_trips = self.connections = self.bytes_sent = self.bytes_received = 0

    def listen(self) -> None:
        """Accept connections (again, on the same port)."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def refuse(self) -> None:
        """Cut everything and accept nothing until `listen`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # shutdown wakes the accepting thread, close alone would not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every open connection; new ones are accepted."""
        with self._lock:
            connections, self._connections = self._connections, []
        self._reset(connections)

    def _reset(self, connections: list[_Connection]) -> None:
        with self._lock:
            for connection in connections:
                connection.cut = True
        for connection in connections:
            for end in (connection.client, connection.server):
                with contextlib.suppress(OSError):
                    # Lingering for 0 s makes close send RST.
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RD)
                end.close()

    def hang_up(self) -> None:
        """End every open connection in the orderly way, as a server does with one that was idle for
        long; new ones are accepted."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            for end in (connection.client, connection.server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.refuse()

    def __enter__(self) -> CountingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- threads

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._listener is not listener:
                    client.close()
                    server.close()
                    continue
                connection = _Connection(client, server)
                self._connections.append(connection)
                self.connections += 1
            for pump in (self._upward, self._downward):
                threading.Thread(target=pump, args=(connection,), daemon=True).start()

    def _upward(self, connection: _Connection) -> None:
        while data := _receive(connection.client):
            with self._lock:
                if not connection.waiting:
                    connection.waiting = True
                    self.round_trips += 1
                self.bytes_sent += len(data)
            if self.delay:
                time.sleep(self.delay)
            with self._gathered:
                connection.arrived = True
                self._gathered.notify_all()
                self._gathered.wait_for(self._enough, timeout=60)
            if not self.swallow and not _send(connection.server, data):
                break
        self._hang_up(connection, connection.server)

    def _downward(self, connection: _Connection) -> None:
        while data := _receive(connection.server):
            with self._lock:
                # Before the client can see the answer, so that its next request counts.
                connection.waiting = False
                self.bytes_received += len(data)
            tamper = self.tamper
            data, then = tamper(data) if tamper else (data, "")
            if not _send(connection.client, data) or then == "end":
                break
            if then == "reset":
                self._reset([connection])
        self._hang_up(connection, connection.client)

    def _enough(self) -> bool:
        with self._lock:
            arrived = sum(connection.arrived for connection in self._connections)
        if arrived >= self.gather:
            self.gather = 0
        return not self.gather

    def _hang_up(self, connection: _Connection, end: socket.socket) -> None:
        with self._lock:
            # An orderly end would overtake the reset of a connection that is being cut.
            if not connection.cut:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_WR)


@dataclass
class _Connection:
    client: socket.socket
    server: socket.socket
    waiting: bool = False
    cut: bool = False
    arrived: bool = False


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True
