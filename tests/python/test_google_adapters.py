"""What is special to Google's Datastore and Firestore: test_row_contract.py has the contract."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.datastore import GoogleCloudDatastoreSessionInterface
from flask_session.firestore import GoogleFireStoreSessionInterface

import tests
from tests.python.apps.counted import Site
from tests.rows import configuration, new_prefix, parameters
from tests.rows import datastore as datastore_rows
from tests.rows import firestore as firestore_rows
from tests.services import Unavailable, google

grpc = pytest.importorskip("grpc")
datastore = pytest.importorskip("google.cloud.datastore")
firestore = pytest.importorskip("google.cloud.firestore")

pytestmark = [pytest.mark.server, pytest.mark.client]

SECOND, HOUR = 1000, 3_600_000
LIMIT = 1_040_384


@pytest.fixture(
    params=parameters(lambda row: row.name.startswith(("datastore", "firestore"))), scope="module"
)
def row(request, start_row):
    return start_row(request.param)


class Records:
    """The records under a prefix as another program sees and writes them."""

    def __init__(self, row):
        self.prefix = new_prefix()
        self.is_firestore = row.name == "firestore"
        self.value, self.expiry = ("val", "expiration") if self.is_firestore else ("data", "expiry")
        rows = firestore_rows if self.is_firestore else datastore_rows
        self.client, self.where = rows.client(row.where), row.where

    def key(self, name):
        key = self.prefix + name
        if self.is_firestore:
            return self.client.collection(self.where["COLLECTION"]).document(key)
        return self.client.key("session", key)

    def get(self, name):
        if self.is_firestore:
            return self.key(name).get().to_dict()
        entity = self.client.get(self.key(name))
        return None if entity is None else dict(entity)

    def put(self, name, **fields):
        """With the names of Firestore's fields."""
        if self.is_firestore:
            self.key(name).set(fields)
            return
        names = {"val": "data", "expiration": "expiry"}
        entity = datastore.Entity(self.key(name), exclude_from_indexes=("data",))
        entity.update({names.get(field, field): value for field, value in fields.items()})
        self.client.put(entity)


@pytest.fixture
def records(row):
    return Records(row)


def make_app(row, **settings):
    app = flask.Flask(__name__)
    app.config.update(configuration(type(row), row.where, **settings))
    Session(app)
    return app


@pytest.fixture
def store(row, records):
    app = make_app(row, SESSION_KEY_PREFIX=records.prefix)
    return app.extensions["flask_session"].store


def adapter_of(row):
    """The adapter, without the extension around it."""
    return make_app(row).session_interface._open_store("").adapter


# ---- the records --------------------------------------------------------------------------------


def test_a_record_as_others_see_it(store, records):
    """The expiry is a timestamp, which a TTL policy needs."""
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    store.create("k", b"one", HOUR)
    record = records.get("k")
    expiry = record.pop(records.expiry)
    assert record.pop(records.value) == b"one"
    assert record == ({"id": records.prefix + "k"} if records.is_firestore else {})
    assert isinstance(expiry, datetime)
    assert expiry.utcoffset() == timedelta(0)
    assert timedelta(0) <= expiry - before - timedelta(hours=1) < timedelta(minutes=1)


def test_the_value_is_no_index_s(row, store, records):
    """Datastore refuses an indexed value above 1,500 bytes."""
    if records.is_firestore:
        return  # an exemption is the database's own setting
    for write in (
        lambda: store.create("k", b"x" * 2000, HOUR),
        lambda: store.touch("k", b"x" * 2000, b"", HOUR),
        lambda: store.replace("k", b"x" * 2000, b"", b"y" * 2000, HOUR),
    ):
        write()
        entity = records.client.get(records.key("k"))
        assert entity.exclude_from_indexes == {"data"}


@pytest.mark.parametrize("fields", [{"expiration": None}, {}])
def test_without_an_expiry(store, records, fields):
    """As Flask-Session2 stores a session that is not permanent."""
    records.put("k", val=b"one", **fields)
    value, version, expires = store.load("k")
    assert (value, expires) == (b"one", _core.EXPIRES_NEVER)
    assert store.create("k", b"two", HOUR) is False
    assert store.touch("k", b"one", version, HOUR) == _core.OK
    assert store.load("k")[2] > time.time() * 1000
    records.put("k", val=b"one", **fields)
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.OK
    assert store.load("k")[2] > time.time() * 1000


