"""What is special about peewee, on three databases; the contract is in test_row_contract.py."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import uuid

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.peewee import PeeweeSessionInterface

peewee = pytest.importorskip("peewee")
pool = pytest.importorskip("playhouse.pool")

pytestmark = [
    pytest.mark.client,
    pytest.mark.filterwarnings("ignore:'passwd' is deprecated"),
]

HOUR = 3_600_000
SERVERS = [
    pytest.param("peewee-postgresql", marks=pytest.mark.server),
    pytest.param("peewee-mariadb", marks=pytest.mark.server),
]


@pytest.fixture(params=["peewee-sqlite", *SERVERS])
def database(request, start_row):
    """A database of one of the three kinds."""
    row = start_row(request.param)
    return type(row).database(row.where)


@pytest.fixture
def table():
    return f"t_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def sqlite(tmp_path):
    return peewee.SqliteDatabase(str(tmp_path / "app.db"))


def make(database, table="sessions", timeout=5, **options):
    app = flask.Flask(__name__)
    app.config["SESSION_STORE_TIMEOUT"] = timeout
    return PeeweeSessionInterface(app, client=database, table=table, **options)


def rows_of(database, table):
    """A model of the application's own in the same database."""

    class Entry(peewee.Model):
        text = peewee.CharField()

        class Meta:
            table_name = f"{table}_rows"

    Entry.bind(database)
    with database.connection_context():
        Entry.create_table()
    return Entry


# ---- connections and transactions of the application ---------------------------------------------


def test_the_application_s_connection_is_left_alone(database, table):
    store = make(database, table)._store
    assert database.is_closed()
    assert store.create("k", b"x", HOUR)
    assert database.is_closed()
    with database.connection_context():
        connection = database.connection()
        assert store.load("k")[0] == b"x"
        assert store.replace("k", b"x", b"", b"y", HOUR) == _core.OK
        assert database.connection() is connection
        assert not database.is_closed()
    assert store.load("k")[0] == b"y"


@pytest.mark.parametrize("name", SERVERS)
def test_uncommitted_rows_stay_uncommitted(name, start_row, table):
    row = start_row(name)
    database, other = (type(row).database(row.where) for _ in range(2))
    store = make(database, table)._store
    entry = rows_of(database, table)
    with database.connection_context():
        with database.atomic() as transaction:
            entry.create(text="not committed")
            assert store.create("k", b"x", HOUR)
            assert store.replace("k", b"x", b"", b"y", HOUR) == _core.OK
            with other.connection_context():
                sql = f"SELECT count(*) FROM {entry._meta.table_name}"
                assert other.execute_sql(sql).fetchone() == (0,)
            transaction.rollback()
        assert entry.select().count() == 0
    assert store.load("k")[0] == b"y"


def test_uncommitted_rows_in_the_same_sqlite_file(sqlite, table):
    store = make(sqlite, table, timeout=0.5)._store
    entry = rows_of(sqlite, table)
    assert store.create("k", b"x", HOUR)
    with sqlite.connection_context(), sqlite.atomic() as transaction:
        entry.create(text="not committed")
        start = time.monotonic()
        with pytest.raises(SessionStoreError) as caught:
            store.replace("k", b"x", b"", b"y", HOUR, timeout=0.5)
        assert time.monotonic() - start < 5
        text = str(caught.value.__cause__)
        assert "not committed" in text
        assert "commit before the response" in text
        assert entry.select().count() == 1
        transaction.rollback()
    assert store.replace("k", b"x", b"", b"y", HOUR) == _core.OK


def test_a_rollback_of_the_view_keeps_the_session(sqlite):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="peewee", SESSION_DB=sqlite, SECRET_KEY="s")
    Session(app)
    entry = rows_of(sqlite, "view")

    @app.get("/")
    def view():
        flask.session["user"] = "ann"
        with sqlite.connection_context(), sqlite.atomic() as transaction:
            entry.create(text="dropped")
            transaction.rollback()
        return "done"

    @app.get("/read")
    def read():
        return str(flask.session.get("user"))

    client = app.test_client()
    assert client.get("/").status_code == 200
    assert client.get("/read").text == "ann"
    with sqlite.connection_context():
        assert entry.select().count() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_a_pool_of_one_does_not_starve(name, start_row, table):
    row = start_row(name)
    plain = type(row).database(row.where)
    kinds = {
        peewee.PostgresqlDatabase: pool.PooledPostgresqlDatabase,
        peewee.MySQLDatabase: pool.PooledMySQLDatabase,
    }
    database = kinds[type(plain)](
        plain.database, max_connections=1, timeout=1, **plain.connect_params
    )
    store = make(database, table)._store
    with database.connection_context():
        assert store.create("k", b"x", HOUR)
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(store.load("k")[0])) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert results == [b"x"] * 4
    database.close_all()


