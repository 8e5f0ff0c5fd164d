"""Sessions in Google Cloud Datastore, through a client of google-cloud-datastore."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import urlsplit

from . import _core, clients, config, googlecloud
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .legacy import COMMON, ORDER, bind, in_flask_session2_order

if TYPE_CHECKING:
    from flask import Flask

_KIND = "session"
_LOOKUP = 500


class _Datastore(googlecloud.Library):
    @property
    def client_class(self) -> type[Any]:
        found: type[Any] = self.require("google.cloud.datastore").Client
        return found

    def connect(self, client: Any, timeout: float) -> None:
        if not client._use_grpc:  # GOOGLE_CLOUD_DISABLE_GRPC: it makes its connections anew
            client._datastore_api_internal = client._http_internal = None
            return
        service = self.require("google.cloud.datastore_v1.services.datastore")
        transports = self.require("google.cloud.datastore_v1.services.datastore.transports")
        url = urlsplit(client.base_url)
        transport = self.channel(
            transports.DatastoreGrpcTransport,
            url.netloc or client.base_url,
            None if url.scheme == "http" else client._credentials,
            timeout,
        )
        client._datastore_api_internal = service.DatastoreClient(
            transport=transport, client_info=client._client_info
        )

    def connected(self, client: Any) -> bool:
        return (
            getattr(client, "_use_grpc", False)
            and getattr(client, "_datastore_api_internal", None) is not None
        )


_library = _Datastore("datastore")


class DatastoreStore(googlecloud.VersionedStore):
    """The adapter (see googlecloud.py): a value is an entity of the kind ``session`` with the
    properties ``data`` and ``expiry``, whose name is the key, as Flask-Session2 has it. Requests
    are sent as such, since only they show and compare versions. client: gives the client of this
    process."""

    name, _title = "datastore", "Datastore"
    _refused = re.compile(r"\A__.*__\Z", re.DOTALL)
    _refusal = "must not both begin and end with __ in Datastore"

    def __init__(self, client: Callable[[], Any], key_prefix: str = "") -> None:
        super().__init__(client, key_prefix)
        self._datastore = _library.require("google.cloud.datastore")
        self._helpers = _library.require("google.cloud.datastore.helpers")
        self._filter = _library.require("google.cloud.datastore.query").PropertyFilter
        types = _library.require("google.cloud.datastore_v1.types")
        self._strong = types.ReadOptions.ReadConsistency.STRONG
        self._mode = types.CommitRequest.Mode.NON_TRANSACTIONAL
        # Said explicitly: Google's emulator compares versions only then.
        self._fail = types.Mutation.ConflictResolutionStrategy.FAIL

    def _send(self, operation: str, timeout: float, **request: Any) -> Any:
        client = self._client()
        request["project_id"] = client.project
        self._helpers.set_database_id_to_request(request, client.database)
        call = getattr(client._datastore_api, operation)
        return call(request=request, timeout=max(0.001, timeout), **self._once)

    def _key(self, key: str) -> Any:
        return self._client().key(_KIND, key)

    def _entity(self, key: str, value: bytes, expires: int) -> Any:
        entity = self._datastore.Entity(self._key(key), exclude_from_indexes=("data",))
        entity.update(data=value, expiry=googlecloud.moment(expires))
        return self._helpers.entity_to_protobuf(entity)

    def _lookup(self, keys: list[Any], timeout: float) -> dict[str, googlecloud.Record]:
        """The records that are there, by their names."""
        end, found = time.monotonic() + timeout, {}
        options = {"read_consistency": self._strong}
        while keys:
            left = end - time.monotonic()
            answer = self._send("lookup", left, keys=keys, read_options=options)
            for result in answer.found:
                name, fields = result.entity.key.path[-1].name, {}
                # ValueError of lists that only another program writes.
                with contextlib.suppress(ValueError):
                    fields = self._helpers.entity_from_protobuf(result.entity)
                found[name] = googlecloud.record(
                    result.version, fields.get("data"), fields.get("expiry")
                )
            keys = list(answer.deferred)  # the server was busy
        return found

    def _commit(self, timeout: float, *mutations: dict[str, Any]) -> bool:
        """Do all, or nothing: False when one finds another state than it takes for granted."""
        try:
            answer = self._send("commit", timeout, mode=self._mode, mutations=mutations)
        except (self._errors.NotFound, self._errors.Conflict):  # AlreadyExists, Aborted
            return False
        except self._errors.BadRequest as error:
            # Over HTTP the code is in a status. Without it: a version from before the server
            # lost its data.
            codes = [getattr(status, "code", None) for status in error.errors]
            failed = isinstance(error, self._errors.FailedPrecondition) or 9 in codes
            if failed or "base version" in str(error):
                return False
            raise
        return not any(result.conflict_detected for result in answer.mutation_results)

    def _if(self, version: int, **mutation: Any) -> dict[str, Any]:
        return {**mutation, "base_version": version, "conflict_resolution_strategy": self._fail}

    def _read(self, key: str, timeout: float) -> googlecloud.Record | None:
        return self._lookup([self._key(key).to_protobuf()], timeout).get(key)

    def _insert(self, key: str, value: bytes, expires: int, timeout: float) -> bool:
        return self._commit(timeout, {"insert": self._entity(key, value, expires)})

    def _write(self, key: str, version: int, value: bytes, expires: int, timeout: float) -> bool:
        entity = self._entity(key, value, expires)
        return self._commit(timeout, self._if(version, update=entity))

    def _remove(self, key: str, timeout: float) -> bool:
        return self._commit(timeout, {"delete": self._key(key).to_protobuf()})

    def _expired(self, limit: int, timeout: float) -> list[tuple[str, int]]:
        query = self._client().query(kind=_KIND)
        for relation, unix_ms in ((">=", 0), ("<=", clients.now_ms())):  # null is no date
            query.add_filter(filter=self._filter("expiry", relation, googlecloud.moment(unix_ms)))
        query.keys_only()
        found = query.fetch(limit=limit, timeout=timeout, **self._once)
        keys = [entity.key.to_protobuf() for entity in found if entity.key.name is not None]
        # The query does not tell versions.
        return [
            (name, held.version)
            for start in range(0, len(keys), _LOOKUP)
            for name, held in self._lookup(keys[start : start + _LOOKUP], timeout).items()
            if not held.live()
        ]

    def _delete(self, records: list[tuple[str, int]], timeout: float) -> bool:
        mutations = [
            self._if(version, delete=self._key(key).to_protobuf()) for key, version in records
        ]
        return self._commit(timeout, *mutations)

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        query = self._client().query(kind=_KIND, order=["__key__"])
        # Numbers, which are no keys of ours, come before all names.
        start = self._key(cursor.decode() or self._prefix or "\x01")
        relation = ">" if cursor else ">="
        query.add_filter(filter=self._filter("__key__", relation, start))
        found = list(query.fetch(limit=batch, timeout=timeout, **self._once))
        rows: list[tuple[str, bytes, int | None]] = []
        for entity in found:
            key = entity.key.name
            if not key.startswith(self._prefix):
                return b"", rows
            held = googlecloud.record(0, entity.get("data"), entity.get("expiry"))
            if held.value and held.live():
                rows.append((key, held.value, held.expires))
        return (found[-1].key.name.encode() if len(found) == batch else b""), rows


class GoogleCloudDataStoreSession(ServerSideSession):
    """A session in Google Cloud Datastore."""


class GoogleCloudDatastoreSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in Google Cloud Datastore, or in Firestore in Datastore mode.

    client: a ``google.cloud.datastore.Client`` or a function without arguments that returns one;
    None: one is made from the environment when the first session is needed, for `project`
    unless that is "unknown". Each process speaks over a connection of its own, made of the
    client's settings and credentials; requests take SESSION_STORE_TIMEOUT (2 seconds) and are
    not repeated. Further arguments as in ServerSideSessionInterface, which raises
    SessionConfigError for what is not accepted. Flask-Session2's arguments (gcloud_project,
    key_prefix, use_signer, permanent) are taken as well. docs/backends/datastore.md.
    """

    session_class = GoogleCloudDataStoreSession

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
        project: str = ...,
        *,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        gcloud_project: str,
        key_prefix: str,
        use_signer: bool = ...,
        permanent: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "gcloud_project" in kwargs or in_flask_session2_order(args, ()):
            bind(type(self), ("gcloud_project", *COMMON), args, kwargs)
            kwargs["project"] = kwargs.pop("gcloud_project")
        else:
            bind(type(self), (*ORDER, "project"), args, kwargs)
        app, client = kwargs.get("app"), kwargs.pop("client", None)
        project = kwargs.pop("project", Defaults.GCLOUD_APP_PROJECT_ID)
        self.gcloud_project: str = config.check("GCLOUD_APP_PROJECT_ID", project)
        given = _library.check("SESSION_DATASTORE", client)
        timeout = config.read(app, "SESSION_STORE_TIMEOUT")
        self._clients = googlecloud.Clients(_library, given, self._make, timeout)
        super().__init__(**kwargs)

    def _make(self) -> Any:
        unknown = self.gcloud_project == Defaults.GCLOUD_APP_PROJECT_ID
        # An emulator takes any name, and its users need not have a project.
        elsewhere = unknown and not os.environ.get("DATASTORE_EMULATOR_HOST")
        return _library.client_class(project=None if elsewhere else self.gcloud_project)

    @property
    def client(self) -> Any:
        """The client that was given, or that of this process."""
        return self._clients.shown

    def _open_store(self, key_prefix: str) -> _core.Store:
        return _core.Store.wrap(DatastoreStore(self._clients.get, key_prefix))
