"""Sessions in Google Cloud Firestore, through a client of google-cloud-firestore."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from . import _core, clients, config, googlecloud
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import COMMON, ORDER, bind, in_flask_session2_order

if TYPE_CHECKING:
    from flask import Flask

_SECOND = 1_000_000_000


class _Firestore(googlecloud.Library):
    @property
    def client_class(self) -> type[Any]:
        found: type[Any] = self.require("google.cloud.firestore").Client
        return found

    def connect(self, client: Any, timeout: float) -> None:
        service = self.require("google.cloud.firestore_v1.services.firestore")
        transports = self.require("google.cloud.firestore_v1.services.firestore.transports")
        plain = client._emulator_host is not None
        transport = self.channel(
            transports.FirestoreGrpcTransport,
            client._target,
            None if plain else client._credentials,
            timeout,
        )
        client._firestore_api_internal = service.FirestoreClient(
            transport=transport, client_info=client._client_info
        )

    def connected(self, client: Any) -> bool:
        return getattr(client, "_firestore_api_internal", None) is not None


_library = _Firestore("firestore")


class FirestoreStore(googlecloud.VersionedStore):
    """The adapter (see googlecloud.py): a value is a document ``{id, val, expiration}`` whose id is
    the key, as Flask-Session2 has it. Its version is its update time. client: gives the client of
    this process."""

    name, _title = "firestore", "Firestore"
    _refused = re.compile(r"/|\A\.\.?\Z|\A__.*__\Z", re.DOTALL)
    _refusal = "must not be . or .., contain a slash or both begin and end with __ in Firestore"

    def __init__(self, client: Callable[[], Any], collection: str, key_prefix: str = "") -> None:
        super().__init__(client, key_prefix)
        self._name = collection
        self._filter = _library.require("google.cloud.firestore").FieldFilter
        self._timestamp = _library.require("google.protobuf.timestamp_pb2").Timestamp

    def _document(self, key: str) -> Any:
        return self._client().collection(self._name).document(key)

    def _if(self, version: int) -> Any:
        seconds, nanos = divmod(version, _SECOND)
        when = self._timestamp(seconds=seconds, nanos=nanos)
        return self._client().write_option(last_update_time=when)

    @staticmethod
    def _record(snapshot: Any) -> googlecloud.Record:
        fields, updated = snapshot.to_dict(), snapshot.update_time.timestamp_pb()
        version = updated.seconds * _SECOND + updated.nanos
        return googlecloud.record(version, fields.get("val"), fields.get("expiration"))

    def _read(self, key: str, timeout: float) -> googlecloud.Record | None:
        snapshot = self._document(key).get(timeout=timeout, **self._once)
        return self._record(snapshot) if snapshot.exists else None

    def _commit(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """False when there is another state than the write takes for granted."""
        try:
            write(*args, **kwargs, **self._once)
        except (self._errors.NotFound, self._errors.Conflict, self._errors.FailedPrecondition):
            return False  # Conflict: AlreadyExists, Aborted
        return True

    def _insert(self, key: str, value: bytes, expires: int, timeout: float) -> bool:
        fields = {"id": key, "val": value, "expiration": googlecloud.moment(expires)}
        return self._commit(self._document(key).create, fields, timeout=timeout)

    def _write(self, key: str, version: int, value: bytes, expires: int, timeout: float) -> bool:
        fields = {"val": value, "expiration": googlecloud.moment(expires)}
        option = self._if(version)
        return self._commit(self._document(key).update, fields, option=option, timeout=timeout)

    def _remove(self, key: str, timeout: float) -> bool:
        return self._commit(self._document(key).delete, timeout=timeout)

    def _expired(self, limit: int, timeout: float) -> list[tuple[str, int]]:
        expired = self._filter("expiration", "<=", googlecloud.moment(clients.now_ms()))
        query = self._client().collection(self._name).where(filter=expired).limit(limit)
        found = query.select(["expiration"]).stream(timeout=timeout, **self._once)
        return [(snapshot.id, self._record(snapshot).version) for snapshot in found]

    def _delete(self, records: list[tuple[str, int]], timeout: float) -> bool:
        batch = self._client().batch()
        for key, version in records:
            batch.delete(self._document(key), option=self._if(version))
        return self._commit(batch.commit, timeout=timeout)

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        query = self._client().collection(self._name).order_by("__name__").limit(batch)
        start = cursor.decode() or self._prefix
        if start:
            relation = ">" if cursor else ">="
            query = query.where(filter=self._filter("__name__", relation, self._document(start)))
        found = list(query.stream(timeout=timeout, **self._once))
        rows: list[tuple[str, bytes, int | None]] = []
        for snapshot in found:
            if not snapshot.id.startswith(self._prefix):
                return b"", rows
            held = self._record(snapshot)
            if held.value and held.live():
                rows.append((snapshot.id, held.value, held.expires))
        return (found[-1].id.encode() if len(found) == batch else b""), rows


class GoogleFireStoreSession(ServerSideSession):
    """A session in Google Cloud Firestore."""


class GoogleFireStoreSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a collection of Google Cloud Firestore.

    client: a ``google.cloud.firestore.Client`` or a function without arguments that returns one;
    None: one is made from the environment when the first session is needed. Each process
    speaks over a connection of its own, made of the client's settings and credentials; requests
    take SESSION_STORE_TIMEOUT (2 seconds) and are not repeated. collection: its name, or the
    path of a subcollection. Further arguments as in ServerSideSessionInterface, which raises
    SessionConfigError for what is not accepted. Flask-Session2's arguments (client, collection,
    key_prefix, use_signer, permanent) are taken as well. docs/backends/firestore.md.
    """

    session_class = GoogleFireStoreSession

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
        collection: str = ...,
        *,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: Any,
        collection: str,
        key_prefix: str,
        use_signer: bool = ...,
        permanent: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if in_flask_session2_order(args, ()):
            bind(type(self), ("client", "collection", *COMMON), args, kwargs)
        else:
            bind(type(self), (*ORDER, "collection"), args, kwargs)
        app, client = kwargs.get("app"), kwargs.pop("client", None)
        collection = kwargs.pop("collection", Defaults.SESSION_FIRESTORE_COLLECT)
        self._collection: str = config.check("SESSION_FIRESTORE_COLLECT", collection)
        parts = self._collection.split("/")
        if len(parts) % 2 == 0 or any(
            not part or FirestoreStore._refused.search(part) for part in parts
        ):
            config.refuse(
                "SESSION_FIRESTORE_COLLECT",
                "the name of a collection or the path of a subcollection",
                collection,
            )
        given = _library.check("SESSION_FIRESTORE", client)
        timeout = config.read(app, "SESSION_STORE_TIMEOUT")
        make = _library.client_class
        self._clients = googlecloud.Clients(_library, given, make, timeout)
        super().__init__(**kwargs)

    @property
    def client(self) -> Any:
        """The client that was given, or that of this process."""
        return self._clients.shown

    @property
    def store(self) -> Any:
        """The collection."""
        return self.client.collection(self._collection)

    def _open_store(self, key_prefix: str) -> _core.Store:
        if "/" in key_prefix:
            raise _core.SessionConfigError(
                "SESSION_KEY_PREFIX must not contain a slash with Firestore, where a slash"
                " separates the parts of a document's path"
            )
        return _core.Store.wrap(FirestoreStore(self._clients.get, self._collection, key_prefix))
