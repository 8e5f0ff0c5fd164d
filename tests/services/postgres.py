"""PostgreSQL: TCP, with and without TLS, passwords by SCRAM, an empty database `sessions`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from .base import (
    HOST,
    Service,
    Unavailable,
    children,
    clean_environment,
    process_start,
    require_command,
    signal_processes,
    wait_until,
)
from .certificates import make_certificates

PASSWORD = "sessions-secret"


def _programs() -> Path | None:
    """The folder of initdb, postgres and pg_isready; Debian keeps them off the PATH."""
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


class PostgresService(Service):
    """A restarted one keeps its data. settings: lines of postgresql.conf."""

    name = "postgres"
    seconds_to_start = 60
    # "Fast": it does not wait for clients to leave.
    end_signal = signal.SIGINT

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.settings = dict(settings or {})

    def prepare(self) -> None:
        if _programs() is None:
            require_command("pg_ctlcluster", "postgresql")
        programs = _programs()
        if programs is None:
            raise Unavailable("the programs of PostgreSQL are not where they are expected")
        self.programs = programs

    def as_user(self, program: str) -> list[str]:
        """The start of a command; PostgreSQL refuses to be run by root."""
        command = [str(self.programs / program)]
        if os.geteuid() == 0:
            setpriv = require_command("setpriv", "util-linux")
            command[:0] = [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return command

    def run(self, program: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            [*self.as_user(program), *arguments],
            cwd=self.folder, env=clean_environment(), input=text, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Unavailable(f"{program}: {(done.stderr or done.stdout).strip()[-300:]}")

    def make_data(self) -> None:
        make_certificates(self.certificates)
        password, key = self.folder / "password", self.folder / "server.key"
        password.write_text(PASSWORD + "\n")
        shutil.copy(self.certificates / "server.key", key)
        key.chmod(0o600)
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            for path in (self.data, password, key):
                shutil.chown(path, "postgres", "postgres")
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "scram-sha-256",
            f"--pwfile={password}", "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        # Single-user mode needs no port and no password.
        self.run(
            "postgres", "--single", "-F", "-D", str(self.data), "postgres",
            text="CREATE DATABASE sessions\n",
        )  # fmt: skip

    def launch(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self.make_data()
        settings = {
            "port": str(self.port()),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
            "ssl": "on",
            "ssl_cert_file": str(self.certificates / "server.crt"),
            "ssl_key_file": str(self.folder / "server.key"),
            **self.settings,
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        self.spawn(*self.as_user("postgres"), "-D", str(self.data), *options)

    def ready(self) -> bool:
        command = [str(self.programs / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port())]
        return subprocess.run(command, env=clean_environment(), check=False).returncode == 0

    def exports(self) -> dict[str, str]:
        return {"POSTGRES_URL": self.url, "POSTGRES_TLS_URL": self.tls_url}

    def set_time_zone(self, zone: str) -> bool:
        if self.settings.get("timezone") != zone:
            self.settings["timezone"] = zone
            self.restart()
        return True

    # ---- life: each connection is served by a process of its own

    def _everything(self) -> list[tuple[int, int]]:
        return [*self.processes, *(one for pid, _ in self.processes for one in children(pid))]

    def kill(self) -> None:
        everything = self._everything()
        signal_processes(everything, signal.SIGKILL)
        self.end()
        # A process that is left would keep the next server from starting.
        wait_until(lambda: all(process_start(pid) != started for pid, started in everything), 10)

    def pause(self) -> None:
        super().pause()  # first the one that starts others
        signal_processes(self._everything(), signal.SIGSTOP)

    def resume(self) -> None:
        signal_processes(self._everything(), signal.SIGCONT)

    def end(self) -> None:
        signal_processes(self._everything(), signal.SIGCONT)
        super().end()

    # ---- how to reach it

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{PASSWORD}@{HOST}:{self.port()}/sessions"

    @property
    def tls_url(self) -> str:
        authority = quote(str(self.certificates / "ca.crt"), safe="/")
        return f"{self.url}?sslmode=verify-full&sslrootcert={authority}"
