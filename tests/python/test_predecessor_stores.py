"""Stores that Flask-Session 0.8 and Flask-Session2 wrote to: nobody is logged out, a logout is
final, and where it is promised they read what was written here. They run in their own virtualenvs.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import flask
import pytest
from flask_session import Session

from tests.python.apps import legacy

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:cachelib loads", "ignore:the client in SESSION_REDIS"),
]

# cachelib 0.17, 0.13 and 0.9 have each another layout; Flask-Session2 takes only 0.9.
WRITERS = ["fs08", "fs08-cachelib0.13", "fs08-cachelib0.9", "fs2"]
LIFETIME = 5000
COUNT_FILES = {hashlib.new(name, b"__wz_cache_count").hexdigest() for name in ("md5", "sha256")}


class World:
    """A store that a predecessor and our application share."""

    def __init__(self, predecessor, run_python, name, settings, tmp_path):
        self._run = run_python
        self._python = predecessor(name)
        self.settings = {
            "SECRET_KEY": "secret",
            "PERMANENT_SESSION_LIFETIME": LIFETIME,
            **settings,
        }

    def theirs(self, *visits, **settings):
        """[(text, cookie), ...] of visits (path, cookie) to the predecessor's application."""
        given = {"settings": {**self.settings, **settings}, "visits": visits}
        code = Path(legacy.__file__).read_text()
        answers = json.loads(self._run(self._python, code, input=json.dumps(given)))
        return [tuple(answer) for answer in answers]

    def ours(self, **settings):
        app = flask.Flask(__name__)
        app.config.update({**self.settings, **settings})
        app.testing = True
        Session(app)
        legacy.add_views(app)
        return app

    def visit(self, path, cookie, app=None, **settings):
        return legacy.visit(app or self.ours(**settings), path, cookie)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sessions"


def files_of(folder):
    """Names of cachelib's session files."""
    return {
        path.name for path in folder.iterdir() if path.is_file() and path.name not in COUNT_FILES
    }


@pytest.fixture(params=WRITERS)
def directory(request, predecessor, run_python, tmp_path, folder):
    settings = {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder)}
    return World(predecessor, run_python, request.param, settings, tmp_path)


# ---- directories --------------------------------------------------------------------------------


def test_a_directory_is_read_without_a_logout(directory, folder):
    [(_, cookie), (_, other)] = directory.theirs(("/set/ann", None), ("/set/bob", None))
    before = files_of(folder)
    assert len(before) == 2
    for _ in range(2):
        assert directory.visit("/get", cookie) == (legacy.shown("ann"), None)
        assert directory.visit("/get", other) == (legacy.shown("bob"), None)
    assert files_of(folder) == before


def test_after_a_read_the_predecessor_still_reads(directory):
    [(_, cookie)] = directory.theirs(("/set/ann", None))
    directory.visit("/get", cookie)
    assert directory.theirs(("/get", cookie))[0][0] == legacy.shown("ann")


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("/change/carl", {}),
        # the lifetime became another one: a touch is due
        ("/get", {"PERMANENT_SESSION_LIFETIME": 10 * LIFETIME}),
        ("/clear", {}),
        ("/regenerate", {}),
    ],
    ids=["change", "touch", "logout", "regenerate"],
)
def test_whatever_writes_deletes_the_old_file(directory, folder, path, settings):
    [(_, cookie), (_, other)] = directory.theirs(("/set/ann", None), ("/set/bob", None))
    app = directory.ours(**settings)
    directory.visit(path, cookie, app)
    assert len(files_of(folder)) == 1
    assert directory.theirs(("/get", cookie))[0][0] != legacy.shown("ann")
    assert directory.visit("/get", other)[0] == legacy.shown("bob")
    expected = {"/change/carl": legacy.shown("carl"), "/get": legacy.shown("ann")}
    assert directory.visit("/get", cookie, app)[0] == expected.get(path, legacy.shown(None))


def test_a_logout_is_final(directory):
    [(_, cookie)] = directory.theirs(("/set/ann", None))
    directory.visit("/change/carl", cookie)
    directory.visit("/clear", cookie)
    assert directory.visit("/get", cookie)[0] == legacy.shown(None)
    assert directory.theirs(("/get", cookie))[0][0] == legacy.shown(None)


def test_logged_out_under_the_predecessor(directory):
    [(_, cookie)] = directory.theirs(("/set/ann", None))
    directory.theirs(("/clear", cookie))
    assert directory.visit("/get", cookie)[0] == legacy.shown(None)


