"""Where requests under test meet the test: each waits at a name until it is told to go on.

So an interleaving of requests is forced, in threads and across processes alike, and not hoped for.
The application's part is a few lines (see tests/python/apps/script.py): connect, send the name and
a newline, read until the answer comes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from .base import HOST


class Stage:
    """stage.wait(name) until somebody is there, stage.go(name) lets all of them go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, list[socket.socket]] = {}
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def wait(self, name: str, count: int = 1, seconds: float = 60) -> None:
        """Until `count` requests wait at this name."""
        end = time.monotonic() + seconds
        with self._changed:
            while len(self._waiting.get(name, ())) < count:
                if not self._changed.wait(end - time.monotonic()):
                    there = {name: len(waiting) for name, waiting in self._waiting.items()}
                    raise AssertionError(f"nobody came to {name!r} ({count} wanted): {there}")

    def go(self, *names: str) -> None:
        """Let all who wait at these names go on, wherever they are when no name is given."""
        with self._changed:
            chosen = names or tuple(self._waiting)
            waiting = [one for name in chosen for one in self._waiting.pop(name, ())]
        for connection in waiting:
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"go\n")

    def pass_together(self, name: str, count: int) -> None:
        """A barrier: wait for so many, then let them go."""
        self.wait(name, count)
        self.go(name)

    def close(self) -> None:
        # shutdown wakes the accepting thread, close alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.go()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            try:
                with connection.makefile("rb") as lines:
                    name = lines.readline().decode().strip()
            except OSError:
                connection.close()
                continue
            with self._changed:
                self._waiting.setdefault(name, []).append(connection)
                self._changed.notify_all()
