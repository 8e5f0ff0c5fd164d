"""What SQLAlchemy's engines, pools and transactions mean for sessions; the contract itself is in
test_row_contract.py."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core, sqlengine, sqltable
from flask_session.sqlalchemy import SqlAlchemySession, SqlAlchemySessionInterface

from tests.python.apps.views import add_views
from tests.rows import Row

sa: Any = pytest.importorskip("sqlalchemy")
flask_sqlalchemy: Any = pytest.importorskip("flask_sqlalchemy")
orm: Any = pytest.importorskip("sqlalchemy.orm")

pytestmark = pytest.mark.client

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
SERVERS = [
    pytest.param("sqlalchemy-postgresql", marks=pytest.mark.server),
    pytest.param("sqlalchemy-mariadb", marks=pytest.mark.server),
]
EVERY = ["sqlalchemy-sqlite", *SERVERS]


@pytest.fixture
def url(request, start_row):
    """The URL of a database; marked with the row's name."""
    row: Row = start_row(request.param)
    return type(row).url(row.where)


@pytest.fixture
def table():
    """A table of the test's own."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def engines():
    made: list[Any] = []

    def make(url: Any, **options: Any) -> Any:
        made.append(sa.create_engine(url, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def sqlite_url(folder: Path, name: str = "main") -> str:
    return f"sqlite:///{folder}/{name}.sqlite3"


def open_store(client: Any, table: str, timeout: float = 2, **settings: Any) -> Any:
    app = flask.Flask(__name__)
    app.config.update(
        SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=client, SESSION_SQLALCHEMY_TABLE=table,
        SESSION_STORE_TIMEOUT=timeout, SESSION_KEY_PREFIX="", **settings,
    )  # fmt: skip
    Session(app)
    return app.extensions["flask_session"].store


def make_app(db: Any, url: str, table: str, **settings: Any) -> Any:
    app = flask.Flask(__name__)
    app.testing = True
    app.config.update(
        SECRET_KEY="secret", SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db,
        SESSION_SQLALCHEMY_TABLE=table, SQLALCHEMY_DATABASE_URI=url, **settings,
    )  # fmt: skip
    db.init_app(app)
    Session(app)
    return add_views(app)


def sid_of(client: Any) -> str:
    sid: str = client.get_cookie("session").value
    return sid


# ---- Flask-SQLAlchemy ---------------------------------------------------------------------------


def add_notes(db: Any, app: Any) -> Any:
    """A table of the application's, and views that add to it and do not commit."""

    class Note(db.Model):
        __tablename__ = "notes" + app.config["SESSION_SQLALCHEMY_TABLE"]
        id = sa.Column(sa.Integer, primary_key=True)

    with app.app_context():
        db.create_all()

    @app.get("/add/<how>")
    def add(how: str) -> str:
        flask.session["value"] = how
        db.session.add(Note())
        if "flush" in how:
            db.session.flush()
        if "early" in how:
            app.session_interface.save_session(
                app, flask.session._get_current_object(), app.make_response("")
            )
            db.session.rollback()
        return how

    return Note


@pytest.mark.parametrize("url", EVERY, indirect=True)
def test_the_applications_transaction_is_left_alone(url, table):
    db = flask_sqlalchemy.SQLAlchemy()
    app = make_app(db, url, table)
    note = add_notes(db, app)
    client = app.test_client()
    client.get("/set/first")
    # Rows that are flushed lock an SQLite file: that has a test of its own.
    for how in ["plain", "early"] + ([] if "sqlite" in url else ["flush", "flush-early"]):
        assert client.get(f"/add/{how}").text == how
        assert client.get("/get").text == how
        with app.app_context():
            assert db.session.query(note).count() == 0
    with app.app_context():
        db.session.add(note())
        db.session.commit()
        assert db.session.query(note).count() == 1