LATER = datetime(2099, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "fields",
    [
        {"val": "text", "expiration": LATER},
        {"expiration": LATER},
        {"val": b"one", "expiration": 4_000_000_000},
        {"val": b"one", "expiration": "2099-01-01T00:00:00"},
        {"val": [1, "a"], "expiration": LATER},
    ],
    ids=["text", "no-value", "number", "text-date", "list"],
)
def test_other_records_are_no_session_and_left_alone(store, records, fields):
    records.put("k", **fields)
    before = records.get("k")
    assert store.load("k")[0] == b""
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch("k", b"one", b"", HOUR) == _core.GONE
    assert store.create("k", b"two", HOUR) is False
    store.purge()
    assert records.get("k") == before


def test_an_old_date(store, records):
    records.put("k", val=b"one", expiration=datetime(1960, 1, 1, tzinfo=timezone.utc))
    assert store.load("k") is None
    assert store.create("k", b"two", HOUR) is True


def test_size(store):
    assert store.create("k", b"x" * LIMIT, HOUR)
    value, version, _ = store.load("k")
    assert store.replace("k", value, version, b"y" * LIMIT, HOUR) == _core.OK
    for refused in (
        lambda: store.create("other", b"x" * (LIMIT + 1), HOUR),
        lambda: store.replace("k", b"y" * LIMIT, b"", b"z" * (LIMIT + 1), HOUR),
    ):
        with pytest.raises(SessionStoreError, match=f"can have {LIMIT} bytes, .* 1 MiB"):
            refused()
    assert store.load("other") is None
    assert store.load("k")[0] == b"y" * LIMIT


def test_a_large_value_of_a_predecessor_is_touched(store, records):
    value = b"x" * (LIMIT + 1000)
    records.put("k", val=value, expiration=LATER)
    assert store.load("k")[0] == value
    assert store.touch("k", value, b"", HOUR) == _core.OK
    assert store.load("k")[2] < LATER.timestamp() * 1000


def test_listing_beside_other_records(row, records):
    """Without a prefix, and in small batches."""
    if not records.is_firestore:
        for number in range(1, 6):  # as Datastore numbers what has no name
            entity = datastore.Entity(records.client.key("session", number))
            entity.update(title="other")
            records.client.put(entity)
    store = make_app(row, SESSION_KEY_PREFIX="").extensions["flask_session"].store
    expected = {f"{records.prefix}k{number}" for number in range(7)}
    for key in expected:
        store.create(key, key.encode(), HOUR)
    records.put("foreign", val="text", expiration=LATER)
    seen, cursor = {}, b""
    while True:
        cursor, rows = store.scan(cursor, 3)
        seen.update({key.decode(): value for key, value, _ in rows})
        if not cursor:
            break
    ours = {key: value for key, value in seen.items() if key.startswith(records.prefix)}
    assert ours == {key: key.encode() for key in expected}


