"""Sessions in Elasticsearch or OpenSearch, through a client object of the application's or ours."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from . import _core, clients, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .elasticsearch_clients import Index, check_client, own_client, shared
from .legacy import COMMON, ORDER, bind, in_flask_session2_order

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_KEY_MAX = 512  # bytes
_BATCH = 1000
_NEVER = -2
_VERSION = struct.Struct(">qqq")  # sequence number, primary term, expiry


def _fits(key: str) -> bool:
    return clients.key_fits(key, _KEY_MAX) and len(key.encode()) <= _KEY_MAX


def _moment(unix_ms: int) -> str:
    """As Flask-Session2 writes it, and reads it: with microseconds and an offset."""
    return clients.to_utc(unix_ms).isoformat(timespec="microseconds") + "+00:00"


def _document(key: str, value: bytes, ttl_ms: int) -> dict[str, Any]:
    expiration = _moment(clients.now_ms() + ttl_ms)
    data = base64.b64encode(value).decode()
    return {"id": key, "val": {}, "expiration": expiration, "data": data}


def _line(key: str, version: bytes = b"") -> dict[str, Any]:
    """What an operation names its document by, and the version that it must have."""
    if not version:
        return {"_id": key}
    number, term, _ = _VERSION.unpack(version)
    return {"_id": key, "if_seq_no": number, "if_primary_term": term}


def _expires(source: Any) -> int:
    text = source["expiration"]
    if text is None:
        return _NEVER
    return clients.from_utc(datetime.fromisoformat(text.removesuffix("Z")))


def _value(source: Any) -> bytes:
    """The stored session; Flask-Session2 keeps its dict as it is."""
    data = source.get("data")
    if data is not None:
        return base64.b64decode(data, validate=True)
    return _core.encode(source["val"]) if isinstance(source["val"], dict) else b""


def _read(found: Mapping[str, Any]) -> Stored:
    """What a document holds, expired or not; an empty value when it is no session."""
    try:
        source = found["_source"]
        expires, value = _expires(source), _value(source)
    except (LookupError, AttributeError, TypeError, ValueError, OverflowError, RecursionError):
        expires, value = _NEVER, b""
    return value, _VERSION.pack(found["_seq_no"], found["_primary_term"], expires), expires


def _is_live(expires: int | None) -> bool:
    return expires == _NEVER or (expires or 0) > clients.now_ms()


def _attempts(timeout: float) -> Iterator[None]:
    """Once, and again until the time is over."""
    end = time.monotonic() + timeout
    yield
    while time.monotonic() < end:
        yield
    raise TimeoutError("the document changed at every attempt to write it")


class ElasticsearchStore:
    """The adapter (see contract.py): a session is a document ``{id, val, expiration, data}``.

    Documents are read by their id, which sees every acknowledged write; a version is the
    document's sequence number and primary term (and its expiry, which is checked here).
    client: gives the client of this process. The client's own timeouts apply.
    """

    name = "elasticsearch"
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_LISTABLE

    def __init__(self, client: Callable[[], Any], index: str, key_prefix: str = "") -> None:
        self._index = Index(client, index)
        self._prefix = key_prefix

    def load(self, key: str, timeout: float) -> Stored | None:
        found = self._index.get(key) if _fits(key) else None
        stored = None if found is None else _read(found)
        return stored if stored and _is_live(stored[2]) else None

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        if not _fits(key):
            clients.refuse_key(_KEY_MAX, "bytes")
        self._index.make()
        document = _document(key, value, ttl_ms)
        for _ in _attempts(timeout):
            [status] = self._index.write(("create", _line(key), document))
            if status == 404:
                raise OSError("there is no index for the sessions, and none may be made")
            if status < 300:
                return True
            found = self._index.get(key)
            if found is None:
                continue
            stored = _read(found)
            if _is_live(stored[2]):
                return False
            [status] = self._index.write(("index", _line(key, stored[1]), document))
            if status < 300:
                return True
        raise AssertionError

    def _change(
        self, key: str, expected: bytes, version: bytes, timeout: float, action: str, body: Any
    ) -> int | Stored:
        """Write, if the document still has the version, or another one with the same value."""
        if not _fits(key):
            return _core.GONE
        for _ in _attempts(timeout):
            if version and _is_live(_VERSION.unpack(version)[2]):
                [status] = self._index.write((action, _line(key, version), body))
                if status != 409:
                    return _core.OK if status < 300 else _core.GONE
            stored = self.load(key, timeout)
            if stored is None or not stored[0]:
                return _core.GONE
            if stored[0] != expected:
                return stored
            version = stored[1]
        raise AssertionError

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        document = _document(key, value, ttl_ms)
        return self._change(key, expected, version, timeout, "index", document)

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        changed = {"doc": {"expiration": _moment(clients.now_ms() + ttl_ms)}}
        answer = self._change(key, expected, version, timeout, "update", changed)
        return answer if isinstance(answer, int) else _core.CHANGED

    def remove(self, key: str, timeout: float) -> None:
        if _fits(key):
            self._index.write(("delete", _line(key), None))

    def purge(self, limit: int, timeout: float) -> int:
        now = {"lte": clients.now_ms(), "format": "epoch_millis"}
        expired = {
            "bool": {"filter": [{"range": {"expiration": now}}, {"exists": {"field": "id"}}]}
        }
        total = 0
        while total < limit:
            size = min(limit - total, _BATCH)
            found = self._index.search(query=expired, size=size, _source=False)
            # One that became live again meanwhile has another version.
            operations = [("delete", _line(hit["_id"], _read(hit)[1]), None) for hit in found]
            statuses = self._index.write(*operations) if operations else []
            deleted = statuses.count(200)
            total += deleted
            if len(found) < size or not deleted:
                break
        return total

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        # In the order of sequence numbers: what changes meanwhile comes again, at the end. They
        # are counted in each shard, so several documents may have the one that a page ends with.
        start = int(cursor or 0)
        later = {"range": {"_seq_no": {"gte": start}}}
        found = self._index.search(query=later, size=batch, sort=["_seq_no"])
        following = b""
        if len(found) == batch:
            last = found[-1]["sort"][0]
            if last == start:
                return self.scan(cursor, 2 * batch, timeout)
            following = b"%d" % last
            found = [hit for hit in found if hit["sort"][0] < last]
        rows: list[tuple[str, bytes, int | None]] = []
        for hit in found:
            value, _, expires = _read(hit)
            if value and _is_live(expires) and hit["_id"].startswith(self._prefix):
                rows.append((hit["_id"], value, expires))
        return following, rows


class ElasticsearchSession(ServerSideSession):
    """A session in Elasticsearch or OpenSearch."""


class ElasticsearchSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in an index of Elasticsearch or OpenSearch.

    client: a synchronous ``elasticsearch.Elasticsearch`` (version 8 or 9) or
    ``opensearchpy.OpenSearch``, a URL (``elasticsearch+https://``, ``opensearch+https://``), or
    a function without arguments that returns a client; None: one is made for host, an http://
    or https:// URL or a list of them (http://localhost:9200). A client that is given is used as
    it is, with its own timeouts (UserWarning when these are long). One that is made here gets
    SESSION_STORE_TIMEOUT (2 seconds), and each process has its own. No connection is made
    before the first session is needed. index: its name; a missing one is made by the first
    session. Further arguments as in ServerSideSessionInterface, which raises SessionConfigError
    for what is not accepted. Flask-Session2's arguments (client, host, index, key_prefix,
    use_signer, permanent) are taken as well. docs/backends/elasticsearch.md.
    """

    session_class = ElasticsearchSession

    @overload
    def __init__(
        self,
        app: Flask | None = None,
        client: Any = None,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
        sid_length: int = ...,
        serialization_format: str = ...,
        *,
        host: str | list[str] = ...,
        index: str = ...,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: Any,
        host: str | list[str],
        index: str,
        key_prefix: str,
        use_signer: bool = ...,
        permanent: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Flask-Session has no such class: text in second place is the host of Flask-Session2's.
        if in_flask_session2_order(args, ()):
            bind(type(self), ("client", "host", "index", *COMMON), args, kwargs)
        else:
            bind(type(self), ORDER, args, kwargs)
        app, client = kwargs.get("app"), kwargs.pop("client", None)
        key = "SESSION_ELASTICSEARCH_HOST"
        hosts = config.check(key, kwargs.pop("host", getattr(Defaults, key)))
        self.index: str = config.check(
            "SESSION_ELASTICSEARCH_INDEX",
            kwargs.pop("index", Defaults.SESSION_ELASTICSEARCH_INDEX),
        )
        if client is None or isinstance(client, str):
            timeout = config.read(app, "SESSION_STORE_TIMEOUT")
            places = [client] if client else [hosts] if isinstance(hosts, str) else hosts
            key = "SESSION_ELASTICSEARCH" if client else key
            self._client = clients.PerProcess(lambda: own_client(key, places, timeout)).get
        else:
            self._client = shared(check_client(clients.given(client)))
        _ = self.client
        super().__init__(**kwargs)

    @property
    def client(self) -> Any:
        """The client; one that was made here is another one in each process."""
        return self._client()

    def _open_store(self, key_prefix: str) -> _core.Store:
        return _core.Store.wrap(ElasticsearchStore(self._client, self.index, key_prefix))
