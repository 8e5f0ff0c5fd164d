"""Every import path, class and constructor of Flask-Session and Flask-Session2."""

from __future__ import annotations

import importlib
import inspect

import flask
import flask_session
import pytest
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.cachelib import CacheLibSessionInterface
from flask_session.config import BACKENDS
from flask_session.datastore import GoogleCloudDatastoreSessionInterface
from flask_session.dynamodb import DynamoDBSession, DynamoDBSessionInterface
from flask_session.elasticsearch import ElasticsearchSessionInterface
from flask_session.filesystem import FileSystemSession, FileSystemSessionInterface
from flask_session.firestore import GoogleFireStoreSessionInterface
from flask_session.memcached import MemcachedSessionInterface
from flask_session.mongodb import MongoDBSession, MongoDBSessionInterface
from flask_session.peewee import PeeweeSessionInterface
from flask_session.postgresql import PostgreSqlSessionInterface
from flask_session.redis import RedisSessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface

URL = "redis://127.0.0.1:1/0"

#: module: (session, interface)
MODULES = {
    "redis": ("RedisSession", "RedisSessionInterface"),
    "memcached": ("MemcachedSession", "MemcachedSessionInterface"),
    "filesystem": ("FileSystemSession", "FileSystemSessionInterface"),
    "cachelib": ("CacheLibSession", "CacheLibSessionInterface"),
    "mongodb": ("MongoDBSession", "MongoDBSessionInterface"),
    "sqlalchemy": ("SqlAlchemySession", "SqlAlchemySessionInterface"),
    "dynamodb": ("DynamoDBSession", "DynamoDBSessionInterface"),
    "postgresql": ("PostgreSqlSession", "PostgreSqlSessionInterface"),
    "elasticsearch": ("ElasticsearchSession", "ElasticsearchSessionInterface"),
    "datastore": ("GoogleCloudDataStoreSession", "GoogleCloudDatastoreSessionInterface"),
    "firestore": ("GoogleFireStoreSession", "GoogleFireStoreSessionInterface"),
    "peewee": ("PeeweeSession", "PeeweeSessionInterface"),
}
FLASK_SESSION2 = [name for name in MODULES if name not in ("cachelib", "postgresql")]


@pytest.mark.parametrize("module", MODULES)
def test_modules(module):
    found = importlib.import_module(f"flask_session.{module}")
    session, interface = (getattr(found, name) for name in MODULES[module])
    assert issubclass(session, ServerSideSession)
    assert issubclass(interface, ServerSideSessionInterface)
    assert interface.session_class is session
    assert session({"a": 1}, sid="x" * 16, permanent=True) == {"a": 1, "_permanent": True}


@pytest.mark.parametrize("module", FLASK_SESSION2)
def test_names_of_flask_session2(module):
    found = importlib.import_module(f"flask_session.{module}")
    sessions = importlib.import_module("flask_session.sessions")
    session, interface = MODULES[module]
    assert getattr(sessions, session) is getattr(found, session)
    assert getattr(sessions, interface) is getattr(found, interface)
    assert getattr(flask_session, interface) is getattr(found, interface)


def test_other_names_of_flask_session2():
    from flask_session.sessions import NullSessionInterface, SessionInterface

    assert flask_session.NullSessionInterface is NullSessionInterface
    assert SessionInterface is ServerSideSessionInterface
    assert type(NullSessionInterface()).open_session(None, None, None) is None


def test_every_type_is_here():
    assert set(MODULES) | {"memory", "sqlite"} == set(BACKENDS)


# ---- redis --------------------------------------------------------------------------------------


@pytest.fixture
def client():
    redis = pytest.importorskip("redis")
    return redis.Redis(port=1, socket_timeout=1, retry=None)


@pytest.fixture
def app():
    return flask.Flask(__name__)


def test_redis_without_an_application(client):
    interface = RedisSessionInterface(client=client)
    assert (interface.client, interface.app) == (client, None)
    assert (interface.key_prefix, interface.permanent) == ("session:", True)