def test_regenerated_session_goes_on(directory):
    [(_, cookie)] = directory.theirs(("/set/ann", None))
    _, new = directory.visit("/regenerate", cookie)
    assert new != cookie
    assert directory.visit("/get", new)[0] == legacy.shown("ann")


def test_signed_cookies(directory):
    [(_, cookie)] = directory.theirs(("/set/ann", None), SESSION_USE_SIGNER=True)
    assert "." in cookie
    assert directory.visit("/get", cookie, SESSION_USE_SIGNER=True)[0] == legacy.shown("ann")
    # switched off: still accepted, and sent again without the signature
    text, plain = directory.visit("/get", cookie)
    assert (text, plain) == (legacy.shown("ann"), cookie.partition(".")[0])


def test_expired_session_is_not_read(directory):
    [(_, cookie)] = directory.theirs(("/set/ann", None), PERMANENT_SESSION_LIFETIME=-5)
    assert directory.visit("/get", cookie)[0] == legacy.shown(None)


@pytest.mark.parametrize("prefix", ["", "other:"])
def test_key_prefix(directory, prefix):
    [(_, cookie)] = directory.theirs(("/set/ann", None), SESSION_KEY_PREFIX=prefix)
    assert directory.visit("/get", cookie, SESSION_KEY_PREFIX=prefix)[0] == legacy.shown("ann")
    assert directory.visit("/get", cookie)[0] == legacy.shown(None)


# ---- cachelib -----------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["fs08"])  # the cachelib that this Python has, too
def test_cachelib_both_ways(predecessor, run_python, tmp_path, folder, writer):
    cachelib = pytest.importorskip("cachelib")
    settings = {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder)}
    world = World(predecessor, run_python, writer, settings, tmp_path)

    def app():
        cache = cachelib.FileSystemCache(str(folder))
        return world.ours(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)

    [(_, cookie)] = world.theirs(("/set/ann", None))
    assert world.visit("/get", cookie, app())[0] == legacy.shown("ann")
    world.visit("/change/carl", cookie, app())
    assert world.theirs(("/get", cookie))[0][0] == legacy.shown("carl")
    _, mine = world.visit("/set/bob", None, app())
    assert world.theirs(("/get", mine), ("/clear", mine))[0][0] == legacy.shown("bob")
    assert world.visit("/get", mine, app())[0] == legacy.shown(None)


# ---- redis --------------------------------------------------------------------------------------


@pytest.fixture
def redis_world(redis_server, predecessor, run_python, tmp_path):
    def make(name):
        settings = {
            "SESSION_TYPE": "redis",
            "SESSION_REDIS": redis_server.url,
            "SESSION_KEY_PREFIX": f"both-{uuid.uuid4()}:",
        }
        return World(predecessor, run_python, name, settings, tmp_path)

    return make


@pytest.mark.server
@pytest.mark.parametrize("written", ["msgpack", "json"])
@pytest.mark.parametrize("read", ["msgpack", "json"])
def test_redis_both_ways(redis_world, written, read):
    world = redis_world("fs08")
    writer = {"SESSION_SERIALIZATION_FORMAT": written}
    reader = {"SESSION_SERIALIZATION_FORMAT": read}
    _, mine = world.visit("/plain/ann", None, **writer)
    assert world.theirs(("/get", mine), **reader)[0][0] == legacy.shown_plain("ann")
    [(_, theirs)] = world.theirs(("/plain/bob", None), **writer)
    assert world.visit("/get", theirs, **reader)[0] == legacy.shown_plain("bob")
    world.visit("/change/carl", theirs, **reader)
    assert world.theirs(("/get", theirs), **writer)[0][0] == legacy.shown_plain("carl")
    world.theirs(("/change/dora", mine), **reader)
    assert world.visit("/get", mine, **writer)[0] == legacy.shown_plain("dora")


@pytest.mark.server
def test_redis_written_by_flask_session2(redis_world):
    world = redis_world("fs2")
    [(_, cookie)] = world.theirs(("/set/ann", None))
    assert len(cookie) == 36
    assert world.visit("/get", cookie)[0] == legacy.shown("ann")
    world.visit("/change/carl", cookie)
    assert world.visit("/get", cookie)[0] == legacy.shown("carl")
    world.visit("/clear", cookie)
    assert world.visit("/get", cookie)[0] == legacy.shown(None)
    assert world.theirs(("/get", cookie))[0][0] == legacy.shown(None)
