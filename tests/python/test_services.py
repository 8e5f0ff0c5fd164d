"""The test services themselves: a proxy that miscounts or a NOT RUN that passes would make every
other result worthless."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import redis as redis_py

from tests.services import MariadbService, PostgresService, RedisService, Services
from tests.services.base import process_start, wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]

# ---- the proxy ----------------------------------------------------------------------------------


@pytest.fixture
def shouter():
    """A server that answers each line with the same line, in capitals."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(line.upper())
        except ConnectionError:
            pass  # the proxy cut it

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line)
    answer = b""
    while answer.count(b"\n") < line.count(b"\n"):
        data = connection.recv(65536)
        if not data:
            break
        answer += data
    return answer


def test_proxy_counts_what_a_client_waits_for(shouter, counting_proxy):
    proxy = counting_proxy(shouter)
    with connect(proxy.port) as first, connect(proxy.port) as second:
        assert ask(first, b"one\n") == b"ONE\n"
        assert ask(first, b"two\n") == b"TWO\n"
        assert ask(second, b"a\nb\nc\n") == b"A\nB\nC\n"
    assert proxy.round_trips == 3
    assert proxy.connections == 2
    assert proxy.bytes_sent == proxy.bytes_received == 14
    proxy.reset()
    assert proxy.round_trips == proxy.connections == proxy.bytes_sent == 0


def test_proxy_request_in_pieces_is_one_round_trip(shouter, counting_proxy):
    proxy = counting_proxy(shouter)
    with connect(proxy.port) as connection:
        connection.sendall(b"half ")
        assert wait_until(lambda: proxy.bytes_sent == 5, 10)
        assert ask(connection, b"line\n") == b"HALF LINE\n"
    assert proxy.round_trips == 1


def test_proxy_cut_resets_and_accepts_anew(shouter, counting_proxy):
    proxy = counting_proxy(shouter)
    with connect(proxy.port) as connection:
        assert ask(connection, b"one\n") == b"ONE\n"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connect(proxy.port) as connection:
        assert ask(connection, b"again\n") == b"AGAIN\n"


def test_proxy_refuses_until_it_listens_again(shouter, counting_proxy):
    proxy = counting_proxy(shouter)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy.port)
    proxy.listen()
    with connect(proxy.port) as connection:
        assert ask(connection, b"back\n") == b"BACK\n"


def test_proxy_swallows(shouter, counting_proxy):
    proxy = counting_proxy(shouter)
    proxy.swallow = True
    with connect(proxy.port) as connection:
        connection.settimeout(0.3)
        connection.sendall(b"hello\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
    assert proxy.bytes_sent == 6
    assert proxy.bytes_received == 0


def test_proxy_url_keeps_everything_but_the_address(shouter, counting_proxy):
    proxy = counting_proxy(shouter)
    url = proxy.url("redis://app:p%40ss@127.0.0.1:6379/3?protocol=3")
    assert url == f"redis://app:p%40ss@127.0.0.1:{proxy.port}/3?protocol=3"
    assert proxy.url("redis://127.0.0.1:1/0") == f"redis://127.0.0.1:{proxy.port}/0"


# ---- postgres -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_private(services):
    server = services.own(PostgresService)
    yield server
    server.end()


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, connect_timeout=5, options="-c statement_timeout=5000") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.server
def test_postgres_with_and_without_tls(postgres_private):
    encrypted = "SELECT ssl, current_database() FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert sql(postgres_private.tls_url, encrypted) == [(True, "sessions")]
    without = postgres_private.url + "?sslmode=disable"
    assert sql(without, encrypted) == [(False, "sessions")]
    with pytest.raises(psycopg.OperationalError, match="password"):
        sql(without.replace("sessions-secret", "wrong"), "SELECT 1")


@pytest.mark.server
def test_postgres_keeps_its_data_through_a_kill(postgres_private):
    url = postgres_private.url
    sql(url, "CREATE TABLE kept AS SELECT 7 AS number")
    postgres_private.kill()
    with pytest.raises(psycopg.OperationalError):
        sql(url, "SELECT 1")
    postgres_private.restart()
    assert sql(url, "SELECT number FROM kept") == [(7,)]


@pytest.mark.server
def test_paused_postgres_does_not_answer_on_open_connections(postgres_private):
    with contextlib.closing(psycopg.connect(postgres_private.url)) as connection:
        postgres_private.pause()
        connection.pgconn.send_query(b"SELECT 1")
        readable, _, _ = select.select([connection.fileno()], [], [], 0.5)
        postgres_private.resume()
        assert not readable
        readable, _, _ = select.select([connection.fileno()], [], [], 10)
        assert readable