def test_redis_in_flask_session_s_order(app, client):
    interface = RedisSessionInterface(app, client, "p:", True, False, 16, "json")
    assert (interface.app, interface.client) == (app, client)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")


@pytest.mark.parametrize("given", [("p:", True, False), ("p:", True), ("p:",)])
def test_redis_in_flask_session2_s_order(client, given):
    interface = RedisSessionInterface(client, *given)
    assert interface.client is client
    assert interface.key_prefix == "p:"
    assert interface.use_signer is (len(given) > 1)
    assert interface.permanent is (len(given) < 3)


def test_redis_in_flask_session2_s_order_by_name(client):
    interface = RedisSessionInterface(redis=client, key_prefix="p:")
    assert (interface.client, interface.key_prefix) == (client, "p:")


def test_redis_in_flask_session2_s_order_with_the_default_client():
    pytest.importorskip("redis")
    interface = RedisSessionInterface(None, "session:", False, True)
    assert interface.client.connection_pool.connection_kwargs["port"] == 6379
    assert (interface.key_prefix, interface.use_signer) == ("session:", False)


def test_redis_url_in_second_place_is_the_client():
    pytest.importorskip("redis")
    interface = RedisSessionInterface(None, URL)
    assert interface.client.connection_pool.connection_kwargs["port"] == 1
    assert interface.key_prefix == "session:"


# ---- filesystem ---------------------------------------------------------------------------------


def test_filesystem_in_flask_session_s_order(app, tmp_path):
    interface = FileSystemSessionInterface(
        app, "p:", True, False, 16, "json", str(tmp_path / "x"), 7, 0o640
    )
    assert interface.app is app
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface._options == {"path": str(tmp_path / "x"), "threshold": "7", "mode": "0640"}


@pytest.mark.parametrize("given", [("p:", True, False), ("p:", True), ("p:",)])
def test_filesystem_in_flask_session2_s_order(tmp_path, given):
    interface = FileSystemSessionInterface(str(tmp_path), 7, 384, *given)
    assert interface._options == {"path": str(tmp_path), "threshold": "7", "mode": "0600"}
    assert interface.key_prefix == "p:"
    assert interface.use_signer is (len(given) > 1)
    assert interface.permanent is (len(given) < 3)


def test_filesystem_by_name(tmp_path):
    interface = FileSystemSessionInterface(cache_dir=tmp_path, threshold=7)
    assert interface._options == {"path": str(tmp_path), "threshold": "7", "mode": "0600"}
    assert interface.app is None


