"""Servers of the MongoDB protocol: mongo-java-server and FerretDB. Neither is a mongod, which no
package registry has."""

from __future__ import annotations

import shutil
from pathlib import Path

from .base import HOST, Service, Unavailable, tcp_answers
from .builds import built, fetch_jars, java_program, run

JARS = "de.bwaldvogel:mongo-java-server:1.47.0"
LAUNCHER = Path(__file__).with_name("Mongo.java")
FERRETDB = "v1.24.2"
FERRETDB_LAUNCHER = Path(__file__).with_name("ferretdb.go")


class MongoDBService(Service):
    """mongo-java-server: in memory, a restarted one is empty. It has unique and TTL indexes and
    no sessions, transactions or passwords. ttl_seconds: how often it deletes what has expired,
    by default never while tests run."""

    name = "mongodb"
    seconds_to_start = 60

    def __init__(self, folder: Path, ttl_seconds: float = 1_000_000) -> None:
        super().__init__(folder)
        self.ttl_seconds = ttl_seconds

    def prepare(self) -> None:
        self.java = java_program("java")
        self.home = built("mongodb", JARS + LAUNCHER.read_text(), self.build)

    @staticmethod
    def build(folder: Path) -> None:
        fetch_jars(folder, JARS)
        compiler = java_program("javac")
        run([compiler, "-nowarn", "-cp", "lib/*", "-d", "classes", str(LAUNCHER)], folder)

    def launch(self) -> None:
        classes = f"{self.home}/classes:{self.home}/lib/*"
        command = (self.java, "-Xmx256m", "-XX:+UseSerialGC", "-cp", classes, "Mongo")
        self.spawn(*command, str(self.port()), str(self.ttl_seconds))

    def ready(self) -> bool:
        return tcp_answers(self.port())

    @property
    def url(self) -> str:
        return f"mongodb://{HOST}:{self.port()}/"

    def exports(self) -> dict[str, str]:
        return {"MONGODB_URL": self.url}


class FerretDBService(Service):
    """FerretDB 1 over SQLite files: it refuses TTL indexes."""

    name = "ferretdb"
    seconds_to_start = 30

    def prepare(self) -> None:
        self.home = built("ferretdb", FERRETDB + FERRETDB_LAUNCHER.read_text(), self.build)

    @staticmethod
    def build(folder: Path) -> None:
        go = shutil.which("go")
        if go is None:
            raise Unavailable("go is not installed, which builds FerretDB")
        shutil.copy(FERRETDB_LAUNCHER, folder / "main.go")
        (folder / "go.mod").write_text(
            f"module tests/ferretdb\n\ngo 1.24\n\nrequire github.com/FerretDB/FerretDB {FERRETDB}\n"
        )
        run([go, "mod", "tidy"], folder)
        run([go, "build", "-o", "ferretdb", "."], folder)

    def launch(self) -> None:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        self.spawn(str(self.home / "ferretdb"), f"{HOST}:{self.port()}", str(data))

    def ready(self) -> bool:
        return tcp_answers(self.port())

    @property
    def url(self) -> str:
        return f"mongodb://{HOST}:{self.port()}/"

    def exports(self) -> dict[str, str]:
        return {"FERRETDB_URL": self.url}
