"""Every configuration key, one after the other: its effect, seen from outside, and its error.

No server is asked. The tests of a backend show more; this table shows that no key is forgotten.
"""

from __future__ import annotations

import re
import stat
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionConflict, _core, config
from flask_session.defaults import Defaults

from tests.python.apps.views import add_views

HOUR_MS = 3_600_000
NOWHERE = "127.0.0.1:1"


def make(**settings: Any) -> flask.Flask:
    folder = settings.pop("instance", None)
    app = flask.Flask(__name__, instance_path=str(folder) if folder else None)
    app.config.update({"SESSION_TYPE": "memory", "SECRET_KEY": "secret", **settings})
    Session(app)
    return add_views(app)


def visited(**settings: Any) -> Any:
    """The answer to the visitor's first request, which makes a session, and the client."""
    app = make(**settings)
    client = app.test_client()
    answer = client.get("/set/x")
    assert answer.status_code == 200
    return answer, client, app


def cookie(**settings: Any) -> str:
    answer, *_ = visited(**settings)
    return str(answer.headers["Set-Cookie"])


def interface(kind: str, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(SESSION_TYPE=kind, **settings).session_interface


def need(module: str) -> Any:
    return pytest.importorskip(module)


# ---- Flask's own ---------------------------------------------------------------------------------


def cookie_attribute(key: str, value: Any, shown: str, other: str = "") -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        assert shown in cookie(**{key: value})
        assert shown not in cookie() or other

    return effect


def cookie_httponly(folder: Path) -> None:
    assert "HttpOnly" in cookie()
    assert "HttpOnly" not in cookie(SESSION_COOKIE_HTTPONLY=False)


def cookie_partitioned(folder: Path) -> None:
    if not hasattr(flask.Flask("x").session_interface, "get_cookie_partitioned"):
        pytest.skip("this Flask knows no partitioned cookies")
    assert "Partitioned" in cookie(SESSION_COOKIE_PARTITIONED=True)


def lifetime(folder: Path) -> None:
    for given in (500, timedelta(seconds=500)):
        _, client, app = visited(PERMANENT_SESSION_LIFETIME=given)
        store = app.extensions["flask_session"].store
        *_, expires = store.load(client.get_cookie("session").value)
        assert abs(expires - _now() - 500_000) < 5000


def _now() -> float:
    import time

    return time.time() * 1000


def refresh(folder: Path) -> None:
    for each, touches in ((True, 1), (False, 0)):
        _, client, app = visited(SESSION_REFRESH_EACH_REQUEST=each)
        store = app.extensions["flask_session"].store
        sid = client.get_cookie("session").value
        value, version, _ = store.load(sid)
        store.touch(sid, value, version, HOUR_MS)
        before = store.counts()["touch"]
        client.get("/get")
        assert store.counts()["touch"] - before == touches


def secret_key(folder: Path) -> None:
    first = cookie(SESSION_USE_SIGNER=True, SECRET_KEY="one")
    _, client, _ = visited(SESSION_USE_SIGNER=True, SECRET_KEY="two")
    client.set_cookie("session", re.match(r"session=([^;]*)", first)[1])  # type: ignore[index]
    assert client.get("/get").text == "None"


def secret_key_fallbacks(folder: Path) -> None:
    settings = {
        "SESSION_USE_SIGNER": True,
        "SESSION_TYPE": "sqlite",
        "SESSION_SQLITE": str(folder / "x.sqlite3"),
    }
    _, client, _ = visited(**settings, SECRET_KEY="old")
    value = client.get_cookie("session").value
    for fallbacks, found in ((["old"], "x"), ([], "None")):
        later = make(**settings, SECRET_KEY="new", SECRET_KEY_FALLBACKS=fallbacks).test_client()
        later.set_cookie("session", value)
        assert later.get("/get").text == found


# ---- all stores ----------------------------------------------------------------------------------


def session_type(folder: Path) -> None:
    assert type(interface("SQLite", instance=folder)).__name__ == "SqliteSessionInterface"


def session_url(folder: Path) -> None:
    app = make(SESSION_TYPE=None, SESSION_URL=f"sqlite://{folder}/by-url.sqlite3")
    app.test_client().get("/set/x")
    assert (folder / "by-url.sqlite3").exists()


def permanent(folder: Path) -> None:
    assert "Expires=" in cookie()
    assert "Expires=" not in cookie(SESSION_PERMANENT=False)


def use_signer(folder: Path) -> None:
    assert "." in cookie(SESSION_USE_SIGNER=True).partition(";")[0]
    assert "." not in cookie().partition(";")[0]


def key_prefix(folder: Path) -> None:
    place = {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder)}
    _, client, _ = visited(**place, SESSION_KEY_PREFIX="mine:")
    store = _core.Store.open("filesystem", {"path": str(folder)})
    assert store.load("mine:" + client.get_cookie("session").value)