def test_filesystem_defaults(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    interface = FileSystemSessionInterface()
    assert interface._options == {"path": "flask_session", "threshold": "500", "mode": "0600"}
    app = flask.Flask(__name__)
    app.session_interface = interface
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is FileSystemSession


# ---- cachelib -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:cachelib loads")
def test_cachelib_in_flask_session_s_order(app):
    cache = pytest.importorskip("cachelib").SimpleCache()
    interface = CacheLibSessionInterface(app, cache, "p:", True, False, 16, "json")
    assert interface.app is app
    assert interface.cache is cache
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert CacheLibSessionInterface(client=cache).cache is cache


# ---- mongodb ------------------------------------------------------------------------------------


@pytest.fixture
def mongo_client():
    pymongo = pytest.importorskip("pymongo")
    with pymongo.MongoClient("mongodb://127.0.0.1:1/", connect=False, timeoutMS=1000) as made:
        yield made


def test_mongodb_in_flask_session_s_order(app, mongo_client):
    interface = MongoDBSessionInterface(
        app, mongo_client, "p:", True, False, 16, "json", "data", "visits"
    )
    assert (interface.app, interface.client) == (app, mongo_client)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.store == mongo_client.data.visits


def test_mongodb_without_an_application(mongo_client):
    interface = MongoDBSessionInterface(client=mongo_client)
    assert (interface.client, interface.app) == (mongo_client, None)
    assert interface.store == mongo_client.flask_session.sessions


@pytest.mark.parametrize("given", [("p:", True, False, True), ("p:", True), ("p:",)])
def test_mongodb_in_flask_session2_s_order(mongo_client, given):
    interface = MongoDBSessionInterface(mongo_client, "data", "visits", *given)
    assert interface.client is mongo_client
    assert interface.store == mongo_client.data.visits
    assert interface.key_prefix == "p:"
    assert interface.use_signer is (len(given) > 1)
    assert interface.permanent is (len(given) < 3)


def test_mongodb_in_flask_session2_s_order_with_the_default_client():
    pytest.importorskip("pymongo")
    interface = MongoDBSessionInterface(None, "data", "visits", "p:", False, True, True)
    assert interface.client.codec_options.tz_aware
    assert interface.client._topology_settings.seeds == {("127.0.0.1", 27017)}
    assert (interface.store.name, interface.key_prefix) == ("visits", "p:")


def test_mongodb_url_in_second_place_is_the_client():
    pytest.importorskip("pymongo")
    interface = MongoDBSessionInterface(None, "mongodb://127.0.0.1:1/")
    assert interface.client._topology_settings.seeds == {("127.0.0.1", 1)}
    assert interface.key_prefix == "session:"
    interface.client.close()
    app = flask.Flask(__name__)
    app.session_interface = interface
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is MongoDBSession


# ---- elasticsearch ------------------------------------------------------------------------------


@pytest.fixture
def search_client():
    library = pytest.importorskip("elasticsearch")
    with library.Elasticsearch("http://127.0.0.1:1") as made:
        yield made


def hosts_of(client):
    return [node.base_url for node in client.transport.node_pool.all()]


def test_elasticsearch_in_the_order_of_the_others(app, search_client):
    interface = ElasticsearchSessionInterface(
        app, search_client, "p:", True, False, 16, "json", index="visits", cleanup_n_requests=9
    )
    assert (interface.app, interface.client) == (app, search_client)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert (interface.index, interface.cleanup_n_requests) == ("visits", 9)
    assert interface.ttl is False


@pytest.mark.parametrize("given", [("p:", True, False), ("p:", True), ("p:",)])
def test_elasticsearch_in_flask_session2_s_order(search_client, given):
    interface = ElasticsearchSessionInterface(search_client, "http://unused:1", "visits", *given)
    assert (interface.client, interface.index) == (search_client, "visits")
    assert interface.key_prefix == "p:"
    assert interface.use_signer is (len(given) > 1)
    assert interface.permanent is (len(given) < 3)


def test_elasticsearch_in_flask_session2_s_order_with_a_host():
    pytest.importorskip("elasticsearch")
    interface = ElasticsearchSessionInterface(None, "http://127.0.0.1:1", "visits", "p:", False)
    assert hosts_of(interface.client) == ["http://127.0.0.1:1"]
    assert (interface.index, interface.key_prefix) == ("visits", "p:")


def test_elasticsearch_without_arguments():
    pytest.importorskip("elasticsearch")
    interface = ElasticsearchSessionInterface()
    assert hosts_of(interface.client) == ["http://localhost:9200"]
    assert (interface.index, interface.key_prefix) == ("sessions", "session:")


# ---- dynamodb -----------------------------------------------------------------------------------


def dynamodb(kind):
    """A resource or a client, of a region where nothing is asked of it."""
    config = pytest.importorskip("botocore.config").Config(
        connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1}
    )
    session = pytest.importorskip("boto3").Session("x", "y", region_name="eu-west-1")
    return getattr(session, kind)("dynamodb", config=config)


def test_dynamodb_in_flask_session_s_order(app):
    resource = dynamodb("resource")
    interface = DynamoDBSessionInterface(
        app, resource, "p:", True, False, 16, "json", "visits", True
    )
    assert (interface.app, interface.client) == (app, resource)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.store == resource.Table("visits")
    app.session_interface = interface
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is DynamoDBSession


