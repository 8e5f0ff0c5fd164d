"""The client libraries of memcached: how to open a connection of the store's own with the settings
of a client object, and the four commands that the store needs.

A connection is used by one thread at a time and never shared with the application: so it can be
kept from unpickling, and nothing is changed on the application's client. It has
``gets(key) -> (value, cas) | None``, ``load(key)``, the same or cheaper with 0 as cas,
``add(key, value, exptime) -> bool``, ``cas(key, value, cas, exptime) -> bool`` (False: not stored,
whatever the reason), ``delete(key)`` and ``close()``. Any failure is an exception, a value that the
server finds too large is TooLarge. A value that is no plain or compressed bytes is given as b"".
"""

from __future__ import annotations

import copy
import sys
import zlib
from collections.abc import Callable
from typing import Any

from . import _core, clients

ACCEPTED = (
    "a client object of pylibmc, python-memcached, pymemcache (Client, PooledClient, HashClient)"
    " or libmc (Client), a memcached:// URL, or a function without arguments that returns such a"
    " client"
)
_COMPRESSED, _TEXT = 8, 16  # flags of python-memcached, pymemcache and pylibmc


class TooLarge(_core.SessionStoreError):
    """The server does not store a value of this size."""


def _plain(value: bytes, flags: int, compressed: int, known: int = 0) -> bytes:
    """The bytes that were stored; b"" where the flags say that they are a pickle or a number."""
    if flags & ~(compressed | known):
        return b""
    try:
        return zlib.decompress(value) if flags & compressed else value
    except zlib.error:
        return b""


# ---- pylibmc ------------------------------------------------------------------------------------


class Pylibmc:
    """A clone of the client, which is not thread-safe itself."""

    module = "pylibmc"
    needs = ("clone", "deserialize")

    def __init__(self, client: Any) -> None:
        pylibmc = sys.modules["pylibmc"]
        kind = type("Connection", (type(client),), {"deserialize": _deserialize})
        self._client = client.clone()
        self._client.__class__ = kind
        # Whether deserialize is overridden is looked up when a client is made. That of a
        # client without servers fails after it, and leaves everything else as it was.
        try:
            pylibmc.Client.__base__.__init__(self._client, servers=[], binary=client.binary)
        except pylibmc.Error:
            pass
        self._client.behaviors = {
            "cas": True,
            "tcp_nodelay": True,
            "_noreply": False,
            "buffer_requests": False,
            "auto_eject": False,
            "retry_timeout": 2,
        }

    def gets(self, key: str) -> tuple[bytes, int] | None:
        # Of text pylibmc makes bytes that it gives back before it is done with them: another
        # thread's allocation would become the key that is sent. These stay until it returns.
        name = key.encode()
        try:
            value, cas = self._client.gets(name)
        except sys.modules["pylibmc"].Error as error:
            if "decompress" in str(error):  # it was not compressed by a library
                return b"", 0
            raise
        if cas is not None:
            return value, cas
        # pylibmc gives a timeout or a lost connection out as a miss; but then the server is
        # disabled until retry_timeout, and the next command says so.
        if self._client.get(name) is not None:
            raise OSError("pylibmc found nothing, and then something")
        return None

    load = gets

    def add(self, key: str, value: bytes, exptime: int) -> bool:
        return self._stored(lambda: self._client.add(key, value, time=exptime))

    def cas(self, key: str, value: bytes, cas: int, exptime: int) -> bool:
        return self._stored(lambda: self._client.cas(key, value, cas, time=exptime))

    def _stored(self, command: Callable[[], bool]) -> bool:
        pylibmc = sys.modules["pylibmc"]
        try:
            return command()
        except pylibmc.NotFound:
            return False
        except pylibmc.TooBig as error:
            raise TooLarge from error

    def delete(self, key: str) -> None:
        name = key.encode()
        self._client.delete(name)

    def close(self) -> None:
        self._client.disconnect_all()

    @staticmethod
    def make(server: tuple[str, int] | str, timeout: float) -> Any:
        ms = max(1, round(timeout * 1000))
        limits = {"connect_timeout": ms, "_poll_timeout": ms}
        limits |= {"send_timeout": ms * 1000, "receive_timeout": ms * 1000}
        spec = server if isinstance(server, str) else "{}:{}".format(*_bracketed(server))
        return sys.modules["pylibmc"].Client([spec], behaviors=limits)

    @staticmethod
    def seconds(client: Any) -> float | None:
        limits = client.behaviors
        longest: int = max(limits["_poll_timeout"], limits["connect_timeout"])
        return longest / 1000


