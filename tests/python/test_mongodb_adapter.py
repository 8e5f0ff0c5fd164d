"""What is special to MongoDB: test_row_contract.py has the contract."""

from __future__ import annotations

import logging
import time
import warnings
from datetime import datetime, timedelta, timezone

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.mongodb import MongoDBSessionInterface, MongoDBStore

from tests.rows import new_prefix
from tests.services import FerretDBService, MongoDBService

pymongo = pytest.importorskip("pymongo")
monitoring = pytest.importorskip("pymongo.monitoring")

pytestmark = [pytest.mark.server, pytest.mark.client]

HOUR = 3_600_000


@pytest.fixture(scope="module")
def url(services):
    return services.start(MongoDBService).url


class Sent(monitoring.CommandListener):
    """The commands that went over the wire."""

    def __init__(self):
        self.commands = []

    def started(self, event):
        self.commands.append(event.command)

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass

    def names(self):
        return [next(iter(command)) for command in self.commands]


@pytest.fixture
def client(url):
    with pymongo.MongoClient(url, timeoutMS=5000) as made:
        yield made


@pytest.fixture
def collection(client):
    """A collection of this test alone, without indexes."""
    made = client[f"db{new_prefix()[:-1]}"]["sessions"]
    yield made
    client.drop_database(made.database.name)


def adapter(collection, client=None):
    client = client or collection.database.client
    return MongoDBStore(lambda: client, collection.database.name, collection.name)


@pytest.fixture
def store(collection):
    return _core.Store.wrap(adapter(collection))


def documents(collection):
    return list(collection.find({}, {"_id": 0}))


# ---- the documents ------------------------------------------------------------------------------


def test_document(store, collection):
    before = datetime.now(timezone.utc).replace(tzinfo=None)
    assert store.create("k", b"one", HOUR)
    [document] = collection.find()
    expiration = document.pop("expiration")
    assert document == {"_id": "k", "id": "k", "val": b"one"}
    assert timedelta(0) <= expiration - before - timedelta(hours=1) < timedelta(minutes=1)


def test_indexes(store, collection):
    store.create("k", b"one", HOUR)
    found = collection.index_information()
    assert found["id_1"]["unique"]
    assert found["expiration_1"]["expireAfterSeconds"] == 0


@pytest.mark.parametrize("tz_aware", [False, True])
def test_predecessors_documents(url, collection, tz_aware):
    """With an ObjectId, dates of naive and aware writers, to the microsecond."""
    with pymongo.MongoClient(url, tz_aware=tz_aware, timeoutMS=5000) as client:
        store = _core.Store.wrap(adapter(collection, client))
        naive = datetime.now(timezone.utc).replace(tzinfo=None)
        aware = datetime.now(timezone(timedelta(hours=9)))
        for now in (naive, aware):
            collection.delete_many({})
            for key, seconds in (("live", 3600), ("dead", -1)):
                expiration = now + timedelta(seconds=seconds)
                collection.insert_one({"id": key, "val": b"one", "expiration": expiration})
            assert store.load("dead") is None
            value, version, expires = store.load("live")
            assert (value, version) == (b"one", b"")
            assert abs(expires - time.time() * 1000 - HOUR) < 60_000
            assert store.replace("live", b"one", b"", b"two", HOUR) == _core.OK
            assert store.replace("dead", b"one", b"", b"two", HOUR) == _core.GONE
            assert store.touch("dead", b"one", b"", HOUR) == _core.GONE
            assert store.create("live", b"three", HOUR) is False
            assert store.create("dead", b"three", HOUR) is True
            held = {document["id"]: document["val"] for document in documents(collection)}
            assert held == {"live": b"two", "dead": b"three"}


@pytest.mark.parametrize("document", [{"expiration": None}, {}])
def test_without_expiration(store, collection, document):
    """As Flask-Session2 stores a session that is not permanent."""
    collection.insert_one({"id": "k", "val": b"one", **document})
    assert store.load("k") == (b"one", b"", _core.EXPIRES_NEVER)
    assert store.create("k", b"two", HOUR) is False
    assert store.purge() == 0
    assert store.touch("k", b"one", b"", HOUR) == _core.OK
    assert store.load("k")[2] > time.time() * 1000
    collection.update_one({"id": "k"}, {"$set": {"expiration": None}})
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.OK
    assert store.load("k")[2] > time.time() * 1000


