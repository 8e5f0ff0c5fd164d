"""The documents that users of the predecessors come with run as they stand: byte for byte, under
`flask run` and gunicorn, with a real Redis and a client that keeps cookies as browsers do.

Both name port 6379, in the text or by its being the default. The test's server has a port of its
own, so the server processes get a sitecustomize that turns connections to 6379 there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from tests.services import RedisService
from tests.services.visitor import Visitor

pytestmark = [pytest.mark.process, pytest.mark.slow]

APPS = Path(__file__).parent / "apps"
MONTH = 31 * 86_400

SITECUSTOMIZE = """
import socket

def connect(self, address, connect=socket.socket.connect):
    if isinstance(address, tuple) and address[1] == 6379:
        address = ("127.0.0.1", {port})
    return connect(self, address)

socket.socket.connect = connect
"""


class Served:
    """A document under a web server, and a look at what it stored."""

    def __init__(self, server, folder, redis):
        self.server, self.folder, self.redis = server, folder, redis

    def visitor(self):
        return Visitor(self.server.url)

    def records(self):
        """{key or its hash: (stored session, seconds left)}"""
        raise NotImplementedError


class InRedis(Served):
    def records(self):
        return {
            key.decode(): (msgspec.msgpack.decode(self.redis.get(key)), self.redis.ttl(key))
            for key in self.redis.scan_iter()
        }


# In another process: two copies of SQLite in one lose data (this Python may have one of its own).
LOOK = """
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("select hex(value), expires from cession_sessions"):
    print(*row)
"""


class InSqlite(Served):
    @property
    def file(self):
        return self.folder / "instance" / "flask_session.sqlite3"

    def records(self):
        output = subprocess.run(
            [sys.executable, "-c", LOOK, str(self.file)],
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        found = {}
        for number, line in enumerate(output.splitlines()):
            value, expires = line.split()
            left = int(expires) / 1000 - time.time()
            found[str(number)] = (msgspec.msgpack.decode(bytes.fromhex(value)), left)
        return found


@pytest.fixture(scope="module")
def redis_of_documents(services):
    redis = pytest.importorskip("redis")
    server = services.own(RedisService)
    with redis.Redis.from_url(server.url) as client:
        yield server, client


@pytest.fixture(params=["flask run", "gunicorn"])
def serve(request, tmp_path, flask_run, gunicorn_app):
    """serve(document, type): the document, in which at most the session's type is another one."""

    def make(document, kind, target="app", environment=None, edit=None):
        folder = tmp_path / "site"
        folder.mkdir()
        text = (APPS / f"{document}.py").read_text()
        client = None
        environment = dict(environment or {})
        if kind == "redis":
            server, client = request.getfixturevalue("redis_of_documents")
            client.flushall()
            places = tmp_path / "places"
            places.mkdir()
            customize = SITECUSTOMIZE.format(port=server.port())
            (places / "sitecustomize.py").write_text(customize)
            inherited = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{places}:{inherited}" if inherited else str(places)
        else:
            assert text.count('"redis"') == 1
            text = text.replace('"redis"', f'"{kind}"')
        if edit is not None:
            text = edit(text)
        (folder / f"{document}.py").write_text(text)
        if request.param == "gunicorn":
            running = gunicorn_app(
                f"{document}:{target}", folder=folder, workers=2, env=environment,
                arguments=["--access-logfile", "-", "--access-logformat", "pid=%(p)s"],
            )  # fmt: skip
        else:
            running = flask_run(document, folder=folder, env=environment)
        return (InRedis if kind == "redis" else InSqlite)(running, folder, client)

    make.server = request.param
    return make


def kinds():
    return [pytest.param("redis", marks=pytest.mark.server), "sqlite"]


def cookie_of(answer):
    [line] = answer.all("Set-Cookie")
    return line


def follow(visitor, answer):
    assert answer.status == 302
    assert answer.all("Location") == ["/"]
    return visitor.get("/")


def worker_pids(served):
    return set(re.findall(r"pid=<(\d+)>", served.server.log()))