def test_a_queue_of_writes_is_passed_by(tmp_path, table):
    sqliteq = pytest.importorskip("playhouse.sqliteq")
    database = sqliteq.SqliteQueueDatabase(str(tmp_path / "q.db"), autostart=False)
    store = make(database, table)._store
    assert store.create("k", b"x", HOUR)
    assert store.replace("k", b"x", b"", b"y", HOUR) == _core.OK
    assert store.load("k")[0] == b"y"


@pytest.mark.parametrize("place", [":memory:", "file::memory:?cache=shared"])
def test_sqlite_in_memory_is_shared_and_says_so(place, table):
    options = {"uri": True} if place.startswith("file:") else {}
    database = peewee.SqliteDatabase(place, **options)
    with pytest.warns(UserWarning, match="in memory"):
        store = make(database, table)._store
    assert store.create("k", b"x", HOUR)
    assert store.load("k")[0] == b"x"
    with database.atomic() as transaction:
        assert store.replace("k", b"x", b"", b"y", HOUR) == _core.OK
        transaction.rollback()
    assert store.load("k")[0] == b"x"
    database.close()


def test_a_child_makes_connections_of_its_own(database, table):
    store = make(database, table)._store
    assert store.create("k", b"parent", HOUR)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ok = store.replace("k", b"parent", b"", b"child", HOUR) == _core.OK
            status = 0 if ok and store.load("k")[0] == b"child" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.load("k")[0] == b"child"
    assert store.replace("k", b"child", b"", b"z", HOUR) == _core.OK


# ---- tables and rows -----------------------------------------------------------------------------


def old_table(database, table):
    """A table as Flask-Session2 makes it."""

    class Old(peewee.Model):
        session_id = peewee.CharField(max_length=256, primary_key=True)
        data = peewee.BlobField()
        expiry = peewee.DateTimeField(null=True)
        ip = peewee.CharField(max_length=25, null=True)

        class Meta:
            table_name = table

    Old.bind(database)
    with database.connection_context():
        Old.create_table()
    return Old


def test_rows_of_flask_session2(database, table):
    old = old_table(database, table)
    interface = make(database, table)
    value = pickle.dumps({"user": "ann", "_permanent": True})
    with database.connection_context():
        old.create(session_id="session:a", data=value, expiry=None, ip="192.0.2.7")
    store = interface._store
    assert store.load("a") == (value, b"", -2)
    assert interface._retrieve_session_data("session:a") == {"user": "ann", "_permanent": True}
    assert store.create("a", b"other", HOUR) is False
    assert store.touch("a", value, b"", HOUR) == _core.OK
    assert abs(store.load("a")[2] - time.time() * 1000 - HOUR) < 10_000
    assert store.replace("a", value, b"", b"new", HOUR) == _core.OK
    with database.connection_context():
        row = interface.sql_session_model.get_by_id("session:a")
        assert (bytes(row.data), row.ip) == (b"new", "192.0.2.7")


@pytest.mark.server
def test_a_blob_of_mysql_is_not_cut_short(start_row, table):
    row = start_row("peewee-mariadb")
    database = type(row).database(row.where)
    old_table(database, table)
    store = make(database, table)._store
    assert store.create("k", b"x" * 65_535, HOUR)
    for write in (
        lambda: store.create("more", b"x" * 65_536, HOUR),
        lambda: store.replace("k", b"x" * 65_535, b"", b"y" * 65_536, HOUR),
    ):
        with pytest.raises(SessionStoreError) as caught:
            write()
        assert "too long" in str(caught.value.__cause__)
    assert store.load("k")[0] == b"x" * 65_535
    assert store.load("more") is None


@pytest.mark.server
def test_keys_of_an_old_mysql_table_are_told_apart(start_row, table):
    """Its text compares without regard to case."""
    row = start_row("peewee-mariadb")
    database = type(row).database(row.where)
    old_table(database, table)
    store = make(database, table)._store
    assert store.create("Key", b"x", HOUR)
    for other in ("key", "KEY", "Key "):
        assert store.load(other) is None
        assert store.touch(other, b"x", b"", HOUR) == _core.GONE
        store.remove(other)
        assert store.create(other, b"y", HOUR) is False
    assert store.load("Key")[0] == b"x"


@pytest.mark.server
def test_a_new_mysql_table(start_row, table):
    row = start_row("peewee-mariadb")
    database = type(row).database(row.where)
    store = make(database, table)._store
    assert store.load("k") is None
    with database.connection_context():
        columns = {c.name: c.data_type for c in database.get_columns(table)}
        assert columns["data"] == "longblob"
        assert [i.columns for i in database.get_indexes(table) if not i.unique] == [["expiry"]]


def test_the_model_is_the_application_s_too(database, table):
    interface = make(database, table)
    model = interface.sql_session_model
    assert interface._store.create("k", b"x", HOUR)
    with database.connection_context():
        [row] = model.select().where(model.session_id == "session:k")
        assert bytes(row.data) == b"x"
        assert row.ip is None
        assert database.table_exists(table)
        model.drop_table()
    assert interface._store.load("k") is None