@pytest.mark.parametrize("key", ["__k__", "a/b", ".", ".."])
def test_keys_that_the_server_does_not_take(row, key):
    app = make_app(row, SESSION_KEY_PREFIX="")
    store = app.extensions["flask_session"].store
    if row.name != "firestore" and key != "__k__":
        assert store.create(key, b"one", SECOND)
        store.remove(key)
        return
    assert store.load(key) is None
    with pytest.raises((SessionStoreError, ValueError)):
        store.create(key, b"one", HOUR)
    assert store.replace(key, b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch(key, b"one", b"", HOUR) == _core.GONE
    store.remove(key)


def test_a_renewed_session_is_not_purged(row, store, records, monkeypatch):
    """Renewed between the search and the deletion; those that expired with it go."""
    for number in range(4):
        store.create(f"k{number}", b"x", 1)
    time.sleep(0.05)
    adapter_type = type(adapter_of(row))
    found = adapter_type._expired

    def expired(self, limit, timeout):
        records = found(self, limit, timeout)
        assert store.create("k2", b"renewed", HOUR) is True
        return records

    monkeypatch.setattr(adapter_type, "_expired", expired)
    store.purge()
    assert store.load("k2")[0] == b"renewed"
    assert [records.get(f"k{number}") is None for number in range(4)] == [True, True, False, True]


# ---- what is sent -------------------------------------------------------------------------------


class Sent(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """The requests of a test, with their deadlines."""

    def __init__(self):
        self.requests = []

    def _note(self, continuation, details, request):
        self.requests.append((details.method.rpartition("/")[2], request, details.timeout))
        return continuation(details, request)

    intercept_unary_unary = _note
    intercept_unary_stream = _note

    def take(self):
        taken, self.requests = self.requests, []
        return taken

    def names(self):
        return [name for name, _, _ in self.take()]


@pytest.fixture
def sent(monkeypatch):
    """What goes through channels that are opened from now on."""
    sent, insecure_channel = Sent(), grpc.insecure_channel

    def open_channel(*args, **kwargs):
        return grpc.intercept_channel(insecure_channel(*args, **kwargs), sent)

    monkeypatch.setattr(grpc, "insecure_channel", open_channel)
    return sent


def reads(row):
    return "BatchGetDocuments" if row.name == "firestore" else "Lookup"


def test_operations_are_one_request_each(row, sent):
    read = reads(row)
    store = make_app(row).extensions["flask_session"].store
    held = {}

    def load():
        held["k"] = store.load("k")

    for operation, requests in (
        (lambda: store.create("k", b"one", HOUR), ["Commit"]),
        (load, [read]),
        (lambda: store.touch("k", b"one", held["k"][1], HOUR), ["Commit"]),
        (load, [read]),
        (lambda: store.replace("k", b"one", held["k"][1], b"two", HOUR), ["Commit"]),
        # a stale version
        (lambda: store.replace("k", b"one", held["k"][1], b"three", HOUR), ["Commit", read]),
        (lambda: store.touch("k", b"two", held["k"][1], HOUR), ["Commit", read, "Commit"]),
        (lambda: store.create("k", b"one", HOUR), ["Commit", read]),
        (lambda: store.remove("k"), ["Commit"]),
    ):
        operation()
        assert sent.names() == requests


def test_reads_are_strongly_consistent_and_everything_has_a_deadline(row, sent, tmp_path):
    """What a whole visit sends."""
    app = make_app(row, SESSION_STORE_TIMEOUT=7, PERMANENT_SESSION_LIFETIME=86_400)
    site = Site(tmp_path, **app.config)
    visitor = site.app.test_client()
    for path in ("/set/user/ann", "/get", "/set/user/bob", "/mark", "/login", "/get", "/clear"):
        assert visitor.get(path).status_code == 200
    site.store.create("short", b"x", 1)
    time.sleep(0.01)
    site.store.create("short", b"x", HOUR)
    everything = sent.take()
    found = [request for name, request, _ in everything if name == reads(row)]
    assert len(found) >= 6
    for request in found:
        if row.name == "firestore":
            assert "read_time" not in request
            assert "transaction" not in request
            assert "new_transaction" not in request
        else:
            strong = type(request.read_options).ReadConsistency.STRONG
            assert request.read_options.read_consistency == strong
    assert {name for name, _, _ in everything} == {reads(row), "Commit"}
    assert all(timeout is not None and 0 < timeout <= 7 for _, _, timeout in everything)


def test_every_write_has_its_condition(row, sent):
    store = make_app(row).extensions["flask_session"].store
    store.create("k", b"one", HOUR)
    value, version, _ = store.load("k")
    store.replace("k", value, version, b"two", HOUR)
    store.remove("k")
    create, replace, remove = (request for name, request, _ in sent.take() if name == "Commit")
    if row.name == "firestore":
        [created], [replaced], [removed] = create.writes, replace.writes, remove.writes
        assert created.current_document.exists is False
        assert "exists" in created.current_document
        assert "update_time" in replaced.current_document
        assert removed.delete
        assert "current_document" not in removed
    else:
        [created], [replaced], [removed] = create.mutations, replace.mutations, remove.mutations
        assert "insert" in created
        assert "update" in replaced
        assert replaced.base_version > 0
        assert replaced.conflict_resolution_strategy == 3  # FAIL
        assert "delete" in removed
        assert "base_version" not in removed


def test_contention_is_a_conflict_and_no_error(row, monkeypatch):
    """The server aborts; the operation goes on, as long as its deadline lets it."""
    exceptions = pytest.importorskip("google.api_core.exceptions")
    store = make_app(row).extensions["flask_session"].store
    aborted = []
    kind = row.name.partition("-")[0]
    service = importlib.import_module(f"google.cloud.{kind}_v1.services.{kind}")
    api = getattr(service, f"{kind.capitalize()}Client")
    commit = api.commit

    def abort(*args, **kwargs):
        if len(aborted) < 2:
            aborted.append(kwargs)
            raise exceptions.Aborted("too much contention")
        return commit(*args, **kwargs)

    monkeypatch.setattr(api, "commit", abort)
    assert store.create("k", b"one", HOUR) is True
    assert len(aborted) == 2
    aborted.clear()
    value, version, _ = store.load("k")
    assert store.replace("k", value, version, b"two", HOUR) == _core.OK
    assert len(aborted) == 2
    assert store.load("k")[0] == b"two"
    aborted.clear()
    assert store.touch("k", b"two", b"", HOUR) == _core.OK
    aborted.clear()
    store.remove("k")
    assert len(aborted) == 2
    assert store.load("k") is None


def test_endless_contention_ends_at_the_deadline(row, monkeypatch):
    store = make_app(row).extensions["flask_session"].store
    store.create("k", b"one", HOUR)
    value, version, _ = store.load("k")
    monkeypatch.setattr(type(adapter_of(row)), "_write", lambda *args: False)
    start = time.monotonic()
    with pytest.raises(SessionStoreError) as caught:
        store.replace("k", value, version, b"two", HOUR, timeout=0.5)
    assert 0.4 < time.monotonic() - start < 5
    assert "DeadlineExceeded" in str(caught.value)
    assert store.load("k")[0] == b"one"


# ---- clients ------------------------------------------------------------------------------------


class Fake:
    def collection(self, name): ...


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"SESSION_TYPE": "firestore", "SESSION_FIRESTORE": Fake()},
         r"must be a synchronous google\.cloud\.firestore\.Client .* not a value of type Fake"),
        ({"SESSION_TYPE": "firestore", "SESSION_FIRESTORE": "http://user:secret@host/"},
         r"must be a synchronous google\.cloud\.firestore\.Client .* not a value of type str"),
        ({"SESSION_TYPE": "firestore", "SESSION_FIRESTORE_COLLECT": "a/b"}, "must be the name of"),
        ({"SESSION_TYPE": "firestore", "SESSION_FIRESTORE_COLLECT": ""}, "must be the name of"),
        ({"SESSION_TYPE": "firestore", "SESSION_FIRESTORE_COLLECT": "__x__"}, "must be the name"),
        ({"SESSION_TYPE": "firestore", "SESSION_FIRESTORE_COLLECT": 7}, "must be a string"),
        ({"SESSION_TYPE": "firestore", "SESSION_KEY_PREFIX": "app/session:"},
         "must not contain a slash"),
        ({"SESSION_TYPE": "datastore", "SESSION_DATASTORE": Fake()},
         r"must be a synchronous google\.cloud\.datastore\.Client .* not a value of type Fake"),
        ({"SESSION_TYPE": "datastore", "GCLOUD_APP_PROJECT_ID": ""}, "must be a name"),
        ({"SESSION_TYPE": "datastore", "GCLOUD_APP_PROJECT_ID": 7}, "must be a string"),
    ],
)  # fmt: skip
def test_refused_settings(settings, text):
    app = flask.Flask(__name__)
    app.config.update(settings)
    with pytest.raises(SessionConfigError, match=text) as caught:
        Session(app)
    assert list(settings)[1] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_asyncio_client_is_refused(monkeypatch):
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    with pytest.raises(SessionConfigError, match=r"synchronous .* not a value of type AsyncClient"):
        GoogleFireStoreSessionInterface(client=firestore.AsyncClient(project="x"))


