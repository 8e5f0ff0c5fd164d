"""What is special about PostgreSQL, on a real server; the contract is in test_row_contract.py."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import uuid
import warnings

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.postgresql import PostgreSqlSessionInterface

psycopg = pytest.importorskip("psycopg")
psycopg2 = pytest.importorskip("psycopg2")
psycopg_pool = pytest.importorskip("psycopg_pool")
pytest.importorskip("psycopg2.pool")
pytest.importorskip("psycopg2.extras")

pytestmark = [pytest.mark.server, pytest.mark.client]

HOUR = 3_600_000
DDL = """CREATE TABLE {} (session_id varchar(255) PRIMARY KEY, created timestamp without time zone,
 data bytea, expiry timestamp without time zone)"""


@pytest.fixture
def where(start_row):
    return start_row("postgresql-url").where


@pytest.fixture
def url(where):
    return where["POSTGRES_URL"]


@pytest.fixture
def table(url):
    name = f"t_{uuid.uuid4().hex[:12]}"
    yield name
    sql(url, f"DROP TABLE IF EXISTS {name}")


def sql(url, statement, *params):
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []


def make(client, table, timeout=5, **options):
    app = flask.Flask(__name__)
    app.config["SESSION_STORE_TIMEOUT"] = timeout
    return PostgreSqlSessionInterface(app, client, table=table, **options)


@pytest.fixture
def psycopg2_pool(url):
    made = []

    def pool(most=3, **options):
        made.append(
            psycopg2.pool.ThreadedConnectionPool(1, most, url, connect_timeout=5, **options)
        )
        return made[-1]

    yield pool
    for one in made:
        if not one.closed:
            one.closeall()


@pytest.fixture
def psycopg3_pool(url):
    made = []

    def pool(most=3, **options):
        made.append(
            psycopg_pool.ConnectionPool(
                url, min_size=1, max_size=most, open=True, kwargs={"connect_timeout": 5, **options}
            )
        )
        return made[-1]

    yield pool
    for one in made:
        one.close()


@pytest.fixture(params=["psycopg2", "psycopg3"])
def pool(request):
    return request.getfixturevalue(f"{request.param}_pool")


# ---- tables -------------------------------------------------------------------------------------


def test_a_table_that_is_there_is_used_as_it_stands(url, table):
    sql(url, DDL.format(table))
    sql(
        url,
        f"INSERT INTO {table} VALUES ('session:a', now(), %s, timezone('UTC', now()) + '1 hour')",
        _core.encode({"user": "ann"}),
    )
    interface = make(url, table)
    assert interface._retrieve_session_data("session:a") == {"user": "ann"}
    value, _, expires = interface._store.load("a")
    assert abs(expires - time.time() * 1000 - HOUR) < 60_000
    assert interface._store.replace("a", value, b"", b"new", HOUR) == _core.OK
    assert interface._store.create("b", b"x", HOUR)
    assert sql(url, f"SELECT count(*) FROM pg_indexes WHERE tablename = '{table}'") == [(1,)]


def test_null_expiry_is_expired(url, table):
    sql(url, DDL.format(table))
    sql(url, f"INSERT INTO {table} VALUES ('session:a', NULL, %s, NULL)", b"old")
    store = make(url, table)._store
    assert store.load("a") is None
    assert store.create("a", b"new", HOUR)
    assert store.load("a")[0] == b"new"


@pytest.mark.parametrize("name", ['odd"%s name', "UPPER", "s\u00e9ance"])
def test_odd_names_are_made_once_with_an_index_on_the_expiry(url, name):
    schema = f"{name} {uuid.uuid4().hex[:8]}"
    quoted = '"' + schema.replace('"', '""') + '"'
    try:
        stores = [make(url, name, schema=schema)._store for _ in range(6)]
        start, answers = threading.Barrier(6), []

        def work(number):
            start.wait(30)
            answers.append(stores[number].create("k", b"%d" % number, HOUR))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(answers) == [False] * 5 + [True]
        found = sql(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = %s", schema)
        assert len([line for (line,) in found if "(expiry)" in line]) == 1
        assert len(found) == 2
    finally:
        sql(url, f"DROP SCHEMA IF EXISTS {quoted} CASCADE")


def test_a_dropped_table_is_made_again(url, table):
    interface = make(url, table)
    assert interface._store.create("k", b"x", HOUR)
    with interface._get_cursor() as cursor:
        cursor.execute(interface._queries.retrieve_session_data, {"session_id": "session:k"})
        assert bytes(cursor.fetchone()[0]) == b"x"
    interface._drop_table()
    assert interface._store.load("k") is None
    assert interface._store.create("k", b"y", HOUR)


def test_a_role_that_may_only_use_the_table(url, table):
    role = f"role_{uuid.uuid4().hex[:12]}"
    limited = url.replace("postgres:sessions-secret", f"{role}:secret")
    sql(url, f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        store = make(limited, table)._store
        for _ in range(2):
            with pytest.raises(SessionStoreError) as caught:
                store.create("hidden", b"x", HOUR)
            assert isinstance(caught.value.__cause__, PermissionError)
            text = str(caught.value.__cause__)
            assert table in text
            assert "docs/backends/postgresql.md" in text
            assert "hidden" not in text
        sql(url, DDL.format(table))
        with pytest.raises(SessionStoreError) as caught:
            store.load("hidden")
        assert "permission denied" in str(caught.value.__cause__)
        assert "hidden" not in str(caught.value.__cause__)
        sql(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")
        assert store.create("k", b"x", HOUR)
        assert store.load("k")[0] == b"x"
    finally:
        sql(url, f"DROP OWNED BY {role}")
        sql(url, f"DROP ROLE {role}")


# ---- time zones, connections ---------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_time_zone_of_the_connection(url, table, zone, pool):
    store = make(pool(options=f"-c timezone={zone}"), table)._store
    assert store.create("k", b"x", HOUR)
    assert abs(store.load("k")[2] - time.time() * 1000 - HOUR) < 5000
    [(left,)] = sql(
        url, f"SELECT extract(epoch FROM expiry - timezone('UTC', now()))::float8 FROM {table}"
    )
    assert 3590 < left <= 3600
    assert make(url, table)._store.load("k")[0] == b"x"


def test_connections_go_back_as_they_came(table, pool):
    given = pool(most=1)
    store = make(given, table)._store
    assert store.create("k", b"x", HOUR)
    connection = given.getconn()
    try:
        assert connection.autocommit is False
        assert connection.info.transaction_status == 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(5)")
        connection.rollback()
    finally:
        given.putconn(connection)
    assert store.load("k")[0] == b"x"


def test_row_factories_of_the_pool_do_not_matter(table, psycopg2_pool, psycopg3_pool):
    dicts = psycopg2.extras.RealDictCursor
    for given in (
        psycopg2_pool(cursor_factory=dicts),
        psycopg3_pool(row_factory=psycopg.rows.dict_row),
    ):
        store = make(given, table)._store
        store.remove("k")
        assert store.create("k", b"x", HOUR)
        assert store.load("k")[0] == b"x"


def test_an_exhausted_pool_waits_and_then_fails(table, pool):
    given = pool(most=1)
    store = make(given, table, timeout=0.3)._store
    assert store.create("k", b"x", HOUR)
    taken = given.getconn()
    try:
        with pytest.raises(SessionStoreError):
            store.load("k", timeout=0.3)
        timer = threading.Timer(0.3, given.putconn, (taken,))
        timer.start()
        assert store.load("k", timeout=20)[0] == b"x"
        timer.join()
        taken = None
    finally:
        if taken is not None:
            given.putconn(taken)


def test_a_transaction_of_the_application_stays_open(url, table, pool):
    given = pool()
    store = make(given, table)._store
    sql(url, f"CREATE TABLE {table}_rows (n integer)")
    connection = given.getconn()
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table}_rows VALUES (1)")
        assert store.create("k", b"x", HOUR)
        assert sql(url, f"SELECT count(*) FROM {table}_rows") == [(0,)]
        connection.rollback()
        assert store.load("k")[0] == b"x"
        assert sql(url, f"SELECT count(*) FROM {table}_rows") == [(0,)]
    finally:
        given.putconn(connection)
        sql(url, f"DROP TABLE {table}_rows")


def test_a_lock_of_another_transaction_ends_with_the_timeout(url, table):
    store = make(url, table)._store
    assert store.create("k", b"x", HOUR)
    with contextlib.closing(psycopg.connect(url)) as other:
        other.execute(f"SELECT * FROM {table} FOR UPDATE")
        with pytest.raises(SessionStoreError) as caught:
            store.replace("k", b"x", b"", b"y", HOUR, timeout=0.4)
        assert isinstance(caught.value.__cause__, TimeoutError)
        other.rollback()
    # One who has gone may still have had its way, or not: nothing else is there.
    assert store.load("k")[0] in (b"x", b"y")


def test_broken_connections_are_replaced(url, table, pool):
    given = pool(most=3)
    store = make(given, table)._store
    assert store.create("k", b"x", HOUR)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s"
    for operation in (
        lambda: store.load("k")[0] == b"x",
        lambda: store.replace("k", b"x", b"", b"x", HOUR) == _core.OK,
    ):
        sql(url, ended + " AND pid <> pg_backend_pid()", f"%{table}%")
        time.sleep(0.2)
        assert operation()


def test_a_child_makes_connections_of_its_own(url, table, pool):
    given = pool(1)  # more would take turns
    for client in (given, url):
        store = make(client, table)._store
        store.remove("k")
        assert store.create("k", b"parent", HOUR)
        pids = f"SELECT count(DISTINCT pid) FROM pg_stat_activity WHERE query LIKE '%{table}%'"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                ok = store.replace("k", b"parent", b"", b"child", HOUR) == _core.OK
                status = 0 if ok and store.load("k")[0] == b"child" else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        # the parent's connection is as it was
        before = sql(url, pids)
        assert store.load("k")[0] == b"child"
        assert sql(url, pids) == before


# ---- configuration -------------------------------------------------------------------------------


def test_tls(where, table):
    interface = make(where["POSTGRES_TLS_URL"], table)
    with interface._get_cursor() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == (True,)
    assert interface._store.create("k", b"x", HOUR)
    untrusted = where["POSTGRES_URL"] + "?sslmode=verify-full&sslrootcert=/dev/null"
    with pytest.raises(SessionStoreError):
        make(untrusted, table)._store.load("k")


def test_a_wrong_password_is_an_error_at_first_use(url, table):
    wrong = url.replace("sessions-secret", "not-this-one")
    store = make(wrong, table)._store
    with pytest.raises(SessionStoreError) as caught:
        store.load("k")
    text = f"{caught.value} {caught.value.__cause__}"
    assert "password authentication failed" in text
    assert "not-this-one" not in text


class Engine:
    pass


@pytest.mark.parametrize(
    "client", [None, 5, Engine(), "mysql://u:hidden@h/x", "postgresql://u:hidden@h:port/x?no=1"]
)
def test_what_is_no_client_is_refused_at_the_start(client):
    with pytest.raises(SessionConfigError) as caught:
        make(client, "t")
    assert "postgresql://" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_pools_that_do_not_fit_are_refused(url):
    with contextlib.closing(psycopg2.connect(url)) as connection:
        with pytest.raises(SessionConfigError, match="pool"):
            make(connection, "t")
    simple = psycopg2.pool.SimpleConnectionPool(0, 1, url)
    with pytest.raises(SessionConfigError, match="ThreadedConnectionPool"):
        make(simple, "t")
    asynchronous = psycopg_pool.AsyncConnectionPool(url, open=False)
    with pytest.raises(SessionConfigError, match="asyncio"):
        make(asynchronous, "t")


def test_a_pool_without_a_timeout_warns(url):
    pool = psycopg2.pool.ThreadedConnectionPool
    with pytest.warns(UserWarning, match="connect_timeout"):
        make(pool(0, 1, url), "t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(pool(0, 1, url, connect_timeout=2), "t")
        make(pool(0, 1, url + "?connect_timeout=2"), "t")
        make(pool(0, 1, dsn=url + "?connect_timeout=2"), "t")
        make(pool(0, 1, host="127.0.0.1", connect_timeout=2), "t")


def test_a_missing_library_names_its_extra(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SessionConfigError, match=r"cession\[postgresql\]"):
        make(url, "t")


def test_names_and_keys_that_do_not_fit(url, table):
    for options in ({"table": "x" * 64}, {"schema": ""}, {"table": "a\0b"}, {"table": 5}):
        with pytest.raises(SessionConfigError, match="SESSION_POSTGRESQL_"):
            PostgreSqlSessionInterface(None, url, **options)
    store = make(url, table)._store
    with pytest.raises(SessionStoreError):
        store.create("a\0b", b"x", HOUR)
    assert store.load("a\0b") is None
    store.remove("a\0b")


def test_the_url_alone(url):
    app = flask.Flask(__name__)
    app.config["SESSION_URL"] = url
    Session(app)
    assert type(app.session_interface) is PostgreSqlSessionInterface
