"""The tutorial and the usage page of the predecessor run as they stand, under `flask run` and
gunicorn. The usage page's directory and port are other ones here; nothing else is.
"""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

APPS = Path(__file__).parent / "apps"


@pytest.fixture(params=["flask run", "gunicorn"])
def serve(request, tmp_path, flask_run, gunicorn_app):
    """serve(document, {text: replacement}): the running server and its folder."""

    def make(document, replaced=()):
        folder = tmp_path / "site"
        folder.mkdir()
        text = (APPS / f"{document}.py").read_text()
        for old, new in dict(replaced).items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / f"{document}.py").write_text(text)
        if request.param == "gunicorn":
            return gunicorn_app(f"{document}:app", folder=folder, workers=2), folder
        return flask_run(document, folder=folder), folder

    return make


def test_tutorial(serve, browser):
    server, folder = serve("tutorial")
    visitor = browser(server)
    assert visitor.get("/").text == "nobody"
    assert not visitor.cookies
    assert visitor.post("/login", {"name": "ann"}).text == "ann"
    for _ in range(6):  # of both workers
        assert visitor.get("/").text == "ann"
        assert browser(server).get("/").text == "nobody"
    place = folder / "flask_session"
    assert stat.S_IMODE((place / "cession").stat().st_mode) == 0o700
    files = [path for path in place.rglob("*") if len(path.name) == 64]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
    server.restart()
    assert visitor.get("/").text == "ann"
    old = dict(visitor.cookies)
    assert visitor.get("/logout").text == "nobody"
    assert not visitor.cookies
    assert not any(path.exists() for path in files)
    visitor.cookies.update(old)
    assert visitor.get("/").text == "nobody"
    assert "Traceback" not in server.log()


def visit(server, browser):
    visitor = browser(server)
    assert visitor.get("/get/").text == "not set"
    assert visitor.get("/set/").text == "ok"
    for _ in range(6):
        assert visitor.get("/get/").text == "value"
        assert browser(server).get("/get/").text == "not set"
    server.restart()
    assert visitor.get("/get/").text == "value"
    assert "Traceback" not in server.log()
    return visitor


@pytest.mark.server
@pytest.mark.parametrize("document", ["usage_object", "usage_interface"])
def test_usage_with_redis(serve, browser, redis_server, document):
    server, _ = serve(document, {"port=6379": f"port={redis_server.port()}"})
    visitor = visit(server, browser)
    redis = pytest.importorskip("redis").Redis.from_url(redis_server.url)
    assert redis.get("session:" + visitor.cookies["session"]) is not None


def test_usage_with_cachelib(serve, browser, tmp_path):
    pytest.importorskip("cachelib")
    place = tmp_path / "sessions"
    server, folder = serve("usage_cachelib", {"/sessions": str(place)})
    visit(server, browser)
    values = [path.read_bytes()[4:] for path in place.iterdir()]
    # cachelib's own file, and the session's dict as Flask-Session stores it
    assert {"key": "value", "_permanent": True} in [pickle.loads(value) for value in values]
    log = server.log()
    starts = 4 if (folder / "ready").exists() else 2  # of gunicorn's two workers, of flask run
    assert log.count("SESSION_CACHELIB is a tuple of one cache") == starts
    assert log.count("cachelib loads what it stored with pickle") == starts