@pytest.mark.parametrize("kind", ["datastore", "firestore"])
def test_a_missing_library(monkeypatch, kind):
    monkeypatch.setitem(__import__("sys").modules, f"google.cloud.{kind}", None)
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE=kind)
    with pytest.raises(SessionConfigError) as caught:
        Session(app)
    assert f"the Python package google-cloud-{kind}" in str(caught.value)
    assert f"cession[{kind}]" in str(caught.value)


def test_nothing_but_the_environment(row, monkeypatch):
    """No client, no network and no credentials before the first session."""
    kind = row.name.partition("-")[0]
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE=kind, GCLOUD_APP_PROJECT_ID="tests")
    Session(app)
    host = next(iter(row.where))
    monkeypatch.setenv(host, row.where[host])
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "tests")
    interface = app.session_interface
    store = app.extensions["flask_session"].store
    sid = _core.generate_sid(32)
    assert store.create(sid, b"one", HOUR)
    assert store.load(sid)[0] == b"one"
    assert interface.client.project == "tests"
    assert interface.client is interface.client
    store.remove(sid)


def test_an_emulator_needs_no_project(row, records, monkeypatch):
    """As with Flask-Session2."""
    if records.is_firestore:
        return  # there the library has a default
    monkeypatch.setenv("DATASTORE_EMULATOR_HOST", row.where["DATASTORE_EMULATOR_HOST"])
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "DATASTORE_DATASET"):
        monkeypatch.delenv(name, raising=False)
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="datastore", SESSION_KEY_PREFIX=records.prefix)
    Session(app)
    assert app.extensions["flask_session"].store.create("k", b"one", SECOND)
    assert app.session_interface.client.project == "unknown"