@pytest.mark.parametrize(
    "document",
    [
        {"val": "text", "expiration": datetime(2099, 1, 1)},
        {"val": {"a": 1}, "expiration": datetime(2099, 1, 1)},
        {"expiration": datetime(2099, 1, 1)},
        {"val": b"one", "expiration": 4_000_000_000},
        {"val": b"one", "expiration": "2099-01-01T00:00:00"},
    ],
    ids=["text", "dict", "no-value", "number", "text-date"],
)
def test_other_documents_are_no_session_and_left_alone(store, collection, document):
    collection.insert_one({"id": "k", **document})
    assert store.load("k")[0] == b""
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch("k", b"one", b"", HOUR) == _core.GONE
    assert store.create("k", b"two", HOUR) is False
    assert store.purge() == 0
    assert documents(collection) == [{"id": "k", **document}]


def test_dates_that_python_does_not_have(store, collection):
    from bson.datetime_ms import DatetimeMS

    collection.insert_one({"id": "k", "val": b"one", "expiration": DatetimeMS(2**55)})
    assert store.load("k") == (b"one", b"", 2**55)


def test_a_nul_in_the_key(store):
    assert store.create("a\0b", b"one", HOUR)
    assert store.load("a\0b")[0] == b"one"
    assert store.load("a") is None
    store.remove("a\0b")
    assert store.load("a\0b") is None


def test_size(store):
    limit = 8_380_416
    assert store.create("k", b"x" * limit, HOUR)
    assert store.replace("k", b"x" * limit, b"", b"y" * limit, HOUR) == _core.OK
    assert store.touch("k", b"y" * limit, b"", HOUR) == _core.OK
    for refused in (
        lambda: store.create("other", b"x" * (limit + 1), HOUR),
        lambda: store.replace("k", b"y" * limit, b"", b"z" * (limit + 1), HOUR),
    ):
        with pytest.raises(SessionStoreError) as caught:
            refused()
        assert str(caught.value.__cause__) == (
            f"a session in MongoDB can have {limit} bytes, this one has {limit + 1}"
        )
    assert store.load("other") is None
    assert store.load("k")[0] == b"y" * limit


# ---- what is sent -------------------------------------------------------------------------------


def test_reads_ask_the_primary(url, collection):
    sent = Sent()
    with pymongo.MongoClient(
        url,
        readPreference="secondary",
        readConcernLevel="available",
        event_listeners=[sent],
        document_class=__import__("bson").SON,
        timeoutMS=5000,
    ) as client:
        store = _core.Store.wrap(adapter(collection, client))
        store.create("k", b"one", HOUR)
        sent.commands.clear()
        assert store.load("k")[0] == b"one"
        [find] = sent.commands
        assert find["find"] == "sessions"
        assert find["readConcern"] == {"level": "local"}
        assert find.get("$readPreference", {"mode": "primary"}) == {"mode": "primary"}
        assert adapter(collection, client)._collection().read_preference.mode == 0


def test_operations_are_one_command_each(url, collection):
    sent = Sent()
    with pymongo.MongoClient(url, event_listeners=[sent], timeoutMS=5000) as client:
        store = _core.Store.wrap(adapter(collection, client))
        for operation, commands in (
            (lambda: store.create("k", b"one", HOUR), ["createIndexes", "createIndexes", "update"]),
            (lambda: store.load("k"), ["find"]),
            (lambda: store.touch("k", b"one", b"", HOUR), ["update"]),
            (lambda: store.replace("k", b"one", b"", b"two", HOUR), ["update"]),
            (lambda: store.replace("k", b"one", b"", b"two", HOUR), ["update", "find"]),
            (lambda: store.create("k", b"one", HOUR), ["update"]),
            (lambda: store.create("l", b"one", HOUR), ["update"]),
            (lambda: store.remove("k"), ["delete"]),
        ):
            sent.commands.clear()
            operation()
            assert sent.names() == commands