def test_rows_flushed_on_the_same_sqlite_file(tmp_path, table):
    db = flask_sqlalchemy.SQLAlchemy()
    app = make_app(db, sqlite_url(tmp_path), table, SESSION_STORE_TIMEOUT=0.5)
    note = add_notes(db, app)
    client = app.test_client()
    client.get("/set/first")
    start = time.monotonic()
    with pytest.raises(SessionStoreError) as caught:
        client.get("/add/flush")
    assert time.monotonic() - start < 1.5
    cause = str(caught.value.__cause__)
    assert "flushed and not yet committed" in cause
    assert "SESSION_SQLALCHEMY_BIND_KEY" in cause
    assert client.get("/get").text == "first"
    # the cure that it names
    other = make_app(
        flask_sqlalchemy.SQLAlchemy(), sqlite_url(tmp_path), table + "x",
        SESSION_SQLALCHEMY_BIND_KEY="sessions",
        SQLALCHEMY_BINDS={"sessions": sqlite_url(tmp_path, "other")},
    )  # fmt: skip
    add_notes(other.session_interface.client, other)
    client = other.test_client()
    assert client.get("/add/flush").text == "flush"
    assert client.get("/get").text == "flush"
    assert note


def test_the_table_is_made_however_long_the_start_took(tmp_path, table):
    app = make_app(flask_sqlalchemy.SQLAlchemy(), sqlite_url(tmp_path), table)
    store = app.extensions["flask_session"].store
    assert store.create("k", b"x", HOUR, timeout=0.001)
    assert store.load("k")[0] == b"x"