def test_a_factory_and_a_database_of_its_own(row, records):
    """Project, database and namespace are the client's."""
    if records.is_firestore:
        made = firestore_rows.client(row.where, database="other")
    else:
        made = datastore_rows.client(row.where, namespace="other")
    kind = row.name.partition("-")[0]
    app = flask.Flask(__name__)
    place = f"SESSION_{kind.upper()}"
    app.config.update({"SESSION_TYPE": kind, place: lambda: made})
    Session(app)
    assert app.session_interface.client is made
    store = app.extensions["flask_session"].store
    name = records.prefix + "k"
    assert store.create(name, b"one", HOUR)
    assert store.load(name)[0] == b"one"
    assert make_app(row, SESSION_KEY_PREFIX="").extensions["flask_session"].store.load(name) is None


def test_a_wrong_address_is_an_error_in_time(row, free_port):
    host = next(iter(row.where))
    where = {**row.where, host: f"127.0.0.1:{free_port()}"}
    app = flask.Flask(__name__)
    app.config.update(configuration(type(row), where))
    Session(app)
    start = time.monotonic()
    with pytest.raises(SessionStoreError) as caught:
        app.extensions["flask_session"].store.load("k")
    assert time.monotonic() - start < 3
    assert "ServiceUnavailable" in str(caught.value)


@pytest.mark.parametrize("kind", ["datastore", "firestore"])
def test_with_credentials_the_connection_has_tls(free_port, kind):
    """Nothing is sent in the clear to who listens there."""
    credentials = pytest.importorskip("google.auth.credentials").AnonymousCredentials()
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        listener.settimeout(10)
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        library, scheme = (datastore, "https://") if kind == "datastore" else (firestore, "")
        client = library.Client(
            project="tests", credentials=credentials, client_options={"api_endpoint": scheme + host}
        )
        app = flask.Flask(__name__)
        app.config.update({"SESSION_TYPE": kind, f"SESSION_{kind.upper()}": client})
        Session(app)
        store = app.extensions["flask_session"].store
        with pytest.raises(SessionStoreError):
            store.load("k", timeout=0.5)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(2) == b"\x16\x03"  # a TLS handshake


@pytest.mark.parametrize("kind", ["datastore", "firestore"])
def test_no_credentials(monkeypatch, tmp_path, kind):
    """Found out when a session is needed, and never somebody else's server."""
    for name in ("DATASTORE_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE=kind, GCLOUD_APP_PROJECT_ID="tests")
    Session(app)
    with pytest.raises(SessionStoreError, match="DefaultCredentialsError"):
        app.extensions["flask_session"].store.load("k")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["datastore", "firestore"])
def test_a_server_that_was_away_for_long(start_row, counting_proxy, name):
    """gRPC alone would try it again up to two minutes later."""
    row = start_row(name)
    proxy = counting_proxy(row.server.port())
    app = flask.Flask(__name__)
    app.config.update(configuration(type(row), row.through(proxy.port)))
    Session(app)
    store = app.extensions["flask_session"].store
    assert store.load("k") is None
    proxy.refuse()
    end = time.monotonic() + 12
    while time.monotonic() < end:
        with pytest.raises(SessionStoreError):
            store.load("k")
        time.sleep(0.1)
    proxy.listen()
    time.sleep(1.5)
    assert store.load("k") is None


