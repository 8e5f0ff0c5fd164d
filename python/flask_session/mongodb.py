"""Sessions in MongoDB, through a PyMongo client of the application's or ours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from . import _core, clients, config
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import COMMON, ORDER, bind, in_flask_session2_order

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_ACCEPTED = (
    "a synchronous pymongo.MongoClient, a mongodb:// URL, or a function without arguments that"
    " returns such a client"
)
_SCHEMES = ("mongodb:", "mongodb+srv:")
# A document holds 16 MiB, and so does a command: replace sends the old value and the new one.
_SIZE_MAX = 16 * 1024 * 1024 - 16_384
_VALUE_MAX = _SIZE_MAX // 2
_NAMES = ("SESSION_MONGODB_DB", "SESSION_MONGODB_COLLECT")
_logger = logging.getLogger("flask_session")


class MongoDBStore:
    """The adapter (see contract.py): a value is a document ``{id, val, expiration}``, as the
    predecessors have it. Ours have the id as their ``_id`` as well, so that two of one id
    cannot be, whatever indexes the server allows. Reads ask the primary, whatever the client
    prefers. client: gives the client of this process."""

    name = "mongodb"
    # Whether the server deletes what has expired is known only once it was asked for the index.
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_LISTABLE

    def __init__(
        self, client: Callable[[], Any], db: str, collection: str, key_prefix: str = ""
    ) -> None:
        self._client, self._db, self._name = client, db, collection
        self._prefix = key_prefix
        self._errors = clients.require("pymongo.errors", "mongodb")
        # Milliseconds are read and written as such: no time zone anywhere.
        self._date = clients.require("bson.datetime_ms", "mongodb").DatetimeMS
        options = clients.require("bson.codec_options", "mongodb")
        self._options = {
            "codec_options": options.CodecOptions(
                datetime_conversion=options.DatetimeConversion.DATETIME_MS
            ),
            "read_preference": clients.require("pymongo", "mongodb").ReadPreference.PRIMARY,
            # What the primary has acknowledged is seen, also where w=1.
            "read_concern": clients.require("pymongo.read_concern", "mongodb").ReadConcern("local"),
        }
        self._opened: tuple[Any, Any] = (None, None)
        self._indexed = False
        self._unique = True

    def _collection(self) -> Any:
        client = self._client()
        known, collection = self._opened
        if known is not client:
            collection = client[self._db][self._name].with_options(**self._options)
            self._opened = (client, collection)
        return collection

    def _index(self, collection: Any, field: str, **options: Any) -> bool:
        """Make an index, if it is not there; a server or a role that refuses is put up with."""
        try:
            collection.create_index(field, **options)
        except self._errors.PyMongoError as error:
            if not isinstance(error, self._errors.OperationFailure) and not error.timeout:
                raise
            _logger.warning(
                "the index on %s of the sessions in MongoDB could not be made (%s, code %s);"
                " docs/backends/mongodb.md says what to do",
                field,
                type(error).__name__,
                getattr(error, "code", None),
            )
            return False
        return True

    def _make_indexes(self, collection: Any) -> None:
        self._unique = self._index(collection, "id", unique=True)
        self._index(collection, "expiration", expireAfterSeconds=0)
        self._indexed = True

    def _live(self, key: str, value: bytes) -> dict[str, Any]:
        """The filter for the live document with this value."""
        after_now = {"$gt": self._date(clients.now_ms())}
        return {"id": key, "val": value, "$or": [{"expiration": None}, {"expiration": after_now}]}

    def _check_size(self, value: bytes, expected: bytes = b"") -> None:
        if len(value) > _VALUE_MAX or len(value) + len(expected) > _SIZE_MAX:
            raise ValueError(
                f"a session in MongoDB can have {_VALUE_MAX} bytes, this one has {len(value)}"
            )

    def _stored(self, document: Any) -> Stored | None:
        value, expires = document.get("val"), document.get("expiration")
        if type(value) is not bytes or not isinstance(expires, self._date | None):
            return b"", b"", None
        if expires is None:
            return value, b"", -2
        return (value, b"", int(expires)) if int(expires) > clients.now_ms() else None

    def load(self, key: str, timeout: float) -> Stored | None:
        document = self._collection().find_one({"id": key}, {"val": 1, "expiration": 1})
        return None if document is None else self._stored(document)

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        self._check_size(value)
        collection = self._collection()
        if not self._indexed:
            self._make_indexes(collection)
        if not self._unique and self.load(key, timeout) is not None:
            return False  # of a predecessor's, whose _id is another
        now = clients.now_ms()
        record = {"val": value, "expiration": self._date(now + ttl_ms)}
        try:
            collection.update_one(
                {"id": key, "expiration": {"$lte": self._date(now)}},
                {"$set": record, "$setOnInsert": {"_id": key}},
                upsert=True,
            )
        except self._errors.DuplicateKeyError:
            return False
        return True

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        self._check_size(value, expected)
        record = {"val": value, "expiration": self._date(clients.now_ms() + ttl_ms)}
        done = self._collection().update_one(self._live(key, expected), {"$set": record})
        if done.matched_count:
            return _core.OK
        stored = self.load(key, timeout)
        return stored if stored and stored[0] else _core.GONE

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        expires = {"expiration": self._date(clients.now_ms() + ttl_ms)}
        done = self._collection().update_one(self._live(key, expected), {"$set": expires})
        if done.matched_count:
            return _core.OK
        stored = self.load(key, timeout)
        return _core.CHANGED if stored and stored[0] else _core.GONE

    def remove(self, key: str, timeout: float) -> None:
        self._collection().delete_many({"id": key})

    def purge(self, limit: int, timeout: float) -> int:
        collection = self._collection()
        expired = {"expiration": {"$lte": self._date(clients.now_ms())}, "id": {"$type": "string"}}
        found = [document["_id"] for document in collection.find(expired, {"_id": 1}, limit=limit)]
        # One that became live again meanwhile stays.
        return int(collection.delete_many({"_id": {"$in": found}, **expired}).deleted_count)

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        start = {"$gt": cursor.decode()} if cursor else {"$gte": self._prefix}
        fields = {"id": 1, "val": 1, "expiration": 1}
        found = list(self._collection().find({"id": start}, fields, sort=[("id", 1)], limit=batch))
        rows: list[tuple[str, bytes, int | None]] = []
        for document in found:
            if not document["id"].startswith(self._prefix):
                return b"", rows
            stored = self._stored(document)
            if stored and stored[0]:
                rows.append((document["id"], stored[0], stored[2]))
        return (found[-1]["id"].encode() if len(found) == batch else b""), rows


def _own_client(url: str | None, timeout: float, tz_aware: bool) -> Any:
    pymongo = clients.require("pymongo", "mongodb")
    timeout_ms = max(1, int(timeout * 1000))
    limits = {
        # of an operation with its repetitions, and of what happens in the background
        "timeoutMS": timeout_ms,
        "serverSelectionTimeoutMS": timeout_ms,
        "connectTimeoutMS": timeout_ms,
    }
    try:
        if url is not None and not url.startswith(_SCHEMES):
            raise ValueError
        return pymongo.MongoClient(
            url or "mongodb://127.0.0.1:27017", connect=False, tz_aware=tz_aware, **limits
        )
    except (pymongo.errors.PyMongoError, ValueError, TypeError):
        # The original error may quote the URL, and with it the password.
        raise _core.SessionConfigError(
            "the MongoDB URL must be mongodb:// or mongodb+srv://, then what PyMongo accepts"
        ) from None


def _check_client(client: Any) -> Any:
    """The client, if it is one that can be used; no connection is made."""
    # A MongoClient has every attribute that it is asked for: they are its databases.
    if not isinstance(client, clients.require("pymongo", "mongodb").MongoClient):
        clients.check_methods("SESSION_MONGODB", _ACCEPTED, client, "list_database_names")
        config.refuse("SESSION_MONGODB", _ACCEPTED, client)
    options = client.options
    tries = 2 if options.retry_reads and options.timeout is None else 1
    timeout, waits = options.timeout, options.pool_options.socket_timeout
    if timeout is None and waits is not None:
        timeout = max(waits, options.server_selection_timeout)
    clients.warn_if_slow(
        "SESSION_MONGODB", timeout, tries, "set timeoutMS, or socketTimeoutMS and"
        " serverSelectionTimeoutMS, on it",
    )  # fmt: skip
    return client


class MongoDBSession(ServerSideSession):
    """A session in MongoDB."""


class MongoDBSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a collection of MongoDB.

    client: a synchronous ``pymongo.MongoClient``, a ``mongodb://`` URL, or a function without
    arguments that returns a client; None: 127.0.0.1:27017. A client that is given is
    used as it is, with its own timeouts (UserWarning when these are long). One
    that is made here gets SESSION_STORE_TIMEOUT (2 seconds), and each process has
    its own. No connection is made before the first session is needed. db,
    collection: their names. tz_aware: of the client that is made here. Further
    arguments as in ServerSideSessionInterface, which raises SessionConfigError
    for what is not accepted. Flask-Session2's arguments (client, db, collection,
    key_prefix, use_signer, permanent, tz_aware) are taken as well.
    docs/backends/mongodb.md.
    """

    session_class = MongoDBSession

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
        db: str = ...,
        collection: str = ...,
        *,
        tz_aware: bool = ...,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: Any,
        db: str,
        collection: str,
        key_prefix: str,
        use_signer: bool = ...,
        permanent: bool = ...,
        tz_aware: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = ("db", "collection")
        if in_flask_session2_order(args, _SCHEMES):
            bind(type(self), ("client", *names, *COMMON, "tz_aware"), args, kwargs)
        else:
            bind(type(self), (*ORDER, *names), args, kwargs)
        app, client = kwargs.get("app"), kwargs.pop("client", None)
        tz_aware = config.check("SESSION_MONGODB_TZ_AWARE", kwargs.pop("tz_aware", False))
        self._names = tuple(
            config.check(key, kwargs.pop(name, getattr(Defaults, key)))
            for name, key in zip(names, _NAMES, strict=True)
        )
        if client is None or isinstance(client, str):
            timeout = config.read(app, "SESSION_STORE_TIMEOUT")
            own = clients.PerProcess(lambda: _own_client(client, timeout, tz_aware))
            self._client: Callable[[], Any] = own.get
        else:
            given = _check_client(clients.given(client))
            self._client = lambda: given
        self._check()
        super().__init__(**kwargs)

    def _check(self) -> None:
        if not self.client.write_concern.acknowledged:
            raise _core.SessionConfigError(
                "SESSION_MONGODB has the write concern w=0, which does not tell whether a session"
                " was stored"
            )
        try:
            _ = self.store
        except clients.require("pymongo.errors", "mongodb").InvalidName:
            raise _core.SessionConfigError(
                f"{' and '.join(_NAMES)} must be names that MongoDB accepts"
            ) from None

    @property
    def client(self) -> Any:
        """The PyMongo client; one that was made here is another one in each process."""
        return self._client()

    @property
    def store(self) -> Any:
        """The collection, with the client's own options."""
        db, collection = self._names
        return self.client[db][collection]

    def _open_store(self, key_prefix: str) -> _core.Store:
        db, collection = self._names
        return _core.Store.wrap(MongoDBStore(self._client, db, collection, key_prefix))
