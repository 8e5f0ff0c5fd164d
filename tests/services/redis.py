"""Redis and Valkey: alone, with TLS, behind Sentinel, as a Cluster."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from signal import SIGKILL
from urllib.parse import quote

from .base import HOST, Service, require_command, signal_processes, wait_until
from .certificates import make_certificates

PASSWORD = "sessions-secret"
# What sessions need and nothing else; the keys are those of the default prefix and of the tests.
ACL = (
    "~session:* ~t????????????:* -@all +@connection"
    " +get +set +del +pttl +pexpire +eval +evalsha +scan"
)
Settings = Mapping[str, str]


def kill_on(service: Service, port: int) -> None:
    """Kill the one process of a service that listens on this port."""
    info = ask(port, "INFO", "server")
    number = int(info.partition("process_id:")[2].split()[0])
    signal_processes([process for process in service.processes if process[0] == number], SIGKILL)


def ask(port: int, *words: str, tls: ssl.SSLContext | None = None) -> str:
    """The raw answer to a command, one or more lines; empty when there is none."""
    request = b"*%d\r\n" % len(words)
    request += b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            speaking = tls.wrap_socket(connection, server_hostname=HOST) if tls else connection
            with speaking:
                speaking.sendall(request)
                return speaking.recv(65536).decode(errors="replace")
    except OSError:
        return ""


def run(service: Service, command: str, name: str, settings: Settings, *options: str) -> None:
    """Start a server of this configuration, in a folder of its own."""
    folder = service.folder / name
    folder.mkdir(exist_ok=True)
    config = folder / "server.conf"
    lines = {"bind": HOST, "dir": str(folder), **settings}
    config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    service.spawn(command, str(config), *options)


class RedisService(Service):
    """On TCP and a unix socket, with an ACL user `app` who may do what sessions need. Of a
    restarted one the data are kept only with the setting `appendonly yes`."""

    name = "redis"

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        super().__init__(folder)
        self.settings = dict(settings or {})

    def prepare(self) -> None:
        self.command = require_command("redis-server", "redis-server")

    def launch(self) -> None:
        settings = {
            "port": str(self.port()),
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "777",
            "save": '""',
            "enable-debug-command": "local",
            "user": f"app on >{PASSWORD} {ACL}",
            **self.settings,
        }
        run(self, self.command, "redis", settings)

    def ready(self) -> bool:
        return ask(self.port(), "PING").startswith("+PONG")

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


class ValkeyService(RedisService):
    """In Debian 12 only the backports have it."""

    name = "valkey"

    def prepare(self) -> None:
        self.command = require_command("valkey-server", "valkey-server", backports=["bookworm"])

    def exports(self) -> dict[str, str]:
        return {"VALKEY_URL": self.url}


class RedisTlsService(Service):
    """TLS only, with a password; a client needs a certificate."""

    name = "redis_tls"

    def prepare(self) -> None:
        self.command = require_command("redis-server", "redis-server")

    @property
    def certificates(self) -> Path:
        return self.folder / "certificates"

    def launch(self) -> None:
        make_certificates(self.certificates)
        settings = {
            "port": "0",
            "tls-port": str(self.port()),
            "tls-cert-file": str(self.certificates / "server.crt"),
            "tls-key-file": str(self.certificates / "server.key"),
            "tls-ca-cert-file": str(self.certificates / "ca.crt"),
            "tls-auth-clients": "yes",
            "requirepass": PASSWORD,
            "save": '""',
        }
        run(self, self.command, "redis", settings)

    def ready(self) -> bool:
        tls = ssl.create_default_context(cafile=str(self.certificates / "ca.crt"))
        tls.load_cert_chain(self.certificates / "client.crt", self.certificates / "client.key")
        return ask(self.port(), "PING", tls=tls).startswith("-NOAUTH")

    def exports(self) -> dict[str, str]:
        files = {
            "ssl_ca_certs": "ca.crt",
            "ssl_certfile": "client.crt",
            "ssl_keyfile": "client.key",
        }
        query = "&".join(
            f"{name}={quote(str(self.certificates / file), safe='')}"
            for name, file in files.items()
        )
        return {"REDIS_TLS_URL": f"rediss://:{PASSWORD}@{HOST}:{self.port()}/0?{query}"}


class RedisSentinelService(Service):
    """A master, its replica and three sentinels, which take two to agree. A restart puts the
    master back to the first port."""

    name = "redis_sentinel"
    seconds_to_start = 40
    master = "mymaster"
    _sentinels = ("sentinel0", "sentinel1", "sentinel2")

    def prepare(self) -> None:
        self.command = require_command("redis-server", "redis-server")

    def launch(self) -> None:
        quick = {"save": '""', "repl-diskless-sync-delay": "0"}
        run(self, self.command, "master", {"port": str(self.port()), **quick})
        replica = {"port": str(self.port("replica")), "replicaof": f"{HOST} {self.port()}"}
        run(self, self.command, "replica", replica | quick)
        # A sentinel that is first does not know of the replica for its first ten seconds.
        if not _wait(
            self,
            lambda: "master_link_status:up" in ask(self.port("replica"), "INFO", "replication"),
        ):
            return
        for name in self._sentinels:
            settings = {
                "port": str(self.port(name)),
                "sentinel monitor": f"{self.master} {HOST} {self.port()} 2",
                "sentinel down-after-milliseconds": f"{self.master} 800",
                "sentinel failover-timeout": f"{self.master} 3000",
            }
            run(self, self.command, name, settings, "--sentinel")

    def ready(self) -> bool:
        return all(
            ask(self.port(name), "SENTINEL", "CKQUORUM", self.master).startswith("+OK 3")
            and str(self.port("replica"))
            in ask(self.port(name), "SENTINEL", "REPLICAS", self.master)
            for name in self._sentinels
        )

    @property
    def places(self) -> str:
        """The sentinels."""
        return ",".join(f"{HOST}:{self.port(name)}" for name in self._sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.places}/{self.master}/0"

    def exports(self) -> dict[str, str]:
        return {
            "REDIS_SENTINELS": self.places,
            "REDIS_SENTINEL_MASTER": self.master,
            "REDIS_SENTINEL_URL": self.url,
        }

    def kill_master(self, port: int) -> None:
        """Kill the node on this port; its replica takes over after about two seconds."""
        kill_on(self, port)


class RedisClusterService(Service):
    """Three masters, each with a replica. A restarted one is the same cluster without its data."""

    name = "redis_cluster"
    seconds_to_start = 40
    _masters = ("tcp", "master1", "master2")
    _replicas = ("replica0", "replica1", "replica2")

    def prepare(self) -> None:
        self.command = require_command("redis-server", "redis-server")

    def launch(self) -> None:
        nodes = (*self._masters, *self._replicas)
        complete = self.folder / "complete"
        for name in nodes:
            if not complete.exists():
                shutil.rmtree(self.folder / name, ignore_errors=True)
            settings = {
                "port": str(self.port(name)),
                "cluster-port": str(self.port(f"{name} bus")),
                "cluster-enabled": "yes",
                "cluster-node-timeout": "1000",
                "repl-diskless-sync-delay": "0",
                "save": '""',
            }
            run(self, self.command, name, settings)
        started = _wait(
            self, lambda: all(ask(self.port(name), "PING").startswith("+PONG") for name in nodes)
        )
        if started and not complete.exists() and self._make_cluster(nodes):
            complete.touch()

    def _make_cluster(self, nodes: tuple[str, ...]) -> bool:
        first = self.port()
        for number, name in enumerate(nodes):
            ask(self.port(name), "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            if name != "tcp":
                bus = str(self.port(f"{name} bus"))
                ask(first, "CLUSTER", "MEET", HOST, str(self.port(name)), bus)
        bounds = (0, 5461, 10923, 16384)
        for number, name in enumerate(self._masters):
            slots = (str(bounds[number]), str(bounds[number + 1] - 1))
            ask(self.port(name), "CLUSTER", "ADDSLOTSRANGE", *slots)
        met = _wait(
            self,
            lambda: all(
                "cluster_known_nodes:6" in ask(self.port(name), "CLUSTER", "INFO") for name in nodes
            ),
        )
        return met and all(
            _wait(self, partial(self._replicate, self.port(name), self.port(master)))
            for name, master in zip(self._replicas, self._masters, strict=True)
        )

    @staticmethod
    def _replicate(replica: int, master: int) -> bool:
        node = (ask(master, "CLUSTER", "MYID").split() or [""])[-1]
        return ask(replica, "CLUSTER", "REPLICATE", node).startswith("+OK")

    def ready(self) -> bool:
        return all(
            "cluster_state:ok" in ask(self.port(name), "CLUSTER", "INFO")
            for name in (*self._masters, *self._replicas)
        ) and all(
            "master_link_status:up" in ask(self.port(name), "INFO", "replication")
            for name in self._replicas
        )

    @property
    def url(self) -> str:
        return f"redis+cluster://{HOST}:{self.port()},{HOST}:{self.port('master1')}"

    def exports(self) -> dict[str, str]:
        return {
            "REDIS_CLUSTER_URL": f"redis://{HOST}:{self.port()}",
            "REDIS_CLUSTER_STORE": self.url,
        }

    def kill_master(self, port: int) -> None:
        """Kill the node on this port; its replica takes over after about two seconds."""
        kill_on(self, port)


def _wait(service: Service, until: Callable[[], bool]) -> bool:
    """Whether it became so; at once not when a process of the service has died, as it does when
    its port was taken meanwhile."""
    return wait_until(until, 20, service.alive)