def id_length(folder: Path) -> None:
    _, client, _ = visited(SESSION_ID_LENGTH=48)
    assert len(client.get_cookie("session").value) == 64


def serialization_format(folder: Path) -> None:
    for name, first in (("msgpack", b"\x82"), ("json", b"{")):
        _, client, app = visited(SESSION_SERIALIZATION_FORMAT=name)
        store = app.extensions["flask_session"].store
        assert store.load(client.get_cookie("session").value)[0].startswith(first)


def purges(**settings: Any) -> None:
    _, client, app = visited(**settings)
    client.get("/get")
    assert app.extensions["flask_session"].stats()["purge"] > 0
    assert visited()[2].extensions["flask_session"].stats()["purge"] == 0


def touch_interval(folder: Path) -> None:
    for interval, touches in ((1, 1), (200, 0)):
        _, client, app = visited(SESSION_TOUCH_INTERVAL=interval, PERMANENT_SESSION_LIFETIME=1000)
        store, sid = app.extensions["flask_session"].store, client.get_cookie("session").value
        value, version, _ = store.load(sid)
        store.touch(sid, value, version, 900_000)
        before = store.counts()["touch"]
        client.get("/get")
        assert store.counts()["touch"] - before == touches


def conflict(folder: Path) -> None:
    for choice in ("merge", "raise"):
        app = make(SESSION_CONFLICT=choice)
        app.testing = True
        client, other = app.test_client(), app.test_client()

        @app.get("/slow")
        def slow(other: Any = other) -> str:
            flask.session["value"] = "mine"
            other.get("/set/theirs")
            return "done"

        client.get("/set/x")
        other.set_cookie("session", client.get_cookie("session").value)  # type: ignore[union-attr]
        if choice == "raise":
            with pytest.raises(SessionConflict):
                client.get("/slow")
        else:
            client.get("/slow")
        assert client.get("/get").text == {"merge": "mine", "raise": "theirs"}[choice]


def on_store_error(folder: Path) -> None:
    need("redis")
    for choice, status in (("raise", 500), ("503", 503), ("empty", 200)):
        app = make(
            SESSION_TYPE="redis",
            SESSION_REDIS=f"redis://{NOWHERE}/0",
            SESSION_ON_STORE_ERROR=choice,
        )
        client = app.test_client()
        client.set_cookie("session", "x" * 43)
        assert client.get("/get").status_code == status


def strict_types(folder: Path) -> None:
    class Text(str):
        pass

    for strict in (False, True):
        app = make(SESSION_STRICT_TYPES=strict)
        app.testing = True

        @app.get("/text")
        def text() -> str:
            flask.session["text"] = Text("x")
            return "stored"

        if strict:
            with pytest.raises(TypeError, match="Text"):
                app.test_client().get("/text")
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert app.test_client().get("/text").text == "stored"


def store_timeout(folder: Path) -> None:
    need("redis")
    made = interface("redis", SESSION_STORE_TIMEOUT=0.75, SESSION_NATIVE=False)
    assert made.client.connection_pool.connection_kwargs["socket_timeout"] == 0.75


def native(folder: Path) -> None:
    need("redis")
    for wanted in (True, False):
        app = make(
            SESSION_TYPE="redis", SESSION_REDIS=f"redis://{NOWHERE}/0", SESSION_NATIVE=wanted
        )
        if not wanted:
            assert app.extensions["flask_session"].store.native is False
        else:  # the driver is there only where hiredis was
            assert app.extensions["flask_session"].store.native in (True, False)


def migrate_from(folder: Path) -> None:
    app = make(SESSION_MIGRATE_FROM=f"filesystem://{folder}/old")
    assert app.extensions["flask_session"].stats()["moves"]["store"] == "filesystem"