@pytest.mark.parametrize("url", EVERY, indirect=True)
def test_a_pool_of_one_connection_does_not_starve(url, table):
    db = flask_sqlalchemy.SQLAlchemy(
        engine_options={"pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
    )
    app = make_app(db, url, table)
    seen = []

    @app.get("/hold")
    def hold() -> str:
        db.session.execute(sa.text("SELECT 1"))  # the only connection, until the request ends
        flask.session["value"] = "held"
        seen.append(db.engine.pool.checkedout())
        return "held"

    def visit(_: int) -> None:
        client = app.test_client()
        client.get("/hold")
        assert client.get("/get").text == "held"

    visit(0)
    threads = [threading.Thread(target=visit, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 5


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.filterwarnings("ignore:the engine of SESSION_SQLALCHEMY has one connection")
def test_the_model(tmp_path, table, memory):
    db = flask_sqlalchemy.SQLAlchemy()
    url = "sqlite:///:memory:" if memory else sqlite_url(tmp_path)
    app = make_app(db, url, table)
    client = app.test_client()
    client.get("/set/here")
    interface = app.session_interface
    model, store_id = interface.sql_session_model, "session:" + sid_of(client)
    assert interface.client is db
    with app.app_context():
        row = db.session.query(model).filter_by(session_id=store_id).one()
        assert _core.decode(row.data) == {"value": "here", "_permanent": True}
        assert row.expiry.tzinfo is None
        assert model.query.filter(model.session_id == store_id).first() is row
        assert interface.client.session is db.session
        db.session.add(model("session:" + "y" * 32, row.data, row.expiry))
        db.session.commit()
    client.set_cookie("session", "y" * 32)
    assert client.get("/get").text == "here"


def test_the_model_with_a_bind_key(tmp_path, table):
    db = flask_sqlalchemy.SQLAlchemy()
    app = make_app(
        db, sqlite_url(tmp_path), table, SESSION_SQLALCHEMY_BIND_KEY="other",
        SQLALCHEMY_BINDS={"other": sqlite_url(tmp_path, "other")},
    )  # fmt: skip
    client = app.test_client()
    client.get("/set/here")
    with app.app_context():
        assert app.session_interface.sql_session_model.query.count() == 1
        assert sa.inspect(db.engines["other"]).get_table_names() == [table]
        assert sa.inspect(db.engine).get_table_names() == []


def test_several_applications_with_one_db(tmp_path, table):
    db = flask_sqlalchemy.SQLAlchemy()
    apps = [make_app(db, sqlite_url(tmp_path, name), table) for name in ("one", "one", "two")]
    client = apps[0].test_client()
    client.get("/set/here")
    for app, expected in zip(apps, ["here", "here", "None"], strict=True):
        other = app.test_client()
        other.set_cookie("session", sid_of(client))
        assert other.get("/get").text == expected


def test_nothing_but_the_uri(tmp_path):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI=sqlite_url(tmp_path))
    Session(app)
    assert type(app.session_interface.client) is flask_sqlalchemy.SQLAlchemy
    with app.test_request_context():
        assert type(flask.session._get_current_object()) is SqlAlchemySession
        flask.session["a"] = 1
        flask.session.save()
        assert app.session_interface.sql_session_model.query.count() == 1


# ---- one connection for all ---------------------------------------------------------------------


def test_in_memory_warns_once_and_works(table):
    db = flask_sqlalchemy.SQLAlchemy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        app = make_app(db, "sqlite://", table)
        client = app.test_client()
        client.get("/set/a")
        threads = [
            threading.Thread(target=lambda: app.test_client().get("/set/b")) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("/get").text == "a"
    assert ["one connection for all" in str(w.message) for w in caught] == [True]
    with app.app_context():
        assert app.session_interface.sql_session_model.query.count() == 9
        # What the application has not committed is not lost by a read of the session, either.
        db.session.execute(sa.text("CREATE TABLE notes (id INTEGER)"))
        db.session.execute(sa.text("INSERT INTO notes VALUES (1)"))
        app.extensions["flask_session"].store.load("x" * 43)
        db.session.commit()
        assert db.session.execute(sa.text("SELECT count(*) FROM notes")).scalar() == 1


@pytest.mark.parametrize("client", ["sqlite://", "sqlite:///:memory:", "engine"])
def test_in_memory_without_a_shared_connection_is_refused(client, engines):
    if client == "engine":
        client = engines("sqlite://")
    with pytest.raises(SessionConfigError, match=r"StaticPool.*\"memory\""):
        SqlAlchemySessionInterface(client=client)


# ---- the table ----------------------------------------------------------------------------------


def columns(engine: Any, table: str) -> dict[str, Any]:
    return {column["name"]: column["type"] for column in sa.inspect(engine).get_columns(table)}


@pytest.mark.parametrize("url", EVERY, indirect=True)
def test_many_make_the_table_at_once(url, table, engines):
    stores = [open_store(engines(url), table, timeout=20) for _ in range(6)]
    start, errors = threading.Barrier(6), []

    def work(number: int) -> None:
        start.wait(60)
        try:
            assert stores[number].create(f"k{number}", b"x", HOUR)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(stores[0].load(f"k{number}") for number in range(6))
    engine = engines(url)
    names = [index["column_names"] for index in sa.inspect(engine).get_indexes(table)]
    assert ["expiry"] in names
    assert list(columns(engine, table)) == ["id", "session_id", "data", "expiry"]


@pytest.mark.parametrize("url", EVERY, indirect=True)
def test_never_makes_no_table_and_the_documented_one_does(url, table, engines):
    engine = engines(url)
    store = open_store(engine, table, SESSION_SQLALCHEMY_CREATE="never")
    with pytest.raises(SessionStoreError) as caught:
        store.load("k")
    assert "SESSION_SQLALCHEMY_CREATE" in str(caught.value.__cause__)
    assert not sa.inspect(engine).has_table(table)
    text = (ROOT / "docs" / "backends" / "sqlalchemy.md").read_text()
    title = {"postgresql": "PostgreSQL", "mysql": "MySQL, MariaDB", "sqlite": "SQLite"}
    [block] = re.findall(rf"    -- {title[engine.dialect.name]}\n((?:    .*\n)+)", text)
    with engine.begin() as connection:
        for statement in block.replace("sessions", table).split(";")[:2]:
            connection.execute(sa.text(statement))
    assert store.create("k", b"x" * 70_000, HOUR)
    assert store.load("k")[0] == b"x" * 70_000
    assert store.create("k", b"y", HOUR) is False
    made = open_store(engine, table + "x")
    made.create("k", b"x", HOUR)
    ours, documented = columns(engine, table + "x"), columns(engine, table)
    assert [repr(kind) for kind in ours.values()] == [repr(kind) for kind in documented.values()]


@pytest.mark.parametrize("url", SERVERS[1:], indirect=True)
def test_a_table_that_flask_session_made_in_mysql(url, table, engines):
    """It compares ids without case and keeps 65,535 bytes, or what is cut to that."""
    engine = engines(url, connect_args={"init_command": "SET sql_mode = ''"})
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"CREATE TABLE {table} (id INTEGER NOT NULL AUTO_INCREMENT, session_id"
                " VARCHAR(255), data BLOB, expiry DATETIME, PRIMARY KEY (id), UNIQUE (session_id))"
                " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
            )
        )
    store = open_store(engine, table)
    assert store.create("Key", b"one", HOUR)
    for key in ("KEY", "key", "Key "):
        assert store.load(key) is None
        assert store.replace(key, b"one", b"", b"two", HOUR) == _core.GONE
        assert store.touch(key, b"one", b"", HOUR) == _core.GONE
        store.remove(key)
    assert store.load("Key")[0] == b"one"
    for size in (65_535, 65_536):
        written = size < 65_536
        try:
            assert store.create(f"k{size}", b"x" * size, HOUR) is written
        except SessionStoreError:
            assert not written
        stored = store.load(f"k{size}")
        assert (stored is not None) is written


@pytest.mark.parametrize("url", SERVERS[1:], indirect=True)
def test_changed_rows_are_counted_not_found_ones(url, table, engines):
    """A client without CLIENT_FOUND_ROWS says "0 rows" where nothing had to change."""
    store = open_store(engines(url, connect_args={"client_flag": 0}), table)
    store.create("k", b"one", HOUR)
    for _ in range(20):
        assert store.touch("k", b"one", b"", HOUR) == _core.OK
        assert store.replace("k", b"one", b"", b"one", HOUR) == _core.OK
    assert store.touch("k", b"two", b"", HOUR) == _core.CHANGED
    assert store.replace("k", b"two", b"", b"two", HOUR)[0] == b"one"
    assert store.touch("none", b"one", b"", HOUR) == _core.GONE


@pytest.mark.parametrize("url", SERVERS[:1], indirect=True)
def test_schema_and_sequence(url, table, engines):
    engine = engines(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA s{table}"))
    store = open_store(
        engine,
        table,
        SESSION_SQLALCHEMY_SCHEMA="s" + table,
        SESSION_SQLALCHEMY_SEQUENCE="n" + table,
    )
    assert store.create("k", b"one", HOUR)
    assert store.create("k2", b"one", HOUR)
    with engine.begin() as connection:
        ids = connection.execute(sa.text(f"SELECT id FROM s{table}.{table}")).scalars().all()
        last = connection.execute(sa.text(f"SELECT last_value FROM n{table}")).scalar()
    assert ids == [1, 2]
    assert last == 2


def test_null_expiry_is_expired(tmp_path, table, engines):
    engine = engines(sqlite_url(tmp_path))
    store = open_store(engine, table)
    store.create("k", b"one", HOUR)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET expiry = NULL"))
    assert store.load("k") is None
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch("k", b"one", b"", HOUR) == _core.GONE
    assert store.create("k", b"two", HOUR) is True
    assert store.load("k")[0] == b"two"
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {table} SET expiry = NULL"))
    assert store.purge(10) == 1


@pytest.mark.parametrize("url", SERVERS[:1], indirect=True)
def test_where_blobs_cannot_be_compared_the_row_is_locked(url, table, engines, monkeypatch):
    """As on Oracle, tried on PostgreSQL."""
    monkeypatch.setattr(sqlengine, "LOCKING", ("postgresql",))
    monkeypatch.setattr(sqltable, "LOCKING", ("postgresql",))
    engine = engines(url)
    store = open_store(engine, table, timeout=20)
    store.create("k", b"0", HOUR)
    assert store.touch("k", b"0", b"", HOUR) == _core.OK
    assert store.touch("k", b"1", b"", HOUR) == _core.CHANGED
    assert store.touch("none", b"0", b"", HOUR) == _core.GONE

    def count_up() -> None:
        value, done = store.load("k")[0], 0
        while done < 10:
            answer = store.replace("k", value, b"", b"%d" % (int(value) + 1), HOUR)
            done += answer == _core.OK
            value = store.load("k")[0]

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load("k")[0] == b"40"


# ---- connections --------------------------------------------------------------------------------


def backends(engine: Any) -> set[int]:
    with engine.connect() as connection:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = :n"
        )
        name = engine.url.query["application_name"]
        return set(connection.execute(sa.text(query), {"n": name}).scalars())


@pytest.mark.parametrize("url", SERVERS[:1], indirect=True)
def test_a_connection_that_died_in_the_pool(url, table, engines):
    engine = engines(sa.make_url(url).update_query_dict({"application_name": table}))
    store = open_store(engine, table)
    store.create("k", b"one", HOUR)
    for operation in (
        lambda: store.load("k")[0] == b"one",
        lambda: store.touch("k", b"one", b"", HOUR) == _core.OK,
        lambda: store.replace("k", b"one", b"", b"one", HOUR) == _core.OK,
        lambda: store.create("k2", b"one", HOUR) is True,
        lambda: store.remove("k2") is None,
    ):
        pids = backends(engine)
        assert len(pids) == 1
        with engines(url).connect() as connection:
            for pid in pids:
                connection.execute(sa.text(f"SELECT pg_terminate_backend({pid}, 5000)"))
        assert operation()


@pytest.mark.parametrize("url", EVERY, indirect=True)
def test_a_child_process_makes_its_own_connections(url, table, engines):
    store = open_store(engines(url), table)
    store.create("k", b"one", HOUR)
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = store.load("k")[0] == b"one"
            ok = ok and store.replace("k", b"one", b"", b"two", HOUR) == _core.OK
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.load("k")[0] == b"two"
    assert store.replace("k", b"two", b"", b"three", HOUR) == _core.OK


def test_a_fork_waits_for_sqlite(tmp_path, table, engines):
    """A child that was made while this process holds SQLite's locks would believe to hold them."""
    store = open_store(engines(sqlite_url(tmp_path)), table, timeout=20)
    store.create("k", b"0", HOUR)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            value = store.load("k")[0]
            store.replace("k", value, b"", b"%d" % (int(value) + 1), HOUR)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(10):
            child = os.fork()
            if child == 0:
                ok = False
                try:
                    ok = store.create(f"c{number}", b"x", HOUR)
                finally:
                    os._exit(0 if ok else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
    assert all(store.load(f"c{number}") for number in range(10))


def test_a_store_that_was_never_used_looks_for_no_engine():
    looked = []
    store = sqltable.SqlAlchemyStore(
        object(), lambda: looked.append(1), prefix="", create=True, timeout=1
    )
    store.close()
    del store
    gc.collect()
    assert looked == []


# ---- errors -------------------------------------------------------------------------------------

PASSWORD = "hush-hush"


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (5, "not 5"),
        (type("AsyncEngine", (), {})(), "a synchronous sqlalchemy Engine"),
        (object(), "value of type object"),
        ([], "value of type list"),
        (f"nonsense://u:{PASSWORD}@h/d", "dialect+driver://"),
        (f"postgresql+psycopg:u:{PASSWORD}@h/d", "dialect+driver://"),
        (f"mysql+mysqldb://u:{PASSWORD}@h/d", "not installed: MySQLdb"),
        (lambda: None, "None"),
    ],
)
def test_wrong_clients(client, text):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=client)
    with pytest.raises(SessionConfigError) as caught:
        Session(app)
    assert text in str(caught.value) or "SQLALCHEMY_DATABASE_URI" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_no_place_is_no_localhost():
    with pytest.raises(SessionConfigError, match="SESSION_SQLALCHEMY must be given"):
        SqlAlchemySessionInterface()
    app = flask.Flask(__name__)
    with pytest.raises(SessionConfigError, match="SQLALCHEMY_DATABASE_URI must be set"):
        SqlAlchemySessionInterface(app)