@pytest.mark.parametrize("kind", ["resource", "client"])
def test_dynamodb_without_an_application(kind):
    client = dynamodb(kind)
    interface = DynamoDBSessionInterface(client=client)
    assert (interface.client, interface.app) == (client, None)
    assert (interface.table_name, interface.serializer.format) == ("Sessions", "msgpack")
    assert getattr(interface.store, "name", None) == ("Sessions" if kind == "resource" else None)


URL_OF_DYNAMODB = "http://127.0.0.1:1"


@pytest.mark.parametrize("more", [("k", "secret", "eu-west-1", True, False), ("k", "secret")])
def test_dynamodb_in_flask_session2_s_order(monkeypatch, more):
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    for interface in (
        DynamoDBSessionInterface(None, "p:", URL_OF_DYNAMODB, "visits", *more),
        DynamoDBSessionInterface(
            **dict(zip(("endpoint_url", "table_name"), (URL_OF_DYNAMODB, "visits"), strict=True)),
            **dict(zip(("session", "key_prefix"), (None, "p:"), strict=True)),
            aws_access_key_id="k", aws_secret_access_key="secret", region="eu-west-1",
            use_signer=len(more) > 2, permanent=len(more) < 3,
        ),
    ):  # fmt: skip
        assert interface.client.meta.endpoint_url == URL_OF_DYNAMODB
        assert interface.client.meta.region_name == "eu-west-1"
        assert (interface.table_name, interface.key_prefix) == ("visits", "p:")
        assert (interface.store, interface.serializer.format) == (None, "json")
        assert interface.use_signer is (len(more) > 2)
        assert interface.permanent is (len(more) < 3)


def test_dynamodb_in_flask_session2_s_order_with_a_session():
    session = pytest.importorskip("boto3").Session("x", "y", region_name="eu-west-1")
    interface = DynamoDBSessionInterface(session, "p:", URL_OF_DYNAMODB, "visits")
    assert interface.client.meta.endpoint_url == URL_OF_DYNAMODB
    assert (interface.table_name, interface.key_prefix) == ("visits", "p:")


# ---- memcached ----------------------------------------------------------------------------------


def test_memcached_in_the_order_of_both_predecessors(app):
    client = pytest.importorskip("pymemcache").Client(
        ("127.0.0.1", 1), timeout=1, connect_timeout=1
    )
    interface = MemcachedSessionInterface(app, client, "p:", True, False, 16, "json")
    assert (interface.app, interface.client) == (app, client)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert MemcachedSessionInterface(client=client).client is client


def test_memcached_default_client():
    library = pytest.importorskip("pylibmc")  # the first choice of Flask-Session
    interface = MemcachedSessionInterface(None, None, "session:", False, True)
    assert type(interface.client) is library.Client
    assert interface.client.addresses == ["127.0.0.1:11211"]
    assert interface.key_prefix == "session:"


# ---- sqlalchemy ---------------------------------------------------------------------------------


@pytest.fixture
def db(app):
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:////nowhere/main.sqlite3"
    app.config["SQLALCHEMY_BINDS"] = {"other": "sqlite:////nowhere/other.sqlite3"}
    return pytest.importorskip("flask_sqlalchemy").SQLAlchemy(app)


def test_sqlalchemy_in_flask_session_s_order(app, db):
    interface = SqlAlchemySessionInterface(
        app, db, "p:", True, False, 16, "json", "t", "numbers", "s", "other", 9
    )
    assert (interface.app, interface.client) == (app, db)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.cleanup_n_requests == 9
    assert interface.ttl is False
    table = interface.sql_session_model.__table__
    assert (table.name, table.schema, table.metadata.info) == ("t", "s", {"bind_key": "other"})
    assert table.c.id.default.name == "numbers"