# ---- mariadb ------------------------------------------------------------------------------------


@pytest.mark.server
def test_mariadb_with_tls_and_its_data_through_a_kill(services):
    server = services.own(MariadbService)

    def ask(statement: str, password: str = "sessions-secret", **more: Any) -> Any:
        settings = {"user": "app", "password": password, "database": "sessions", **more}
        with pymysql.connect(
            host="127.0.0.1", port=server.port(), connect_timeout=5, read_timeout=5, **settings
        ) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()

    try:
        authority = {"ca": server.exports()["MARIADB_CA"]}
        cipher = "SHOW STATUS LIKE 'Ssl_cipher'"
        assert ask(cipher, ssl=authority)[0][1] != ""
        assert ask(cipher, ssl_disabled=True)[0][1] == ""
        with pytest.raises(pymysql.OperationalError, match="denied"):
            ask("SELECT 1", password="wrong")
        ask("CREATE TABLE kept AS SELECT 7 AS number")
        server.kill()
        with pytest.raises(pymysql.OperationalError):
            ask("SELECT 1")
        server.restart()
        assert ask("SELECT number FROM kept") == ((7,),)
    finally:
        server.end()


# ---- redis --------------------------------------------------------------------------------------


@pytest.mark.server
def test_redis_is_reached_in_three_ways(redis_server):
    for url in (redis_server.url, redis_server.unix_url, redis_server.acl_url):
        with redis_py.Redis.from_url(url) as client:
            client.set("session:services", b"\0x", ex=60)
            assert client.get("session:services") == b"\0x"
            assert 0 < client.pttl("session:services") <= 60_000
    with redis_py.Redis.from_url(redis_server.acl_url) as client:
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            client.get("other:services")


@pytest.mark.server
def test_redis_of_ones_own_goes_and_comes_back(redis_server, redis_private):
    server = redis_private()
    port = server.port()
    assert port != redis_server.port()
    options = {"socket_timeout": 0.3, "socket_connect_timeout": 0.3, "retry": None}

    def client():
        return redis_py.Redis.from_url(server.url, **options)

    client().set("a", 1)
    server.pause()
    with pytest.raises(redis_py.exceptions.TimeoutError):
        client().get("a")
    server.resume()
    assert wait_until(lambda: server.ready(), 10)
    assert client().get("a") == b"1"
    for end in (server.stop, server.kill):
        end()
        with pytest.raises(redis_py.exceptions.ConnectionError):
            client().get("a")
        server.restart()
        assert server.port() == port
        assert client().get("a") is None


@pytest.mark.server
def test_redis_settings(redis_private):
    server = redis_private(maxmemory="3mb", maxmemory_policy="noeviction")
    with redis_py.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.mark.server
def test_services_are_reused_and_ended_by_who_started_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CESSION_SERVICES", str(tmp_path / "run"))
    monkeypatch.delenv(Services.OFFER, raising=False)
    shared = Services.shared()
    started = shared.start(RedisService)
    assert shared.start(RedisService).ports == started.ports
    private = Services.private()
    assert private.start(RedisService).processes == started.processes
    private.close()
    assert started.alive()
    shared.stop(RedisService)
    assert not started.alive()
    assert shared.find(RedisService) is None