def test_wrong_bind_keys(tmp_path, engines):
    engine = engines(sqlite_url(tmp_path))
    with pytest.raises(SessionConfigError, match="SESSION_SQLALCHEMY_BIND_KEY"):
        SqlAlchemySessionInterface(client=engine, bind_key="x")
    with pytest.raises(SessionConfigError, match="SQLALCHEMY_BINDS"):
        make_app(
            flask_sqlalchemy.SQLAlchemy(), sqlite_url(tmp_path), "t",
            SESSION_SQLALCHEMY_BIND_KEY="x",
        )  # fmt: skip


@pytest.mark.parametrize("module", ["sqlalchemy", "flask_sqlalchemy"])
def test_a_missing_library_names_its_extra(monkeypatch, module):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI="sqlite:///x")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(SessionConfigError, match=rf"{module}: pip install 'cession\[sqlalchemy\]'"):
        Session(app)


@pytest.mark.parametrize("url", SERVERS, indirect=True)
def test_a_wrong_password_fails_at_first_use(url, table):
    wrong = sa.make_url(url).set(password=PASSWORD).render_as_string(hide_password=False)
    store = open_store(wrong, table)
    with pytest.raises(SessionStoreError) as caught:
        store.load("k")
    cause = str(caught.value.__cause__)
    assert "password" in cause
    assert PASSWORD not in cause