def _deserialize(self: Any, value: bytes, flags: int) -> bytes:
    # decompressed already
    return _plain(bytes(value), flags & ~_COMPRESSED, 0, _TEXT)


def _bracketed(server: tuple[str, int]) -> tuple[str, int]:
    host, port = server
    return f"[{host}]" if ":" in host else host, port


# ---- python-memcached ---------------------------------------------------------------------------


class _Cas:
    """In place of the client's table of cas values: the one that was read last or is to be sent.
    With a table, cas() of a key that is not in it would be a plain set."""

    def __init__(self, cas: int | None = None) -> None:
        self.cas = cas

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: object) -> int | None:
        return self.cas

    def __setitem__(self, key: object, cas: int) -> None:
        self.cas = cas


class PythonMemcached:
    """Hosts (sockets) of its own for a client that keeps its state by thread. Unlike the
    client, a host that fails raises, is tried again at once, and never hands its keys to another:
    there, a session that was removed meanwhile would come back with the first one."""

    module = "memcache"
    needs = ("gets", "key_encoder")

    def __init__(self, client: Any) -> None:
        memcache = sys.modules["memcache"]
        # Its state is another one in each thread, so that it is set before each command.
        self._client = _memcache_client(memcache)([], cache_cas=True, server_max_value_length=0)
        self._encode = client.key_encoder
        self._hosts = []
        for host in client.servers:
            own = copy.copy(host)
            own.__class__ = type("Host", (_MemcacheHost, type(host)), {})
            own.socket, own.buffer, own.deaduntil = None, b"", 0
            self._hosts.append(own)

    def _bound(self, cas: _Cas) -> Any:
        client = self._client
        client.servers, client.cas_ids, client.key_encoder = self._hosts, cas, self._encode
        client._init_buckets()
        return client

    def gets(self, key: str) -> tuple[bytes, int] | None:
        cas = _Cas()
        value = self._bound(cas).gets(key)
        return None if cas.cas is None else (value, cas.cas)

    load = gets

    def add(self, key: str, value: bytes, exptime: int) -> bool:
        return bool(self._bound(_Cas()).add(key, value, time=exptime))

    def cas(self, key: str, value: bytes, cas: int, exptime: int) -> bool:
        return bool(self._bound(_Cas(cas)).cas(key, value, time=exptime))

    def delete(self, key: str) -> None:
        self._bound(_Cas()).delete(key)  # 0 is also the answer when nothing was there

    def close(self) -> None:
        for host in self._hosts:
            host.close_socket()

    @staticmethod
    def make(server: tuple[str, int] | str, timeout: float) -> Any:
        if isinstance(server, str):
            spec = f"unix:{server}"
        else:
            family = "inet6" if ":" in server[0] else "inet"
            spec = "{}:{}:{}".format(family, *_bracketed(server))
        return sys.modules["memcache"].Client([spec], socket_timeout=timeout)

    @staticmethod
    def seconds(client: Any) -> float | None:
        limit: float | None = client.socket_timeout
        return limit


class _MemcacheHost:
    def mark_dead(self: Any, reason: Any) -> None:
        self.close_socket()
        raise reason if isinstance(reason, OSError) else OSError(f"memcached: {reason}")

    def readline(self: Any, raise_exception: bool = False) -> Any:
        line = super().readline(raise_exception)  # type: ignore[misc]
        if line.startswith((b"SERVER_ERROR", b"CLIENT_ERROR", b"ERROR")):
            if b"too large" in line:
                raise TooLarge
            raise OSError("memcached: " + line.decode("ascii", "replace"))
        return line


def _memcache_client(memcache: Any) -> Any:
    class Connection(memcache.Client):  # type: ignore[misc]
        def _recv_value(self, server: Any, flags: int, length: int) -> bytes:
            value = super()._recv_value(server, 0, length)
            return _plain(value, flags, _COMPRESSED, _TEXT)

    return Connection


# ---- pymemcache ---------------------------------------------------------------------------------


