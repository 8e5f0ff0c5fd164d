# pyright: strict
"""Uses the whole public interface, for mypy and pyright; it is checked and never run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import flask_session
from blinker import NamedSignal
from flask import Flask, session
from flask.sessions import SessionInterface, SessionMixin
from flask_session import (
    Defaults,
    DynamoDBSessionInterface,
    ElasticsearchSessionInterface,
    Extension,
    FileSystemSessionInterface,
    GoogleCloudDatastoreSessionInterface,
    GoogleFireStoreSessionInterface,
    MemcachedSessionInterface,
    MongoDBSessionInterface,
    NullSessionInterface,
    PeeweeSessionInterface,
    RedisSessionInterface,
    ServerSideSession,
    ServerSideSessionInterface,
    Session,
    SessionConfigError,
    SessionConflict,
    SessionStoreError,
    SqlAlchemySessionInterface,
    session_conflict,
    session_created,
    session_loaded,
    session_lost,
    session_made_private,
    session_regenerated,
    session_rejected,
    session_removed,
    session_saved,
    session_store_error,
    session_touched,
)
from flask_session.base import MsgSpecSerializer, Serializer
from flask_session.cachelib import CacheLibSession, CacheLibSessionInterface
from flask_session.contract import CHANGED, GONE, OK, Adapter, Stored
from flask_session.filesystem import FileSystemSession
from flask_session.memory import MemorySession, MemorySessionInterface
from flask_session.null import NullSession
from flask_session.postgresql import PostgreSqlSessionInterface
from flask_session.redis import RedisSession
from flask_session.sqlite import SqliteSession, SqliteSessionInterface
from typing_extensions import assert_type, override

# ---- setting up ---------------------------------------------------------------------------------

app = Flask(__name__)
app.config["SESSION_TYPE"] = "sqlite"
app.config["SESSION_PERMANENT"] = Defaults.SESSION_PERMANENT
Session(app)
sessions = Session()
sessions.init_app(app)
assert_type(flask_session.__version__, str)

extension: Extension = app.extensions["flask_session"]
assert_type(extension.stats(), dict[str, Any])
assert_type(extension.purge(), int)
assert_type(extension.purge(limit=100), int)
assert_type(extension.interface, SessionInterface | None)

try:
    Session(app)
except SessionConfigError as error:
    value_error: ValueError = error

# ---- interfaces ---------------------------------------------------------------------------------

app.session_interface = RedisSessionInterface(client=object())
app.session_interface = RedisSessionInterface(app, "redis://127.0.0.1/0", key_prefix="p:")
app.session_interface = RedisSessionInterface(object(), "session:", False, True)
app.session_interface = FileSystemSessionInterface(app, cache_dir=Path("dir"), threshold=0)
app.session_interface = FileSystemSessionInterface("dir", 500, 0o600, "session:", False, True)
app.session_interface = SqliteSessionInterface(app, "file.sqlite3", synchronous="full")
app.session_interface = MemorySessionInterface(app, permanent=False, sid_length=16)
app.session_interface = CacheLibSessionInterface(client=object())
app.session_interface = NullSessionInterface()

files = FileSystemSessionInterface(app)
assert_type(files.cache.get("session:id"), dict[str, Any] | None)
assert_type(files.cache.has("session:id"), bool)
assert_type(files.cache.set("session:id", {"a": 1}, timeout=60), bool)
assert_type(files.cache.delete("session:id"), bool)
assert_type(files.key_prefix, str)
assert_type(files.permanent, bool)
assert_type(files.use_signer, bool)
assert_type(files.sid_length, int)
assert_type(files.app, Flask | None)
assert_type(files.ttl, bool)
files.serializer = json
files.serializer = MsgSpecSerializer(app, "json")
files.regenerate(session)

over_clients: list[type[ServerSideSessionInterface]] = [
    DynamoDBSessionInterface,
    ElasticsearchSessionInterface,
    GoogleCloudDatastoreSessionInterface,
    GoogleFireStoreSessionInterface,
    MemcachedSessionInterface,
    MongoDBSessionInterface,
    PeeweeSessionInterface,
    PostgreSqlSessionInterface,
    SqlAlchemySessionInterface,
]
session_classes: list[type[ServerSideSession]] = [
    CacheLibSession,
    FileSystemSession,
    MemorySession,
    RedisSession,
    SqliteSession,
]
null: SessionMixin = NullSession()

# ---- the session --------------------------------------------------------------------------------


@app.get("/")
def view() -> dict[str, Any]:
    session["user"] = "ann"
    session.permanent = True
    ours = cast(ServerSideSession, session)
    assert_type(ours.sid, str | None)
    assert_type(ours.new, bool)
    assert_type(ours.available, bool)
    assert_type(ours.modified, bool)
    assert_type(ours["user"], Any)
    ours.regenerate()
    ours.save()
    ours.reload()
    ours.destroy()
    ours.clear()
    return dict(ours)


made = ServerSideSession({"a": 1}, sid="x" * 16, permanent=True)
as_dict: dict[str, Any] = made
as_mixin: SessionMixin = made

# ---- errors and signals -------------------------------------------------------------------------


@app.errorhandler(SessionStoreError)
def store_failed(error: SessionStoreError) -> tuple[str, int]:
    return ("conflict" if isinstance(error, SessionConflict) else "later"), 503


def heard(sender: Flask, sid_hash: str, **details: object) -> None:
    pass


signals: list[NamedSignal] = [
    session_conflict,
    session_created,
    session_loaded,
    session_lost,
    session_made_private,
    session_regenerated,
    session_rejected,
    session_removed,
    session_saved,
    session_store_error,
    session_touched,
]
for signal in signals:
    signal.connect(heard, app)

# ---- of an application's own --------------------------------------------------------------------


class Own(Serializer):
    @override
    def encode(self, session: Mapping[str, Any]) -> bytes:
        return json.dumps(dict(session)).encode()

    @override
    def decode(self, serialized_data: bytes) -> dict[str, Any]:
        return dict(json.loads(serialized_data))


class OwnSession(ServerSideSession):
    @property
    def user(self) -> str | None:
        return self.get("user")


class ThreeMethods(ServerSideSessionInterface):
    session_class = OwnSession
    serializer = Own()
    records: ClassVar[dict[str, dict[str, Any]]] = {}

    @override
    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        return self.records.get(store_id)

    @override
    def _upsert_session(
        self, session_lifetime: timedelta, session: ServerSideSession, store_id: str
    ) -> None:
        self.records[store_id] = dict(session)

    @override
    def _delete_session(self, store_id: str) -> None:
        self.records.pop(store_id, None)


class Overriding(SqliteSessionInterface):
    @override
    def _generate_sid(self, session_id_length: int) -> str:
        return "own-" + super()._generate_sid(session_id_length)

    @override
    def should_set_storage(self, app: Flask, session: Any) -> bool:
        return super().should_set_storage(app, session)

    @override
    def get_cookie_name(self, app: Flask) -> str:
        return "own"

    @override
    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        return None


class Store:
    """An adapter, checked against the protocol."""

    name = "own"
    capabilities = 0

    def load(self, key: str, timeout: float) -> Stored | None:
        return b"", b"", None

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        return True

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        return GONE

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        return CHANGED if expected else OK

    def remove(self, key: str, timeout: float) -> None:
        pass


adapter: Adapter = Store()
