"""One session used by several threads or greenlets of one request (copy_current_request_context),
and gunicorn's gevent workers with many requests at once. Nothing hangs, nobody sees a session that
is not loaded.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flask
import flask_session
import pytest
from flask_session import _core
from flask_session.base import ServerSideSessionInterface

from tests.python.apps import shared
from tests.python.flask_version import LATE
from tests.services.proxy import CountingProxy
from tests.services.stage import Stage
from tests.services.visitor import Visitor
from tests.services.web import Gunicorn

# ---- threads ------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.server)])
def thread_app(request, tmp_path):
    if request.param == "sqlite":
        settings = {"SESSION_TYPE": "sqlite", "SESSION_SQLITE": str(tmp_path / "s.sqlite3")}
        return shared.make_app(settings)
    server = request.getfixturevalue("redis_server")
    proxy = request.getfixturevalue("counting_proxy")(server.port())
    app = shared.make_app({
        "SESSION_TYPE": "redis",
        "SESSION_REDIS": proxy.url(server.url),
        "SESSION_KEY_PREFIX": f"shared-{uuid.uuid4()}:",
        "SESSION_STORE_TIMEOUT": 20,
    })  # fmt: skip
    # So slow that all threads come while the first one loads.
    proxy.delay = 0.1
    return app


def test_threads_share_one_load(thread_app):
    client = thread_app.test_client()
    client.get("/set/user/me")
    for _ in range(3):
        answer = client.get("/load/8").json
        assert answer == {"users": ["me"] * 8, "loads": 1 if LATE else 0}  # in the view


def test_threads_write_into_one_session(thread_app):
    client = thread_app.test_client()
    client.get("/set/user/me")
    assert client.get("/write/8").json == list(range(8))
    expected = {"user": "me", **{f"key{number}": number for number in range(8)}}
    assert client.get("/all").json == expected


def test_threads_save_one_session(thread_app):
    client = thread_app.test_client()
    client.get("/set/user/me")
    assert client.get("/save/8").json == list(range(8))
    expected = {"user": "me", **{f"saved{number}": number for number in range(8)}}
    assert client.get("/all").json == expected


def test_threads_all_get_the_failure():
    class Down:
        name = "down"
        capabilities = _core.CAP_ATOMIC

        def load(self, key, timeout):
            raise ConnectionError("down")

        create = replace = touch = remove = load

    class Interface(ServerSideSessionInterface):
        def _open_store(self, key_prefix):
            return _core.Store.wrap(Down())

    app = flask.Flask("down")
    app.session_interface = Interface(app)

    @app.get("/")
    def view():
        return flask.jsonify(shared.together(6, lambda number: flask.session.get("user")))

    client = app.test_client()
    client.set_cookie("session", "s" * 43)
    answers = client.get("/").json
    assert len(answers) == 6
    assert all(answer.startswith("SessionStoreError: ") for answer in answers)
    assert app.session_interface._store.counts()["load"] == 1


# Before Flask loads late there is no flask.session while it is loaded.
@pytest.mark.parametrize("operation", ["load", "replace"] if LATE else ["replace"])
def test_a_store_that_uses_the_session_that_it_serves_gets_an_error(operation):
    """Not a wait for itself."""
    caught: list[BaseException] = []

    class Meeting:
        name = "meeting"
        capabilities = _core.CAP_ATOMIC | _core.CAP_NATIVE_TTL
        record = (_core.encode({"user": "me"}), b"", None)
        armed = False

        def _meet(self, name):
            if self.armed and name == operation:
                try:
                    if operation == "load":
                        flask.session.get("user")
                    else:
                        flask.session.save()
                except RuntimeError as error:
                    caught.append(error)

        def load(self, key, timeout):
            self._meet("load")
            return self.record

        def create(self, key, value, ttl_ms, timeout):
            return True

        def replace(self, key, expected, version, value, ttl_ms, timeout):
            self._meet("replace")
            self.record = (value, b"", None)
            return _core.OK

        def touch(self, key, expected, version, ttl_ms, timeout):
            return _core.OK

        def remove(self, key, timeout):
            return None

    adapter = Meeting()

    class Interface(ServerSideSessionInterface):
        def _open_store(self, key_prefix):
            return _core.Store.wrap(adapter)

    app = flask.Flask("meeting")
    app.session_interface = Interface(app)

    @app.get("/")
    def view():
        flask.session["n"] = flask.session.get("n", 0) + 1
        return str(flask.session["n"])

    client = app.test_client()
    client.set_cookie("session", "s" * 43)
    adapter.armed = True
    assert client.get("/").text == "1"
    adapter.armed = False
    assert client.get("/").text == "2"
    assert len(caught) == 1
    assert "loading or saving it" in str(caught[0])


# ---- gevent -------------------------------------------------------------------------------------


class Hub:
    def __init__(
        self, server: Gunicorn, stage: Stage, pool: ThreadPoolExecutor, proxy: CountingProxy | None
    ):
        self.server, self.stage, self.pool, self.proxy = server, stage, pool, proxy

    def visitor(self) -> Visitor:
        return Visitor(self.server.url, self.pool)


@pytest.fixture(scope="module", params=[
    pytest.param("sqlite", marks=[pytest.mark.process, pytest.mark.slow]),
    pytest.param("redis", marks=[pytest.mark.server, pytest.mark.process, pytest.mark.slow]),
])  # fmt: skip
def running_hub(request, tmp_path_factory, predecessor) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("gevent")
    proxy = None
    settings: dict[str, Any] = {"SESSION_STORE_TIMEOUT": 20}
    if request.param == "sqlite":
        settings |= {"SESSION_TYPE": "sqlite", "SESSION_SQLITE": str(folder / "s.sqlite3")}
    else:
        redis_server = request.getfixturevalue("redis_server")
        proxy = CountingProxy(redis_server.port())
        settings |= {
            "SESSION_TYPE": "redis",
            "SESSION_REDIS": proxy.url(redis_server.url),
            "SESSION_KEY_PREFIX": f"gevent-{uuid.uuid4()}:",
        }
    # Only the package, not what else lies in its folder.
    (folder / "flask_session").symlink_to(Path(flask_session.__file__).parent)
    (folder / "shared.py").write_text(Path(shared.__file__).read_text())
    stage = Stage()
    server = Gunicorn(
        folder,
        "shared:app",
        worker_class="gevent",
        python=predecessor("gevent"),
        env={
            "CESSION_SHARED": json.dumps({"settings": settings, "stage": stage.port}),
            "PYTHONPATH": str(folder),
        },
    )
    with ThreadPoolExecutor(50) as pool:
        try:
            server.start()
            yield Hub(server, stage, pool, proxy)
        finally:
            stage.close()
            server.stop()
            if proxy is not None:
                proxy.close()


@pytest.fixture
def hub(running_hub: Hub) -> Iterator[Hub]:
    yield running_hub
    running_hub.stage.go()
    if running_hub.proxy is not None:
        running_hub.proxy.delay = 0.0


def test_gevent_patches_what_the_extension_waits_on(hub):
    assert json.loads(hub.visitor().get("/patched").body) is True


def test_gevent_50_requests_at_once(hub):
    """All of them have read before the first goes on."""
    visitors = [hub.visitor() for _ in range(50)]
    for number, visitor in enumerate(visitors):
        assert visitor.get(f"/set/user/{number}").status == 200
    waiting = [
        visitor.start("GET", f"/held/all/user/{number}-again")
        for number, visitor in enumerate(visitors)
    ]
    hub.stage.pass_together("all", 50)
    answers = [json.loads(one.result(90).body) for one in waiting]
    assert [before for before, _ in answers] == [str(number) for number in range(50)]
    for number, visitor in enumerate(visitors):
        assert json.loads(visitor.get("/all").body) == {"user": f"{number}-again"}


def test_gevent_50_writers_of_one_session(hub):
    visitor = hub.visitor()
    visitor.get("/set/user/me")
    waiting = [visitor.start("GET", f"/held/one/key{n}/{n}") for n in range(50)]
    hub.stage.pass_together("one", 50)
    assert [one.result(90).status for one in waiting] == [200] * 50
    expected = {"user": "me", **{f"key{n}": str(n) for n in range(50)}}
    assert json.loads(visitor.get("/all").body) == expected


def test_gevent_200_requests_wait_for_redis_together(hub):
    """None of them is answered before all have asked: were they to wait one after the other, the
    first would wait for ever. So the native driver, which could not do that, stands aside."""
    if hub.proxy is None:
        assert json.loads(hub.visitor().get("/many/3").body) == [[200] * 3, True]
        return
    hub.proxy.gather = 200
    assert json.loads(hub.visitor().get("/many/200").body) == [[200] * 200, False]
    assert hub.proxy.gather == 0


def test_gevent_greenlets_share_one_load(hub):
    visitor = hub.visitor()
    visitor.get("/set/user/me")
    if hub.proxy is not None:
        hub.proxy.delay = 0.1
    # Other requests of the same worker in between must neither hang nor be counted.
    for _ in range(3):
        answer = json.loads(visitor.get("/load/20").body)
        assert answer == {"users": ["me"] * 20, "loads": 1}


def test_gevent_greenlets_write_and_save_one_session(hub):
    visitor = hub.visitor()
    visitor.get("/set/user/me")
    assert json.loads(visitor.get("/write/20").body) == list(range(20))
    assert json.loads(visitor.get("/save/20").body) == list(range(20))
    content = json.loads(visitor.get("/all").body)
    assert content == {
        "user": "me",
        **{f"key{number}": number for number in range(20)},
        **{f"saved{number}": number for number in range(20)},
    }