@pytest.mark.parametrize("kind", kinds())
def test_redis_quickstart(serve, kind):
    served = serve("redis_quickstart", kind)
    visitor, other = served.visitor(), served.visitor()

    answer = visitor.get("/")
    assert answer.text == "You are not logged in"
    assert answer.all("Set-Cookie") == []
    if kind == "redis":
        assert served.records() == {}

    answer = visitor.get("/login")
    cookie = cookie_of(answer)
    assert re.fullmatch(r"session=[\w-]{43}; HttpOnly; Path=/", cookie)  # SESSION_PERMANENT=False
    assert follow(visitor, answer).text == "Hello, ann"
    sid = visitor.sid
    [(key, (data, left))] = served.records().items()
    assert data == {"username": "ann"}
    assert MONTH - 60 < left <= MONTH
    assert key == f"session:{sid}" or kind == "sqlite"
    assert other.get("/").text == "You are not logged in"

    # Every worker knows the visitor.
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            answers = list(pool.map(lambda _: visitor.twin().get("/"), range(16)))
            assert [answer.text for answer in answers] == ["Hello, ann"] * 16
            if serve.server == "flask run" or len(worker_pids(served)) == 2:
                break
        else:
            pytest.fail("one worker answered everything")

    # Also after a restart.
    served.server.restart()
    answer = visitor.get("/")
    assert answer.text == "Hello, ann"
    assert answer.all("Set-Cookie") == []

    thief = visitor.twin()
    answer = visitor.get("/logout")
    assert re.match(r"session=; Expires=Thu, 01 Jan 1970", cookie_of(answer))
    assert visitor.sid is None
    assert follow(visitor, answer).text == "You are not logged in"
    assert served.records() == {}
    assert thief.sid == sid
    assert thief.get("/").text == "You are not logged in"

    # And again, by another id.
    assert follow(visitor, visitor.get("/login")).text == "Hello, ann"
    assert visitor.sid != sid
    assert "Traceback" not in served.server.log()


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("document", ["readme", "readme_factory"])
def test_readme(serve, kind, document):
    served = serve(document, kind, "create_app()" if document == "readme_factory" else "app")
    visitor = served.visitor()
    answer = visitor.get("/get/")
    assert (answer.text, answer.all("Set-Cookie")) == ("not set", [])
    answer = visitor.get("/set/")
    assert answer.text == "ok"
    assert "; Expires=" in cookie_of(answer)
    [(key, (data, left))] = served.records().items()
    assert data == {"key": "value", "_permanent": True}
    assert MONTH - 60 < left <= MONTH
    assert key == f"session:{visitor.sid}" or kind == "sqlite"
    for _ in range(5):
        assert visitor.get("/get/").text == "value"
    assert served.visitor().get("/get/").text == "not set"
    served.server.restart()
    assert visitor.get("/get/").text == "value"
    assert "Traceback" not in served.server.log()


def test_readme_without_a_type(serve):
    """No type and no secret key: sessions are empty, and writing says why it cannot be done."""

    def edit(text):
        assert text.count('SESSION_TYPE = "null"\n') == 1
        return text.replace('SESSION_TYPE = "null"\n', "")

    served = serve("readme", "null", edit=edit)
    visitor = served.visitor()
    answer = visitor.get("/get/")
    assert (answer.status, answer.text, answer.all("Set-Cookie")) == (200, "not set", [])
    answer = visitor.get("/set/")
    assert (answer.status, answer.all("Set-Cookie")) == (500, [])
    assert "RuntimeError: the session is unavailable because" in served.server.log()
    assert not (served.folder / "instance").exists()


def test_readme_with_the_null_type(serve):
    """Said aloud it is the same, with a secret key or not."""

    def edit(text):
        return text.replace('"null"\n', '"null"\nSECRET_KEY = "k"\n')

    served = serve("readme", "null", edit=edit)
    visitor = served.visitor()
    assert visitor.get("/get/").text == "not set"
    assert visitor.get("/set/").status == 500
    assert "RuntimeError: the session is unavailable because" in served.server.log()


def test_quickstart_without_a_type(serve):
    """A secret key and no type: the application means to have sessions, so it does not start."""

    def edit(text):
        line = 'app.config["SESSION_TYPE"] = "null"\n'
        assert text.count(line) == 1
        return text.replace(line, "")

    with pytest.raises(RuntimeError, match=r"does not start") as caught:
        serve("redis_quickstart", "null", edit=edit)
    [line] = re.findall("SessionConfigError: (.*)", str(caught.value))[-1:]
    assert "SESSION_TYPE is not set" in line
    for name in ("redis", "sqlite", "memory", "null"):
        assert name in line
