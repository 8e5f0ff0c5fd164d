"""MariaDB: TCP, with and without TLS, an empty database `sessions` and its user `app`."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from .base import HOST, Service, Unavailable, clean_environment, require_command
from .certificates import make_certificates

PASSWORD = "sessions-secret"
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/libexec")


class MariadbService(Service):
    """A restarted one keeps its data. settings: long options of mariadbd, `_` or `-` in names."""

    name = "mariadb"
    seconds_to_start = 60

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.settings = dict(settings or {})

    def prepare(self) -> None:
        # A server's program may be off the PATH of an ordinary user.
        path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_FOLDERS])
        found = shutil.which("mariadbd", path=path)
        self.program = found or require_command("mariadbd", "mariadb-server")

    def make_data(self) -> None:
        command = [
            require_command("mariadb-install-db", "mariadb-server"), "--no-defaults",
            "--auth-root-authentication-method=normal", f"--user={getpass.getuser()}",
            f"--datadir={self.data}", "--skip-test-db",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=self.folder, env=clean_environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise Unavailable(f"mariadb-install-db: {(done.stderr or done.stdout).strip()[-300:]}")
        make_certificates(self.certificates)

    def launch(self) -> None:
        if not self.data.exists():
            self.make_data()
        start = self.folder / "start.sql"
        start.write_text(
            "CREATE DATABASE IF NOT EXISTS sessions CHARACTER SET utf8mb4;\n"
            f"CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON sessions.* TO 'app'@'%';\n"
        )
        settings = {
            "user": getpass.getuser(),
            "datadir": str(self.data),
            "port": str(self.port()),
            "bind-address": HOST,
            "socket": str(self.folder / "s"),
            "init-file": str(start),
            "skip-name-resolve": "1",
            "innodb-buffer-pool-size": "32M",
            "innodb-flush-log-at-trx-commit": "2",
            "max-connections": "200",
            "ssl-ca": str(self.certificates / "ca.crt"),
            "ssl-cert": str(self.certificates / "server.crt"),
            "ssl-key": str(self.certificates / "server.key"),
            **self.settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.spawn(self.program, "--no-defaults", *options)

    def ready(self) -> bool:
        # The server answers before it has run the init file, which makes this user.
        command = [
            require_command("mariadb", "mariadb-client"), "--no-defaults", "--host", HOST,
            "--port", str(self.port()), "--user=app", "--connect-timeout=2", "sessions",
            "--execute=SELECT 1",
        ]  # fmt: skip
        environment = clean_environment({"MYSQL_PWD": PASSWORD})
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    def exports(self) -> dict[str, str]:
        return {"MARIADB_URL": self.url, "MARIADB_CA": str(self.certificates / "ca.crt")}

    def set_time_zone(self, zone: str) -> bool:
        # It knows no names before its tables of time zones are filled.
        minutes = int(datetime.now(ZoneInfo(zone)).utcoffset().total_seconds()) // 60
        sign = "-" if minutes < 0 else "+"
        offset = f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        if self.settings.get("default-time-zone") != offset:
            self.settings["default-time-zone"] = offset
            self.restart()
        return True

    # ---- how to reach it

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    @property
    def url(self) -> str:
        """TLS is offered, not demanded: the authority stands in MARIADB_CA."""
        return f"mysql://app:{PASSWORD}@{HOST}:{self.port()}/sessions"