def test_a_file_that_may_not_be_written(tmp_path, table):
    place = f"file:{tmp_path / 'ro.db'}?mode=ro"
    (tmp_path / "ro.db").touch()
    store = make(peewee.SqliteDatabase(place, uri=True), table)._store
    with pytest.raises(SessionStoreError) as caught:
        store.create("k", b"x", HOUR)
    assert isinstance(caught.value.__cause__, PermissionError)
    assert table in str(caught.value.__cause__)


@pytest.mark.server
def test_a_role_that_may_not_make_the_table(start_row, table):
    row = start_row("peewee-postgresql")
    database = type(row).database(row.where)
    role = f"role_{uuid.uuid4().hex[:12]}"
    with database.connection_context():
        database.execute_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        try:
            url = row.where["POSTGRES_URL"].replace("postgres:sessions-secret", f"{role}:secret")
            with pytest.raises(SessionStoreError) as caught:
                make(url, table)._store.create("hidden", b"x", HOUR)
            assert isinstance(caught.value.__cause__, PermissionError)
            assert "docs/backends/peewee.md" in str(caught.value.__cause__)
            assert "hidden" not in str(caught.value.__cause__)
        finally:
            database.execute_sql(f"DROP ROLE {role}")


# ---- configuration -------------------------------------------------------------------------------


def configure(**settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="peewee", SECRET_KEY="s", **settings)
    Session(app)
    return app.extensions["flask_session"].store


def test_ways_to_name_a_database(tmp_path):
    place = str(tmp_path / "app.db")
    proxy, deferred = peewee.DatabaseProxy(), peewee.SqliteDatabase(None)
    stores = [
        configure(SESSION_DB=peewee.SqliteDatabase(place)),
        configure(SESSION_DB=f"sqlite:///{place}"),
        configure(SESSION_DB=lambda: peewee.SqliteDatabase(place)),
        configure(
            SESSION_DB_CLASS=peewee.SqliteDatabase, SESSION_PEEWEE_CONFIG={"database": place}
        ),
        configure(SESSION_DB=proxy),
        configure(SESSION_DB=deferred),
    ]
    for store in stores[4:]:
        with pytest.raises(SessionStoreError) as caught:
            store.load("k")
        assert "initialized" in str(caught.value.__cause__)
    proxy.initialize(peewee.SqliteDatabase(place))
    deferred.init(place)
    assert stores[0].create("k", b"x", HOUR)
    assert [store.load("k")[0] for store in stores] == [b"x"] * len(stores)


class Broken:
    def __init__(self, **config):
        raise TypeError(f"cannot use {config}")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SESSION_DB": 5},
        {"SESSION_DB": "hidden://u:hidden@h/x"},
        {"SESSION_DB": "postgresql://u:hidden@h"},
        {"SESSION_DB": object()},
        {"SESSION_DB_CLASS": peewee.SqliteDatabase},
        {"SESSION_DB_CLASS": Broken, "SESSION_PEEWEE_CONFIG": {"password": "hidden"}},
        {"SESSION_DB_CLASS": dict, "SESSION_PEEWEE_CONFIG": {"password": "hidden"}},
        {"SESSION_DB": peewee.SqliteDatabase(None), "SESSION_PEEWEE_TABLE": ""},
    ],
)
def test_what_is_no_database_is_refused_at_the_start(settings):
    with pytest.raises(SessionConfigError, match="SESSION_") as caught:
        configure(**settings)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peewee", None)
    with pytest.raises(SessionConfigError, match=r"cession\[peewee\]"):
        configure(SESSION_DB="sqlite:///x.db")


@pytest.mark.parametrize("name", SERVERS)
def test_a_wrong_password_is_an_error_at_first_use(name, start_row, table):
    row = start_row(name)
    wrong = row.where[row.variable].replace("sessions-secret", "not-this-one")
    store = make(wrong, table)._store
    with pytest.raises(SessionStoreError) as caught:
        store.load("k")
    text = f"{caught.value} {caught.value.__cause__}"
    assert "password" in text
    assert "not-this-one" not in text


@pytest.mark.server
def test_tls(start_row, table):
    where = start_row("peewee-postgresql").where
    url = where["POSTGRES_TLS_URL"]
    assert make(url, table)._store.create("k", b"x", HOUR)
    with pytest.raises(SessionStoreError):
        make(where["POSTGRES_URL"] + "?sslmode=verify-full&sslrootcert=/dev/null")._store.load("k")


def test_what_peewee_logs_has_no_data_in_it(database, table, caplog):
    caplog.set_level("DEBUG")
    store = make(database, table)._store
    assert store.create("secret-key", b"secret-value", HOUR)
    assert store.load("secret-key")[0] == b"secret-value"
    assert "secret-" not in caplog.text