# ---- indexes that are refused --------------------------------------------------------------------


def refuse(adapter, code, indexes):
    """Let the server refuse to make these indexes."""
    collection = adapter._collection()

    def create_index(field, **options):
        if field in indexes:
            raise pymongo.errors.OperationFailure("no", code)
        return type(collection).create_index(collection, field, **options)

    collection.create_index = create_index


@pytest.mark.parametrize("indexes", [("id",), ("expiration",), ("id", "expiration")])
def test_refused_indexes(collection, caplog, indexes):
    made = adapter(collection)
    refuse(made, 13, indexes)
    store = _core.Store.wrap(made)
    collection.insert_one({"id": "old", "val": b"old", "expiration": datetime(2099, 1, 1)})
    collection.insert_one({"id": "gone", "val": b"old", "expiration": datetime(2001, 1, 1)})
    with caplog.at_level(logging.WARNING, "flask_session"):
        assert store.create("k", b"one", HOUR) is True
        assert store.create("k", b"two", HOUR) is False
        assert store.create("old", b"two", HOUR) is False
        assert store.create("gone", b"new", HOUR) is True
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(indexes)
    assert all("OperationFailure, code 13" in text for text in told)
    assert sorted((row["id"], row["val"]) for row in documents(collection)) == [
        ("gone", b"new"),
        ("k", b"one"),
        ("old", b"old"),
    ]


def test_duplicates_of_a_predecessor(collection, caplog):
    """They cannot be indexed; removing removes all of them."""
    for value in (b"one", b"two"):
        collection.insert_one({"id": "k", "val": value, "expiration": datetime(2099, 1, 1)})
    store = _core.Store.wrap(adapter(collection))
    assert store.create("k", b"three", HOUR) is False
    assert "DuplicateKeyError, code 11000" in caplog.text
    store.remove("k")
    assert documents(collection) == []


def test_no_index_does_not_mean_two_documents(collection):
    """The race that a look beforehand cannot see is decided by the _id."""
    first, second = adapter(collection), adapter(collection)
    for one in (first, second):
        refuse(one, 13, ("id",))
        one._make_indexes(one._collection())
    second.load = lambda key, timeout: None  # it looked before the first one wrote
    assert first.create("k", b"one", HOUR, 1) is True
    assert second.create("k", b"two", HOUR, 1) is False
    assert [row["val"] for row in documents(collection)] == [b"one"]


def test_a_dead_server_is_no_refusal(free_port):
    with pymongo.MongoClient(port=free_port(), timeoutMS=200, connect=False) as client:
        made = MongoDBStore(lambda: client, "db", "sessions")
        with pytest.raises(pymongo.errors.ServerSelectionTimeoutError):
            made.create("k", b"one", HOUR, 1)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ferretdb(services, caplog):
    """A server of another make; it refuses a TTL index."""
    url = services.start(FerretDBService).url
    with pymongo.MongoClient(url, timeoutMS=10_000) as client:
        store = _core.Store.wrap(MongoDBStore(lambda: client, "db", "sessions"))
        assert store.create("k", b"one", HOUR) is True
        assert "the index on expiration" in caplog.text
        assert "the index on id" not in caplog.text
        assert store.create("k", b"two", HOUR) is False
        assert store.replace("k", b"one", b"", b"two", HOUR) == _core.OK
        assert store.replace("k", b"one", b"", b"three", HOUR)[0] == b"two"
        assert store.touch("k", b"one", b"", HOUR) == _core.CHANGED
        assert store.touch("k", b"two", b"", HOUR) == _core.OK
        store.create("short", b"x", 1)
        time.sleep(0.05)
        assert store.load("short") is None
        assert store.purge() == 1
        assert [key for key, _, _ in store.scan(b"", 10)[1]] == [b"k"]
        store.remove("k")
        assert store.load("k") is None