@pytest.mark.parametrize("more", [(), (True,), (True, False), (True, False, "numbers", True)])
def test_sqlalchemy_in_flask_session2_s_order(app, db, more):
    interface = SqlAlchemySessionInterface(app, db, "t", "p:", *more)
    assert interface.client is db
    assert interface.key_prefix == "p:"
    assert interface.use_signer is bool(more)
    assert interface.permanent is (len(more) < 2)
    table = interface.sql_session_model.__table__
    assert table.name == "t"
    assert (table.c.id.default is not None) is (len(more) > 2)
    cleaning = interface._cleanup_n_requests in app.before_request_funcs.get(None, [])
    assert cleaning is (len(more) > 2)


def test_sqlalchemy_by_name(app, db):
    interface = SqlAlchemySessionInterface(app, client=db, table="t", cleanup_n_requests=5)
    assert interface.sql_session_model.__table__.name == "t"
    assert interface.key_prefix == "session:"
    older = SqlAlchemySessionInterface(app, db=db, table="t", key_prefix="p:")
    assert (older.client, older.key_prefix) == (db, "p:")


def test_sqlalchemy_without_an_application():
    engine = pytest.importorskip("sqlalchemy").create_engine("sqlite:////nowhere/x.sqlite3")
    interface = SqlAlchemySessionInterface(client=engine)
    assert (interface.client, interface.app) == (engine, None)


# ---- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [RedisSessionInterface, FileSystemSessionInterface])
def test_wrong_arguments(cls):
    with pytest.raises(TypeError, match="takes at most"):
        cls(*[None] * 12)
    places = (URL,) if cls is RedisSessionInterface else ("dir", 500, 0o600)
    with pytest.raises(TypeError, match="got two values for key_prefix"):
        cls(*places, "p:", key_prefix="q:")
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        cls(nonsense=1)


def test_base_has_the_predecessor_s_methods():
    for name in (
        "_retrieve_session_data",
        "_delete_session",
        "_upsert_session",
        "_delete_expired_sessions",
        "_generate_sid",
        "_get_store_id",
        "should_set_storage",
        "regenerate",
    ):
        assert callable(getattr(ServerSideSessionInterface, name))
    first = list(inspect.signature(ServerSideSessionInterface.__init__).parameters)
    assert first[1:] == [
        "app",
        "key_prefix",
        "use_signer",
        "permanent",
        "sid_length",
        "serialization_format",
        "cleanup_n_requests",
    ]


# ---- postgresql ---------------------------------------------------------------------------------

DSN = "postgresql://127.0.0.1:1/none"


def test_postgresql_in_flask_session_s_order(app):
    pytest.importorskip("psycopg")
    interface = PostgreSqlSessionInterface(
        app, DSN, "p:", True, False, 16, "json", "t", 'odd"%s', 9
    )
    assert interface.app is app
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.cleanup_n_requests == 9
    assert interface._queries.table == '"odd""%s"."t"'
    assert 'FROM\n"odd""%%s"."t"\n' in interface._queries.retrieve_session_data
    assert interface.ttl is False


@pytest.mark.parametrize("name", ["pool", "client"])
def test_postgresql_by_name(name):
    pytest.importorskip("psycopg2")

    class Pool:
        def getconn(self): ...
        def putconn(self, connection): ...

    pool = Pool()
    interface = PostgreSqlSessionInterface(**{name: pool})
    assert interface.client is interface.pool is pool
    assert interface._queries.table == '"public"."flask_sessions"'
    assert interface.app is None


# ---- peewee -------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    return pytest.importorskip("peewee").SqliteDatabase(str(tmp_path / "sessions.db"))


def test_peewee_in_flask_session2_s_order(database):
    interface = PeeweeSessionInterface(database, {}, None, "t", "p:", True, False)
    assert interface.client is interface.db is database
    assert interface.sql_session_model._meta.table_name == "t"
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)