@pytest.mark.server
def test_what_a_killed_run_left_is_ended_by_the_next(monkeypatch, request):
    # Not tmp_path: with workers beside each other that is too long for a unix socket's name.
    place = tempfile.TemporaryDirectory(prefix="cession-")
    request.addfinalizer(place.cleanup)
    monkeypatch.setenv("CESSION_SERVICES", os.path.join(place.name, "run"))
    monkeypatch.delenv(Services.OFFER, raising=False)
    code = (
        "import os, signal\n"
        "from tests.services import RedisService, Services\n"
        "print(Services.private().start(RedisService).processes[0][0], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    assert process_start(pid) is not None
    Services.private().close()
    assert process_start(pid) is None


@pytest.mark.server
def test_processes_of_one_run_have_one_server(monkeypatch, request):
    place = tempfile.TemporaryDirectory(prefix="cession-")
    request.addfinalizer(place.cleanup)
    monkeypatch.setenv("CESSION_SERVICES", os.path.join(place.name, "run"))
    monkeypatch.delenv(Services.OFFER, raising=False)
    first = Services.private()
    monkeypatch.setenv(Services.OFFER, str(first.folder))
    code = (
        "from tests.services import RedisService, Services\n"
        "private = Services.private()\n"
        "print(private.start(RedisService).processes[0][0])\n"
        "private.close()\n"
    )
    pids = {int(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(2)}
    [pid] = pids
    assert first.start(RedisService).processes[0][0] == pid
    assert process_start(pid) is not None
    first.close()
    assert process_start(pid) is None


def test_a_process_of_another_start_time_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        started = process_start(stranger.pid)
        assert started is not None
        folder = tmp_path / "redis"
        folder.mkdir()
        state = {"processes": [[stranger.pid, started - 1]], "ports": {"tcp": 1}, "owner": [0, 0]}
        (folder / "state.json").write_text(json.dumps(state))
        services = Services(tmp_path)
        assert services.find(RedisService) is None
        services.stop(RedisService)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# ---- web servers --------------------------------------------------------------------------------

APPLICATION = """
import os
from flask import Flask

app = Flask(__name__)

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.get("/cookie/<value>")
def cookie(value):
    return "set", 200, {"Set-Cookie": f"c={value}; Path=/"}

@app.get("/gone")
def gone():
    return "deleted", 200, {"Set-Cookie": "c=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"}

@app.get("/seen")
def seen():
    from flask import request
    return request.headers.get("Cookie", "")
"""


@pytest.mark.process
def test_gunicorn_app(gunicorn_app, browser):
    server = gunicorn_app(source=APPLICATION, workers=2)
    first = set(server.worker_pids())
    assert len(first) == 2
    assert int(browser(server).get("/pid").text) in first
    server.restart()
    second = set(server.worker_pids())
    assert len(second) == 2
    assert not first & second
    assert int(browser(server).get("/pid").text) in second
    server.kill()
    assert all(process_start(pid) is None for pid in second)


@pytest.mark.process
def test_a_stopped_server_ends_nobody_else(gunicorn_app):
    server = gunicorn_app(source=APPLICATION, workers=1)
    server.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        # As if the number had been given to another process since.
        server.process.pid = stranger.pid
        server.stop()
        server.kill()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.process
def test_gunicorn_that_cannot_start_is_an_error(gunicorn_app):
    with pytest.raises(RuntimeError, match="no such thing"):
        gunicorn_app(source="raise SystemError('no such thing')")


@pytest.mark.process
def test_browser_keeps_cookies(flask_run, browser):
    visitor = browser(flask_run(source=APPLICATION))
    visitor.get("/cookie/one")
    assert visitor.get("/seen").text == "c=one"
    visitor.get("/gone")
    assert visitor.get("/seen").text == ""


# ---- other Pythons ------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "distribution", "version"),
    [
        ("fs08", "Flask-Session", "0.8.0"),
        ("fs2", "flask-session2", "1.3.1"),
        ("flask23", "flask", "2.3.3"),
        ("flask30", "flask", "3.0.3"),
        ("flask312", "flask", "3.1.2"),
    ],
)
def test_predecessors_are_what_they_are_called(
    predecessor, run_python, name, distribution, version
):
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    assert run_python(predecessor(name), code, distribution).strip() == version


@pytest.mark.process
def test_package_under_test_in_another_flask(predecessor, run_python):
    import flask_session

    code = "import flask_session, flask; print(flask_session.__path__[0])"
    found = run_python(predecessor("flask23"), code, cession=True).strip()
    assert os.path.realpath(found) == os.path.realpath(flask_session.__path__[0])


@pytest.mark.process
def test_predecessor_does_not_see_the_package_under_test(predecessor, run_python, monkeypatch):
    import flask_session

    monkeypatch.setenv("PYTHONPATH", str(Path(flask_session.__path__[0]).parent))
    code = "import flask_session; print(flask_session.__path__[0])"
    found = run_python(predecessor("fs08"), code).strip()
    assert os.path.realpath(found) != os.path.realpath(flask_session.__path__[0])


# ---- NOT RUN ------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("ci", [False, True])
def test_not_run_is_shown_and_fails_in_ci(tmp_path, ci):
    (tmp_path / "test_sample.py").write_text(
        "import pytest\n"
        "def test_one(): pass\n"
        "def test_two(not_run): not_run('no such server')\n"
        "def test_three(): pytest.skip('some other reason')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    environment |= {"CI": "true"} if ci else {}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path),
         "-p", "tests.python.conftest", str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if ci else 0), done.stdout + done.stderr
    table = done.stdout.partition(" NOT RUN =")[2]
    assert "test_sample.py::test_two" in table
    assert "no such server" in table
    assert "some other reason" in table
    closing = done.stdout.strip().splitlines()[-1]
    assert ("2 failed, 1 passed" if ci else "1 passed, 2 skipped") in closing