def migrate_to(folder: Path) -> None:
    app = make(SESSION_MIGRATE_TO=f"filesystem://{folder}/new")
    app.test_client().get("/set/x")
    assert app.extensions["flask_session"].stats()["moves"]["store"] == "filesystem"
    assert not (folder / "new").exists()


# ---- the stores ----------------------------------------------------------------------------------


def sqlite_path(folder: Path) -> None:
    visited(SESSION_TYPE="sqlite", SESSION_SQLITE=str(folder / "here.sqlite3"))
    assert (folder / "here.sqlite3").exists()


def sqlite_synchronous(folder: Path) -> None:
    fast = []
    for mode in ("normal", "full"):
        made = interface("sqlite", instance=folder, SESSION_SQLITE_SYNCHRONOUS=mode)
        fast.append(bool(made._store.capabilities & _core.CAP_FAST))
    assert fast == [True, False]


def file_dir(folder: Path) -> None:
    visited(SESSION_TYPE="filesystem", SESSION_FILE_DIR=str(folder / "files"))
    assert (folder / "files/cession").is_dir()


def file_mode(folder: Path) -> None:
    visited(SESSION_TYPE="filesystem", SESSION_FILE_DIR=str(folder), SESSION_FILE_MODE=0o640)
    [file] = folder.glob("cession/??/*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def file_threshold(folder: Path) -> None:
    made = interface("filesystem", SESSION_FILE_DIR=str(folder), SESSION_FILE_THRESHOLD=7)
    assert made._options["threshold"] == "7"


def client_of_redis(folder: Path) -> None:
    client = need("redis").Redis(port=1, socket_timeout=1)
    assert interface("redis", SESSION_REDIS=client).client is client


def client_of_memcached(folder: Path) -> None:
    client = need("pymemcache").Client(("127.0.0.1", 1), timeout=1, connect_timeout=1)
    assert interface("memcached", SESSION_MEMCACHED=client).client is client


def cache_of_cachelib(folder: Path) -> None:
    cache = need("cachelib").SimpleCache()
    assert interface("cachelib", SESSION_CACHELIB=cache).cache is cache


def mongodb(name: str) -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        client = need("pymongo").MongoClient(f"mongodb://{NOWHERE}/", connect=False, timeoutMS=1)
        given = {"SESSION_MONGODB": client}
        if name == "TZ_AWARE":
            own = interface("mongodb", SESSION_MONGODB_TZ_AWARE=True).client
            assert own.codec_options.tz_aware
            own.close()
        elif name:
            made = interface("mongodb", **given, **{f"SESSION_MONGODB_{name}": "other"})
            assert "other" in made.store.full_name
        else:
            assert interface("mongodb", **given).client is client
        client.close()

    return effect


def engine(folder: Path) -> Any:
    return need("sqlalchemy").create_engine(f"sqlite:///{folder}/x.sqlite3")


def client_of_sqlalchemy(folder: Path) -> None:
    given = engine(folder)
    assert interface("sqlalchemy", SESSION_SQLALCHEMY=given).client is given


def sqlalchemy(name: str, seen: Callable[[Any], Any]) -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        settings = {f"SESSION_SQLALCHEMY_{name}": "other", "SESSION_SQLALCHEMY": engine(folder)}
        made = interface("sqlalchemy", **settings)
        assert seen(made.sql_session_model.__table__) == "other"

    return effect


def sqlalchemy_bind_key(folder: Path) -> None:
    need("flask_sqlalchemy")
    binds = {"other": f"sqlite:///{folder}/other.sqlite3"}
    visited(
        SESSION_TYPE="sqlalchemy", SQLALCHEMY_BINDS=binds, SESSION_SQLALCHEMY_BIND_KEY="other",
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{folder}/main.sqlite3", instance=folder,
    )  # fmt: skip
    assert (folder / "other.sqlite3").exists()
    assert not (folder / "main.sqlite3").exists()


def sqlalchemy_create(folder: Path) -> None:
    for create, status in (("never", 500), ("auto", 200)):
        app = make(
            SESSION_TYPE="sqlalchemy",
            SESSION_SQLALCHEMY=engine(folder),
            SESSION_SQLALCHEMY_CREATE=create,
        )
        assert app.test_client().get("/set/x").status_code == status


class Pool:
    def getconn(self) -> None: ...
    def putconn(self, connection: Any) -> None: ...


def postgresql(name: str) -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        need("psycopg")
        pool = Pool()
        settings = {f"SESSION_POSTGRESQL_{name}": "other"} if name else {}
        made = interface("postgresql", SESSION_POSTGRESQL=pool, **settings)
        assert made.pool is pool
        table = {"TABLE": '"public"."other"', "SCHEMA": '"other"."flask_sessions"'}.get(name)
        assert made._queries.table == (table or '"public"."flask_sessions"')

    return effect


def peewee(name: str) -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        library = need("peewee")
        database = library.SqliteDatabase(str(folder / "x.db"))
        settings: dict[str, Any] = {"SESSION_DB": database}
        if name == "class":
            settings = {
                "SESSION_DB_CLASS": library.SqliteDatabase,
                "SESSION_PEEWEE_CONFIG": {"database": str(folder / "made.db")},
            }
        elif name == "table":
            settings["SESSION_PEEWEE_TABLE"] = "other"
        made = interface("peewee", **settings)
        assert made.db.database == str(folder / ("made.db" if name == "class" else "x.db"))
        assert made.sql_session_model._meta.table_name == (
            "other" if name == "table" else "sessions"
        )

    return effect


def dynamodb(key: str, value: Any, seen: Callable[[Any], Any]) -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        need("boto3")
        settings = {
            "SESSION_DYNAMODB_REGION": "eu-west-1",
            "SESSION_DYNAMODB_KEY_ID": "key",
            "SESSION_DYNAMODB_SECRET": "hidden",
            key: value,
        }
        assert seen(interface("dynamodb", **settings)) == value

    return effect


def dynamodb_client(folder: Path) -> None:
    session = need("boto3").Session(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    made = interface("dynamodb", SESSION_DYNAMODB=session)
    assert made.table_name == "sessions"
    client = session.client("dynamodb", endpoint_url="http://dynamodb.invalid")
    made = interface("dynamodb", SESSION_DYNAMODB=client)
    assert (made.client, made.table_name) == (client, "Sessions")


def dynamodb_table_exists(folder: Path) -> None:
    need("boto3")
    session = need("boto3").Session(
        region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    client = session.client("dynamodb", endpoint_url="http://dynamodb.invalid")
    makes = [
        interface(
            "dynamodb", SESSION_DYNAMODB=client, SESSION_DYNAMODB_TABLE_EXISTS=exists
        )._makes_table
        for exists in (None, True)
    ]
    assert makes == [True, False]


def credentials(made: Any) -> Any:
    return made.client._request_signer._credentials


def elasticsearch(key: str) -> Callable[[Path], None]:
    def effect(folder: Path) -> None:
        library = need("elasticsearch")
        client = library.Elasticsearch(f"http://{NOWHERE}", request_timeout=1, max_retries=0)
        if key == "HOST":
            made = interface("elasticsearch", SESSION_ELASTICSEARCH_HOST=f"http://{NOWHERE}")
            [node] = made.client.transport.node_pool.all()
            assert (node.host, node.port) == ("127.0.0.1", 1)
        elif key == "INDEX":
            made = interface(
                "elasticsearch", SESSION_ELASTICSEARCH=client, SESSION_ELASTICSEARCH_INDEX="other"
            )
            assert made.index == "other"
        else:
            assert interface("elasticsearch", SESSION_ELASTICSEARCH=client).client is client
        client.close()

    return effect


def google_client(kind: str, **more: Any) -> Any:
    auth = need("google.auth.credentials")
    module = need(f"google.cloud.{kind}")
    return module.Client(project="tests", credentials=auth.AnonymousCredentials(), **more)


def client_of_datastore(folder: Path) -> None:
    client = google_client("datastore")
    assert interface("datastore", SESSION_DATASTORE=client).client is client


def project_of_datastore(folder: Path) -> None:
    need("google.cloud.datastore")
    assert interface("datastore", GCLOUD_APP_PROJECT_ID="mine").gcloud_project == "mine"


def client_of_firestore(folder: Path) -> None:
    client = google_client("firestore")
    assert interface("firestore", SESSION_FIRESTORE=client).client is client


def collection_of_firestore(folder: Path) -> None:
    given = {"SESSION_FIRESTORE": google_client("firestore")}
    made = interface("firestore", **given, SESSION_FIRESTORE_COLLECT="other")
    assert made.store.id == "other"


FLASK: dict[str, Callable[[Path], None]] = {
    "SESSION_COOKIE_NAME": cookie_attribute("SESSION_COOKIE_NAME", "other", "other="),
    "SESSION_COOKIE_DOMAIN": cookie_attribute("SESSION_COOKIE_DOMAIN", "x.test", "Domain=x.test"),
    "SESSION_COOKIE_PATH": cookie_attribute("SESSION_COOKIE_PATH", "/here", "Path=/here"),
    "SESSION_COOKIE_HTTPONLY": cookie_httponly,
    "SESSION_COOKIE_SECURE": cookie_attribute("SESSION_COOKIE_SECURE", True, "Secure"),
    "SESSION_COOKIE_SAMESITE": cookie_attribute("SESSION_COOKIE_SAMESITE", "Lax", "SameSite=Lax"),
    "SESSION_COOKIE_PARTITIONED": cookie_partitioned,
    "PERMANENT_SESSION_LIFETIME": lifetime,
    "SESSION_REFRESH_EACH_REQUEST": refresh,
    "SECRET_KEY": secret_key,
    "SECRET_KEY_FALLBACKS": secret_key_fallbacks,
    "APPLICATION_ROOT": cookie_attribute("APPLICATION_ROOT", "/mounted", "Path=/mounted"),
}
EFFECTS: dict[str, Callable[[Path], None]] = {
    "SESSION_TYPE": session_type,
    "SESSION_URL": session_url,
    "SESSION_PERMANENT": permanent,
    "SESSION_USE_SIGNER": use_signer,
    "SESSION_KEY_PREFIX": key_prefix,
    "SESSION_ID_LENGTH": id_length,
    "SESSION_SERIALIZATION_FORMAT": serialization_format,
    "SESSION_CLEANUP_N_REQUESTS": lambda folder: purges(SESSION_CLEANUP_N_REQUESTS=1),
    "SESSION_AUTODELETE": lambda folder: purges(SESSION_AUTODELETE=True),
    "SESSION_TOUCH_INTERVAL": touch_interval,
    "SESSION_CONFLICT": conflict,
    "SESSION_ON_STORE_ERROR": on_store_error,
    "SESSION_STRICT_TYPES": strict_types,
    "SESSION_STORE_TIMEOUT": store_timeout,
    "SESSION_NATIVE": native,
    "SESSION_MIGRATE_FROM": migrate_from,
    "SESSION_MIGRATE_TO": migrate_to,
    "SESSION_SQLITE": sqlite_path,
    "SESSION_SQLITE_SYNCHRONOUS": sqlite_synchronous,
    "SESSION_FILE_DIR": file_dir,
    "SESSION_FILE_THRESHOLD": file_threshold,
    "SESSION_FILE_MODE": file_mode,
    "SESSION_REDIS": client_of_redis,
    "SESSION_MEMCACHED": client_of_memcached,
    "SESSION_CACHELIB": cache_of_cachelib,
    "SESSION_MONGODB": mongodb(""),
    "SESSION_MONGODB_DB": mongodb("DB"),
    "SESSION_MONGODB_COLLECT": mongodb("COLLECT"),
    "SESSION_MONGODB_TZ_AWARE": mongodb("TZ_AWARE"),
    "SESSION_SQLALCHEMY": client_of_sqlalchemy,
    "SESSION_SQLALCHEMY_TABLE": sqlalchemy("TABLE", lambda table: table.name),
    "SESSION_SQLALCHEMY_SEQUENCE": sqlalchemy("SEQUENCE", lambda table: table.c.id.default.name),
    "SESSION_SQLALCHEMY_SCHEMA": sqlalchemy("SCHEMA", lambda table: table.schema),
    "SESSION_SQLALCHEMY_BIND_KEY": sqlalchemy_bind_key,
    "SESSION_SQLALCHEMY_CREATE": sqlalchemy_create,
    "SESSION_POSTGRESQL": postgresql(""),
    "SESSION_POSTGRESQL_TABLE": postgresql("TABLE"),
    "SESSION_POSTGRESQL_SCHEMA": postgresql("SCHEMA"),
    "SESSION_DB": peewee(""),
    "SESSION_DB_CLASS": peewee("class"),
    "SESSION_PEEWEE_CONFIG": peewee("class"),
    "SESSION_PEEWEE_TABLE": peewee("table"),
    "SESSION_DYNAMODB": dynamodb_client,
    "SESSION_DYNAMODB_TABLE": dynamodb(
        "SESSION_DYNAMODB_TABLE", "other", lambda made: made.table_name
    ),
    "SESSION_DYNAMODB_TABLE_EXISTS": dynamodb_table_exists,
    "SESSION_DYNAMODB_KEY_ID": dynamodb(
        "SESSION_DYNAMODB_KEY_ID", "other", lambda made: credentials(made).access_key
    ),
    "SESSION_DYNAMODB_SECRET": dynamodb(
        "SESSION_DYNAMODB_SECRET", "other", lambda made: credentials(made).secret_key
    ),
    "SESSION_DYNAMODB_ENDPOINT": dynamodb(
        "SESSION_DYNAMODB_ENDPOINT",
        "http://dynamodb.invalid",
        lambda made: made.client.meta.endpoint_url,
    ),
    "SESSION_DYNAMODB_REGION": dynamodb(
        "SESSION_DYNAMODB_REGION", "eu-north-1", lambda made: made.client.meta.region_name
    ),
    "SESSION_ELASTICSEARCH": elasticsearch(""),
    "SESSION_ELASTICSEARCH_HOST": elasticsearch("HOST"),
    "SESSION_ELASTICSEARCH_INDEX": elasticsearch("INDEX"),
    "SESSION_DATASTORE": client_of_datastore,
    "GCLOUD_APP_PROJECT_ID": project_of_datastore,
    "SESSION_FIRESTORE": client_of_firestore,
    "SESSION_FIRESTORE_COLLECT": collection_of_firestore,
}


def test_no_key_is_missing():
    keys = {key for key in vars(Defaults) if key.isupper()}
    assert set(EFFECTS) == keys
    assert keys - {"SESSION_TYPE"} == set(config._CHECKS)
    used = {key for keys in config.ARGUMENTS.values() for key in keys.values()}
    assert used - set(EFFECTS) == {"SESSION_MEMORY"}  # nothing: there is no place to name


@pytest.mark.parametrize("key", [*FLASK, *EFFECTS])
def test_effect(key, tmp_path):
    {**FLASK, **EFFECTS}[key](tmp_path)


#: Key -> the type whose key it is.
BELONGS = {key: kind for kind, keys in config.ARGUMENTS.items() for key in keys.values()}
PACKAGES = {
    "redis": "redis",
    "memcached": "pymemcache",
    "cachelib": "cachelib",
    "mongodb": "pymongo",
    "sqlalchemy": "sqlalchemy",
    "postgresql": "psycopg",
    "peewee": "peewee",
    "dynamodb": "boto3",
    "elasticsearch": "elasticsearch",
    "datastore": "google.cloud.datastore",
    "firestore": "google.cloud.firestore",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", [*EFFECTS, "PERMANENT_SESSION_LIFETIME"])
def test_a_value_of_another_kind_is_refused_by_name(key, tmp_path):
    """One error, when the application is set up, that names the key; nothing falls back."""
    kind = BELONGS.get(key, "memory")
    if kind in PACKAGES:
        need(PACKAGES[kind])
    settings: dict[str, Any] = {"SESSION_TYPE": kind}
    if kind in ("sqlalchemy", "postgresql") and key not in (
        "SESSION_SQLALCHEMY",
        "SESSION_POSTGRESQL",
    ):
        settings[f"SESSION_{kind.upper()}"] = Pool() if kind == "postgresql" else engine(tmp_path)
    if kind == "peewee" and key == "SESSION_PEEWEE_TABLE":
        settings["SESSION_DB"] = need("peewee").SqliteDatabase(str(tmp_path / "x.db"))
    if key == "SESSION_PEEWEE_CONFIG":
        settings["SESSION_DB_CLASS"] = need("peewee").SqliteDatabase
    if key == "SESSION_DB_CLASS":
        settings["SESSION_PEEWEE_CONFIG"] = {"database": "x"}
    settings[key] = object()
    app = flask.Flask(__name__, instance_path=str(tmp_path))
    app.config.update(settings)
    with pytest.raises(SessionConfigError) as caught:
        Session(app)
    named = {"SESSION_PEEWEE_CONFIG": "SESSION_DB"}.get(key, key)
    assert named in str(caught.value)