@pytest.mark.parametrize("url", SERVERS[:1], indirect=True)
def test_a_role_that_may_not_make_tables(url, table, engines):
    with engines(url).begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE r{table} LOGIN PASSWORD 'p'"))
    store = open_store(engines(sa.make_url(url).set(username="r" + table, password="p")), table)
    with pytest.raises(SessionStoreError) as caught:
        store.create("k", b"x", HOUR)
    assert "permission denied" in str(caught.value.__cause__)


@pytest.mark.parametrize("url", EVERY, indirect=True)
def test_errors_show_neither_ids_nor_data(url, table, engines, caplog):
    """Databases quote the row that they refuse."""
    engine = engines(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"CREATE TABLE {table} (id INTEGER, session_id VARCHAR(255) UNIQUE,"
                " data VARCHAR(10), expiry TIMESTAMP NULL, more INTEGER NOT NULL)"
            )
        )
    store = open_store(engine, table)
    with caplog.at_level("DEBUG"), pytest.raises(SessionStoreError) as caught:
        store.create("the-secret-id", b"the-secret-data" * 5, HOUR)
    shown, error = caplog.text, caught.value
    while error is not None:
        shown += str(error) + repr(error)
        error = error.__cause__
    assert "the-secret" not in shown
    assert "7365637265742d" not in shown.lower()  # "secret-" in hexadecimal


# ---- other versions -----------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.slow
def test_on_sqlalchemy_2_0(run_tests):
    here = Path(__file__).parent
    files = [str(here / name) for name in ("test_row_contract.py", "test_sqlalchemy_adapter.py")]
    chosen = ["-m", "not server and not process", "-k", "sqlalchemy"]
    run_tests("sqlalchemy20", "SQLAlchemy", "2.0.", *chosen, *files)