def test_peewee_in_flask_session2_s_order_with_a_class(tmp_path):
    peewee = pytest.importorskip("peewee")
    config = {"database": str(tmp_path / "other.db")}
    given = (None, config, peewee.SqliteDatabase, "t", "p:")
    for interface in (
        PeeweeSessionInterface(*given, False, True),
        PeeweeSessionInterface(*given),
        PeeweeSessionInterface(
            db=None, db_config=config, db_type=peewee.SqliteDatabase, table="t", key_prefix="p:"
        ),
    ):
        assert type(interface.db) is peewee.SqliteDatabase
        assert interface.db.database == config["database"]
        assert interface.sql_session_model._meta.table_name == "t"
        assert (interface.key_prefix, interface.permanent) == ("p:", True)


def test_peewee_in_the_order_of_the_others(app, database):
    interface = PeeweeSessionInterface(app, database, "p:", True, False, 16, "json", "t", 9)
    assert (interface.app, interface.client) == (app, database)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.sql_session_model._meta.table_name == "t"
    assert interface.cleanup_n_requests == 9
    assert interface.ttl is False


# ---- datastore, firestore -----------------------------------------------------------------------


@pytest.fixture
def datastore_client(monkeypatch):
    datastore = pytest.importorskip("google.cloud.datastore")
    monkeypatch.setenv("DATASTORE_EMULATOR_HOST", "127.0.0.1:1")
    return datastore.Client(project="tests")


def test_datastore_in_flask_session_s_order(app, datastore_client):
    given = ("p:", True, False, 16, "json", "other")
    interface = GoogleCloudDatastoreSessionInterface(app, datastore_client, *given)
    assert (interface.app, interface.client) == (app, datastore_client)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.gcloud_project == "other"
    assert interface.ttl is False


@pytest.mark.parametrize("given", [("p:", True, False), ("p:", True), ("p:",)])
@pytest.mark.parametrize("named", [False, True])
def test_datastore_in_flask_session2_s_order(datastore_client, given, named):
    if named:
        names = ("key_prefix", "use_signer", "permanent")
        arguments = dict(zip(names, given))  # noqa: B905
        interface = GoogleCloudDatastoreSessionInterface(gcloud_project="tests", **arguments)
    else:
        interface = GoogleCloudDatastoreSessionInterface("tests", *given)
    assert interface.gcloud_project == interface.client.project == "tests"
    assert interface.key_prefix == "p:"
    assert interface.use_signer is (len(given) > 1)
    assert interface.permanent is (len(given) < 3)


@pytest.fixture
def firestore_client(monkeypatch):
    firestore = pytest.importorskip("google.cloud.firestore")
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    return firestore.Client(project="tests")


def test_firestore_in_flask_session_s_order(app, firestore_client):
    given = ("p:", True, False, 16, "json", "visits")
    interface = GoogleFireStoreSessionInterface(app, firestore_client, *given)
    assert (interface.app, interface.client) == (app, firestore_client)
    assert (interface.key_prefix, interface.use_signer, interface.permanent) == ("p:", True, False)
    assert (interface.sid_length, interface.serializer.format) == (16, "json")
    assert interface.store == firestore_client.collection("visits")
    assert interface.ttl is False


@pytest.mark.parametrize("given", [("p:", True, False), ("p:", True), ("p:",)])
def test_firestore_in_flask_session2_s_order(firestore_client, given):
    interface = GoogleFireStoreSessionInterface(firestore_client, "visits", *given)
    assert interface.client is firestore_client
    assert interface.store == firestore_client.collection("visits")
    assert interface.key_prefix == "p:"
    assert interface.use_signer is (len(given) > 1)
    assert interface.permanent is (len(given) < 3)


def test_firestore_by_name(firestore_client):
    interface = GoogleFireStoreSessionInterface(client=firestore_client)
    assert (interface.client, interface.app) == (firestore_client, None)
    assert interface.store == firestore_client.collection("flask_session")
