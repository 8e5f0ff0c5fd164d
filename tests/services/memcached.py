"""memcached: TCP and a unix socket; another one with TLS. A restarted one is empty."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import quote

from .base import HOST, Service, require_command, tcp_answers
from .certificates import make_certificates


class MemcachedService(Service):
    """Two processes, TCP and unix socket: memcached listens on one or the other."""

    name = "memcached"

    def prepare(self) -> None:
        self.command = require_command("memcached", "memcached")

    def launch(self) -> None:
        # Root may not run it, and whoever runs it then must be able to make the socket.
        self.folder.chmod(0o777)
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        self.spawn(self.command, *user, "-l", HOST, "-p", str(self.port()), "-U", "0", *self.more())
        self.socket_path.unlink(missing_ok=True)
        self.spawn(self.command, *user, "-s", str(self.socket_path), "-a", "777", "-m", "64")

    def more(self) -> tuple[str, ...]:
        return ("-m", "64")

    def ready(self) -> bool:
        return tcp_answers(self.port()) and self.socket_path.is_socket()

    def exports(self) -> dict[str, str]:
        return {
            "MEMCACHED_URL": f"memcached://{HOST}:{self.port()}",
            "MEMCACHED_UNIX_URL": f"memcached://{quote(str(self.socket_path))}",
        }

    def ask(self, command: str, end: bytes = b"\r\n") -> str:
        """The answer to a command of the text protocol, over TCP."""
        return ask(self.port(), command, end)

    @property
    def socket_path(self) -> Path:
        return self.folder / "memcached.sock"


class MemcachedTlsService(Service):
    name = "memcached_tls"

    def prepare(self) -> None:
        self.command = require_command("memcached", "memcached")

    def launch(self) -> None:
        made = make_certificates(self.folder / "certificates")
        (made / "server.key").chmod(0o644)
        certificate = f"ssl_chain_cert={made / 'server.crt'},ssl_key={made / 'server.key'}"
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        self.spawn(
            *(self.command, *user, "-l", HOST, "-p", str(self.port()), "-U", "0", "-m", "64"),
            *("-Z", "-o", certificate),
        )

    def ready(self) -> bool:
        return tcp_answers(self.port())

    def exports(self) -> dict[str, str]:
        return {
            "MEMCACHED_TLS_URL": f"memcached://{HOST}:{self.port()}",
            "MEMCACHED_TLS_CA": str(self.folder / "certificates" / "ca.crt"),
        }


def ask(port: int, command: str, end: bytes = b"\r\n") -> str:
    """What the server on this port answers to a command of the text protocol, up to `end`."""
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(command.encode() + b"\r\n")
        answer = b""
        while not answer.endswith(end):
            more = connection.recv(65536)
            if not more:
                break
            answer += more
    return answer.decode()