def test_datastore_over_http(row, records):
    """A client without gRPC: other connections, and errors of another kind."""
    if records.is_firestore:
        return  # has no such client
    made = datastore_rows.client(row.where, _use_grpc=False)
    interface = GoogleCloudDatastoreSessionInterface(client=made, key_prefix=records.prefix)
    store = interface._store
    assert store.create("k", b"one", HOUR) is True
    assert store.create("k", b"two", HOUR) is False
    value, version, _ = store.load("k")
    assert store.replace("k", value, version, b"two", HOUR) == _core.OK
    assert store.replace("k", value, version, b"three", HOUR)[0] == b"two"
    assert store.touch("k", b"two", version, HOUR) == _core.OK
    assert store.touch("k", b"one", version, HOUR) == _core.CHANGED
    store.remove("k")
    assert store.replace("k", b"two", version, b"three", HOUR) == _core.GONE
    assert store.load("k") is None
    assert made._datastore_api_internal is None


# ---- the emulators ------------------------------------------------------------------------------


def test_where_the_emulators_come_from(monkeypatch, tmp_path):
    jar = tmp_path / "sdk" / "platform" / "x" / "y.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    monkeypatch.setattr(google, "_FOLDERS", ())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GCLOUD_SDK", raising=False)
    with pytest.raises(Unavailable, match=r"no Google Cloud SDK here has platform/x/y\.jar"):
        google.sdk_file("x/y.jar")
    monkeypatch.setenv("GCLOUD_SDK", str(tmp_path / "sdk"))
    assert google.sdk_file("x/y.jar") == jar


# ---- forks --------------------------------------------------------------------------------------


def in_a_child(work):
    """What work() says in a forked child; an exception is told as text."""

    def child(pipe):
        try:
            pipe.send(work())
        except Exception as error:
            pipe.send(str(error))
        pipe.close()

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    assert ours.poll(30)
    told = ours.recv()
    process.join(30)
    assert process.exitcode == 0
    return told


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("who", ["session", "application"])
def test_a_fork_after_grpc_was_used_is_an_error(row, records, who):
    app = make_app(row)
    store = app.extensions["flask_session"].store
    if who == "session":
        store.load("k")
    elif records.is_firestore:
        app.session_interface.store.document("k").get()
    else:
        client = app.session_interface.client
        client.get(client.key("session", "k"))
    told = in_a_child(lambda: store.load("k"))
    assert "was forked from one that had used a client of Google Cloud" in told
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in told
    assert store.load("k") is None  # the parent goes on


PRELOADED = """
import json, os
import flask
from flask_session import Session
from tests.rows import ROWS, configuration

given = json.loads(os.environ["GIVEN"])
app = flask.Flask(__name__)
app.config.update(configuration(ROWS[given["row"]], given["where"]))
app.testing = True
Session(app)

@app.errorhandler(Exception)
def failed(error):
    return str(error), 500

@app.get("/<value>")
def put(value):
    before = flask.session.get("value")
    flask.session["value"] = value
    return f"{os.getpid()} {before}"

if given["used"]:
    assert app.test_client().get("/first").status_code == 200
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("used", "support"), [(False, "0"), (True, "1"), (True, "0")], ids=["made", "told", "used"]
)
def test_gunicorn_with_preload(row, gunicorn_app, browser, used, support):
    """A client that the application made before the fork."""
    given = {"row": row.name, "where": row.where, "used": used}
    server = gunicorn_app(
        source=PRELOADED,
        workers=2,
        preload=True,
        env={
            "GIVEN": json.dumps(given),
            "GRPC_ENABLE_FORK_SUPPORT": support,
            "PYTHONPATH": str(Path(tests.__file__).parents[1]),
        },
    )
    visitor = browser(server)
    answer = visitor.get("/one")
    if used and support == "0":
        assert answer.status == 500
        assert "does not survive that" in answer.text
        return
    assert (answer.status, answer.text.split()[1]) == (200, "None")
    for number in range(10):
        seen = visitor.get(f"/{number}")
        assert seen.status == 200
        assert seen.text.split()[1] == ("one" if number == 0 else str(number - 1))


def test_threads_share_a_client(row):
    store = make_app(row).extensions["flask_session"].store
    failures = []

    def work(number):
        try:
            for step in range(10):
                key = f"{number}-{step}"
                assert store.create(key, key.encode(), HOUR)
                assert store.load(key)[0] == key.encode()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