@pytest.mark.server
def test_the_server_deletes_what_has_expired(services):
    server = services.own(lambda folder: MongoDBService(folder, ttl_seconds=0.2))
    try:
        with pymongo.MongoClient(server.url, timeoutMS=5000) as client:
            store = _core.Store.wrap(MongoDBStore(lambda: client, "db", "sessions"))
            store.create("short", b"x", 1)
            store.create("long", b"x", HOUR)
            end = time.monotonic() + 30
            while client.db.sessions.count_documents({"id": "short"}) and time.monotonic() < end:
                time.sleep(0.05)
            assert [row["id"] for row in client.db.sessions.find()] == ["long"]
    finally:
        server.end()


# ---- clients -------------------------------------------------------------------------------------


def interface(client, **settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="mongodb", SESSION_MONGODB=client, **settings)
    Session(app)
    return app.session_interface


class Motor:
    """Has what is asked for, as coroutines."""

    async def list_database_names(self):
        return []


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: pymongo.AsyncMongoClient(connect=False), "is an asyncio client"),
        (Motor, "is an asyncio client"),
        (
            lambda: pymongo.MongoClient(connect=False).db,
            "must be a synchronous pymongo.MongoClient",
        ),
        (object, "must be a synchronous pymongo.MongoClient"),
        (lambda: pymongo.MongoClient(w=0, connect=False), "w=0"),
    ],
    ids=["async", "motor", "database", "object", "w0"],
)
@pytest.mark.filterwarnings("ignore:the client in SESSION_MONGODB")
def test_refused_clients(make, text):
    with pytest.raises(SessionConfigError, match=text):
        interface(make())


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://app:secret-word@",
        "mongodb://app:secret-word@host:x/",
        "mongodb://app:secret@word@h/",
        "localhost:27017",
    ],
)
def test_wrong_urls_do_not_show_the_password(url):
    with pytest.raises(SessionConfigError) as caught:
        interface(url)
    assert "mongodb://" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_url_with_w0_is_refused():
    with pytest.raises(SessionConfigError, match="w=0"):
        interface("mongodb://127.0.0.1/?w=0")


@pytest.mark.parametrize("settings", [{"SESSION_MONGODB_DB": "a b"}, {"SESSION_MONGODB_DB": ""},
    {"SESSION_MONGODB_COLLECT": "$x"}, {"SESSION_MONGODB_COLLECT": 7}])  # fmt: skip
def test_wrong_names(settings):
    with pytest.raises(SessionConfigError, match=next(iter(settings))):
        interface(None, **settings)


def test_a_missing_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymongo", None)
    with pytest.raises(SessionConfigError, match=r"cession\[mongodb\]"):
        interface(None)


def test_slow_clients_are_warned_about():
    for options in ({}, {"serverSelectionTimeoutMS": 1000}, {"socketTimeoutMS": 1000}):
        with pytest.warns(UserWarning, match="SESSION_MONGODB"):
            interface(pymongo.MongoClient(connect=False, **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interface(pymongo.MongoClient(connect=False, timeoutMS=2000))
        limits = {"serverSelectionTimeoutMS": 2000, "socketTimeoutMS": 2000}
        interface(pymongo.MongoClient(connect=False, **limits))


def test_a_factory(client):
    assert interface(lambda: client).client is client


def test_our_own_client_has_our_timeout():
    made = interface(None, SESSION_STORE_TIMEOUT=0.7, SESSION_MONGODB_TZ_AWARE=True)
    options = made.client.options
    assert (options.timeout, options.server_selection_timeout) == (0.7, 0.7)
    assert options.pool_options.connect_timeout == 0.7
    assert made.client.codec_options.tz_aware
    assert made.client is made.client


def test_a_fork_makes_a_client_of_its_own(url, forked):
    made = MongoDBSessionInterface(client=url, key_prefix=new_prefix())
    parent = made.client
    store = made._store
    store.create("k", b"one", HOUR)

    def child(pipe):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mine = made.client
            value = store.load("k")[0]
            pipe.send((mine is parent, mine is made.client, value))

    assert forked(child).recv() == (False, True, b"one")
    assert store.load("k")[0] == b"one"
    assert made.client is parent
    store.remove("k")
    parent.close()
