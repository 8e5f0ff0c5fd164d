"""Redis: TCP, a unix socket, and an ACL user `app` that may touch `session:*` only."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from .base import HOST, Service, require_command

PASSWORD = "sessions-secret"


class RedisService(Service):
    """Of a restarted one the data are kept only with the setting `appendonly yes`."""

    name = "redis"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.settings = dict(settings or {})

    def prepare(self) -> None:
        self.command = require_command("redis-server", "redis-server")

    def launch(self) -> None:
        settings = {
            "bind": HOST,
            "port": str(self.port()),
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "777",
            "dir": str(self.folder),
            "save": '""',
            "enable-debug-command": "local",
            "user": f"app on >{PASSWORD} ~session:* +@all -@dangerous",
            **self.settings,
        }
        config = self.folder / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.spawn(self.command, str(config))

    def ready(self) -> bool:
        return self.command_answers(b"PING", b"+PONG")

    def command_answers(self, command: bytes, start: bytes) -> bool:
        try:
            with socket.create_connection((HOST, self.port()), timeout=1) as connection:
                connection.sendall(command + b"\r\n")
                return connection.recv(64).startswith(start)
        except OSError:
            return False

    def exports(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.url,
            "REDIS_ACL_URL": self.acl_url,
            "REDIS_UNIX_URL": self.unix_url,
        }

    # ---- how to reach it

    @property
    def socket_path(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port()}/0"

    @property
    def acl_url(self) -> str:
        return f"redis://app:{PASSWORD}@{HOST}:{self.port()}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{quote(str(self.socket_path))}?db=0"
