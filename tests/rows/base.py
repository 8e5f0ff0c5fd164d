"""What a row of the store tests is."""

from __future__ import annotations

import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from tests.services import Service, Services

Where = dict[str, str]
Settings = dict[str, Any]


class Row(ABC):
    """One backend as an application reaches it: SESSION_TYPE, the kind of client object, the
    server. The same tests run over every row.

    `where` says how to reach the server in plain text, so that another process can build the
    same configuration from it: `settings` is the only place where client objects are made.
    """

    name: ClassVar[str]
    """As the tests show it; begins with the SESSION_TYPE: `memcached-pymemcache`."""
    service: ClassVar[type[Service]]
    """The server; a row without one leaves it out."""
    marks: ClassVar[Sequence[Any]] = (pytest.mark.server,)
    tick_ms: ClassVar[int] = 1000
    """How coarse the stored expiry is."""
    max_value: ClassVar[int | None] = None
    """The size of a value that is refused with a clear error; None: 1 MiB and more are stored."""
    max_key: ClassVar[int | None] = None
    """The most characters of a key (prefix and id); a longer one is refused. None: hundreds go."""
    timeout: ClassVar[float] = 2
    """Seconds that `settings` lets a client object wait for an answer (a URL's client gets it as
    SESSION_STORE_TIMEOUT); a test may want less."""
    raced: ClassVar[bool | None] = False
    """Takes part in the races of several processes: one row for each backend and database. Not
    inherited by other rows. None: it cannot, since nothing lists its records."""
    slow_server: ClassVar[bool] = False
    """The server takes many seconds to start (a Java VM): in a short run it is started once, so
    nothing stops it."""
    changes: ClassVar[int] = 40
    """So many changes of one record does each of several threads make in a short run."""
    one_port: ClassVar[bool] = True
    """The server is reached on one TCP port, so that a proxy can stand in front of it."""
    round_trips: ClassVar[Mapping[str, int]] = {}
    """What an operation costs on the wire where that is not one: {"replace": 3}.
    "not_found": what a load that finds nothing costs in addition."""
    durable: ClassVar[bool] = False
    """What the server had stored is there again after its restart."""
    predecessors: ClassVar[Sequence[str]] = ()
    """Virtualenvs (tests/services/venvs.py) whose data this row shares."""
    returns: ClassVar[Sequence[str]] = ("fs08",)
    """Those that read plain data which was written here."""
    plain: ClassVar[bool] = False
    """The predecessors keep plain data only in this store."""
    endless: ClassVar[bool] = False
    """The predecessors store no expiry: the first read gives a session one."""
    legacy: ClassVar[str] = ""
    """Python code that, run in a predecessor's virtualenv with `where` and the dict `config`,
    configures its application for the same store."""

    def __init__(self, services: Services, own: bool = False) -> None:
        """Start the server, or one of this row's own (to be stopped, paused, counted)."""
        self.server = services.own(self.service) if own else services.start(self.service)
        self.where = self.reach()

    def reach(self) -> Where:
        """How to reach the server; the default is what the service exports."""
        return self.server.exports()

    @classmethod
    @abstractmethod
    def settings(cls, where: Where) -> Settings:
        """The application's configuration: SESSION_TYPE and what belongs to it, with a new client
        object. Called in every process that runs the application."""

    @classmethod
    def patience(cls) -> float:
        """Seconds after which an operation has failed when the server does not answer: (timeout +
        backoff) x (retries + 1)."""
        return cls.timeout

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        """When the record of this key (prefix and id) expires, Unix seconds, as another program
        that reads the store sees it; None: the store does not show it."""
        return None

    @classmethod
    def keys(cls, where: Where, prefix: str) -> list[str]:
        """The ids of all records under this prefix, for a store that cannot list them itself."""
        raise NotImplementedError(f"{cls.name} does not list its keys")

    def through(self, port: int) -> Where:
        """`where` with the server's port replaced, for a proxy in front of it."""
        own = str(self.server.port())
        return {name: value.replace(own, str(port)) for name, value in self.where.items()}


class FileRow(Row):
    """A row without a server: `where` names a folder of its own."""

    marks = ()
    one_port = False

    def __init__(self, services: Services, own: bool = False) -> None:
        self.where = {"FOLDER": tempfile.mkdtemp(dir=services.folder)}


def new_prefix() -> str:
    """A key prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}:"


def with_timeout(row: type[Row], seconds: float) -> type[Row]:
    """The same row, whose client waits so long."""
    return type(row.__name__, (row,), {"timeout": seconds})


def configuration(row: type[Row], where: Mapping[str, str], **more: Any) -> Settings:
    """A whole Flask configuration for a row, with a prefix of its own."""
    return {
        "SECRET_KEY": "a secret of the tests",
        "SESSION_KEY_PREFIX": new_prefix(),
        "SESSION_STORE_TIMEOUT": row.timeout,
        **row.settings(dict(where)),
        **more,
    }