class Pymemcache:
    """A client with the settings of a Client or PooledClient."""

    module = "pymemcache"
    needs = ("gets", "cas")

    def __init__(self, client: Any) -> None:
        if hasattr(client, "client_pool"):
            self._client = client._create_client()
        else:
            self._client = copy.copy(client)
            self._client.sock = None
        self._client.serde = _serde(self._client.serde)
        # Else Nagle's algorithm and the server's delayed acknowledgement wait for each other.
        self._client.no_delay = True
        self._client.ignore_exc = False

    def gets(self, key: str) -> tuple[bytes, int] | None:
        value, cas = self._client.gets(key)
        if cas is None:
            return None
        # a serializer of the application's own may give anything
        return (value if isinstance(value, bytes) else b"", int(cas))

    load = gets

    def add(self, key: str, value: bytes, exptime: int) -> bool:
        return self._stored(
            lambda: self._client.add(key, value, expire=exptime, noreply=False) is True
        )

    def cas(self, key: str, value: bytes, cas: int, exptime: int) -> bool:
        # None: not found; False: another value
        return self._stored(
            lambda: self._client.cas(key, value, cas, expire=exptime, noreply=False) is True
        )

    def _stored(self, command: Callable[[], bool]) -> bool:
        try:
            return command()
        except sys.modules["pymemcache"].MemcacheServerError as error:
            if b"too large" in error.args[0]:
                raise TooLarge from error
            raise

    def delete(self, key: str) -> None:
        self._client.delete(key, noreply=False)

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def make(server: tuple[str, int] | str, timeout: float) -> Any:
        return sys.modules["pymemcache"].PooledClient(
            server, timeout=timeout, connect_timeout=timeout, no_delay=True, default_noreply=False
        )

    @staticmethod
    def seconds(client: Any) -> float | None:
        limits = client.default_kwargs if hasattr(client, "default_kwargs") else vars(client)
        both = (limits["timeout"], limits["connect_timeout"])
        return None if None in both else max(both)


class PymemcacheHash:
    """One connection for each server of a HashClient, which gives a key to the server that the
    client gives it to while all are up. See PythonMemcached for why there is no other server."""

    module = "pymemcache"
    needs = Pymemcache.needs
    make = Pymemcache.make
    seconds = Pymemcache.seconds

    def __init__(self, client: Any) -> None:
        self._nodes = {name: Pymemcache(node) for name, node in client.clients.items()}
        self._hasher = copy.deepcopy(client.hasher)

    def __getattr__(self, command: str) -> Any:
        def run(key: str, *args: Any) -> Any:
            return getattr(self._nodes[self._hasher.get_node(key)], command)(key, *args)

        return run

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()


class _Bytes:
    """In place of pymemcache's serializer that unpickles."""

    def serialize(self, key: Any, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def deserialize(self, key: Any, value: bytes, flags: int) -> bytes:
        # CompressedSerde leaves its flag when it has decompressed
        return _plain(value, flags & ~_COMPRESSED, 0, _TEXT)


def _serde(serde: Any) -> Any:
    """The serializer, kept from unpickling. One of the application's own stays as it is."""
    library = clients.require("pymemcache.serde", "memcached")
    if isinstance(serde, library.CompressedSerde):
        serde = copy.copy(serde)
        serde._serde = _serde(serde._serde)
        return serde
    if isinstance(serde, library.PickleSerde):
        return _Bytes()
    functions = (library._python_memcache_serializer, library.python_memcache_deserializer)
    given = (getattr(serde, name, None) for name in ("serialize", "deserialize"))
    if any(getattr(function, "func", function) in functions for function in given):
        return _Bytes()
    return serde


# ---- libmc --------------------------------------------------------------------------------------


class Libmc:
    """Another client with the arguments that the client was made with, except that it waits for
    answers, that its keys stay with their server, and that a value is one item.

    libmc unpickles in the command that reads the cas value, so the flags are read before, by a
    command of their own."""

    module = "libmc"
    needs = ("get_raw", "clear_thread_ident")

    def __init__(self, client: Any, timeout: float) -> None:
        libmc = sys.modules["libmc"]
        args = list(client.__reduce__()[1])
        for place in (_LIBMC_SPLIT, _LIBMC_NOREPLY, _LIBMC_FAILOVER):
            args[place] = False
        self._client = type(client)(*args)
        ms = max(1, round(timeout * 1000))
        self._client.config(libmc.MC_POLL_TIMEOUT, ms)
        self._client.config(libmc.MC_CONNECT_TIMEOUT, ms)

    def _checked(self, answer: Any) -> Any:
        if self._client.get_last_error():
            raise OSError(f"libmc: {self._client.get_last_strerror()}")
        return answer

    def load(self, key: str) -> tuple[bytes, int] | None:
        value, flags = self._checked(self._client.get_raw(key))
        return None if value is None else (_plain(value, flags, _LIBMC_COMPRESSED), 0)

    def gets(self, key: str) -> tuple[bytes, int] | None:
        held = self.load(key)
        if not held or not held[0]:
            return held
        answer = self._checked(self._client.gets(key))
        if answer is None:
            return None
        value, cas = answer
        return (value if isinstance(value, bytes) else b"", cas)

    def add(self, key: str, value: bytes, exptime: int) -> bool:
        return self._stored(value, lambda: self._client.add(key, value, exptime))

    def cas(self, key: str, value: bytes, cas: int, exptime: int) -> bool:
        return self._stored(value, lambda: self._client.cas(key, value, exptime, cas))

    def _stored(self, value: bytes, command: Callable[[], bool]) -> bool:
        self._client.clear_thread_ident()  # the store uses it in one thread at a time
        stored = command()
        # What the server said is on standard error only; a server that answers is not down.
        if self._client.get_last_error() and len(value) > _LIBMC_LARGE and self._client.version():
            raise TooLarge
        return bool(self._checked(stored))

    def delete(self, key: str) -> None:
        self._client.clear_thread_ident()
        self._checked(self._client.delete(key))

    def close(self) -> None:
        self._client.quit()

    @staticmethod
    def make(server: tuple[str, int] | str, timeout: float) -> Any:
        spec = server if isinstance(server, str) else "{}:{}".format(*server)
        return sys.modules["libmc"].Client([spec])

    @staticmethod
    def seconds(client: Any) -> float | None:
        return 0  # SESSION_STORE_TIMEOUT


# places in its arguments
_LIBMC_SPLIT, _LIBMC_NOREPLY, _LIBMC_PREFIX, _LIBMC_FAILOVER = 1, 3, 4, 6
_LIBMC_COMPRESSED = 16
_LIBMC_LARGE = 500_000  # bytes; no server has a smaller limit unless it was told to


# ---- which one ----------------------------------------------------------------------------------

#: In the order in which they are tried when none is given, Flask-Session's.
KINDS: tuple[tuple[Any, str], ...] = (
    (Pylibmc, "Client"),
    (PythonMemcached, "Client"),
    (PymemcacheHash, "HashClient"),
    (Pymemcache, "Client"),
    (Pymemcache, "PooledClient"),
    (Libmc, "Client"),
)


def kind_of(client: Any) -> Any:
    """The class above that opens connections for this client; None if there is none."""
    for kind, name in KINDS:
        module = sys.modules.get(kind.module)
        if module is not None and isinstance(client, getattr(module, name)):
            return kind
    return None


def opener(client: Any, timeout: float) -> Callable[[], Any]:
    """A function that opens a connection like this client's; SessionConfigError when its library
    is too old for that."""
    kind = kind_of(client)
    if not all(hasattr(client, name) for name in kind.needs):
        raise _core.SessionConfigError(
            f"SESSION_MEMCACHED needs a newer version of the package that {kind.module} is from"
        )
    return (lambda: Libmc(client, timeout)) if kind is Libmc else (lambda: kind(client))


def prefix_length(client: Any) -> int:
    """Bytes that the client itself puts before each key."""
    kind = kind_of(client)
    if kind is Libmc:
        return len(client.__reduce__()[1][_LIBMC_PREFIX] or b"")
    return len(getattr(client, "key_prefix", b""))


def make(server: tuple[str, int] | str, timeout: float) -> Any:
    """A client of the first library that is installed, for (host, port) or a socket's path."""
    for kind, _ in KINDS:
        try:
            clients.require(kind.module, "memcached")
        except _core.SessionConfigError:
            continue
        return kind.make(server, timeout)
    raise _core.SessionConfigError(
        'SESSION_TYPE = "memcached" needs a client library, such as pymemcache:'
        " pip install 'cession[memcached]'"
    )
