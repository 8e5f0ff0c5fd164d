"""Stores that Flask-Session 0.8 and Flask-Session2 wrote to: nobody is logged out, a logout is
final, and where it is promised they read what was written here. They run in their own virtualenvs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import ClassVar

import flask
import pytest
from flask_session import Session, _core

from tests import long_run_wanted
from tests.python.apps import legacy
from tests.rows import ROWS, Where, configuration, leading, marks, new_prefix, parameters

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:cachelib loads", "ignore:the client in SESSION_REDIS"),
]

# cachelib 0.17, 0.13 and 0.9 have each another layout; Flask-Session2 takes only 0.9.
WRITERS = [
    "fs08",
    *(
        pytest.param(name, marks=pytest.mark.full)
        for name in ("fs08-cachelib0.13", "fs08-cachelib0.9")
    ),
    "fs2",
]
LIFETIME = 5000
COUNT_FILES = {hashlib.new(name, b"__wz_cache_count").hexdigest() for name in ("md5", "sha256")}


class World:
    """A store that a predecessor and our application share."""

    setup = ""
    where: ClassVar[Where] = {}

    def __init__(self, predecessor, run_python, name, settings):
        self._run = run_python
        self._python = predecessor(name)
        self.settings = {
            "SECRET_KEY": "secret",
            "PERMANENT_SESSION_LIFETIME": LIFETIME,
            **settings,
        }

    def theirs(self, *visits, **settings):
        """[(text, cookie), ...] of visits (path, cookie) to the predecessor's application."""
        given = {
            "settings": {**self.settings, **settings},
            "setup": self.setup,
            "where": self.where,
            "visits": visits,
        }
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
def directory(request, predecessor, run_python, folder):
    settings = {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder)}
    return World(predecessor, run_python, request.param, settings)


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
def test_cachelib_both_ways(predecessor, run_python, folder, writer):
    cachelib = pytest.importorskip("cachelib")
    settings = {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder)}
    world = World(predecessor, run_python, writer, settings)

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


# ---- rows of tests/rows -------------------------------------------------------------------------


class RowWorld(World):
    def __init__(self, predecessor, run_python, name, row):
        super().__init__(predecessor, run_python, name, {"SESSION_KEY_PREFIX": new_prefix()})
        self.row, self.where, self.setup = type(row), row.where, row.legacy

    def ours(self, **settings):
        return super().ours(**{**configuration(self.row, self.where), **self.settings, **settings})


# What each writes, and how it shows: 0.8 keeps plain data only, Flask-Session2 pickles.
WRITTEN = {"fs08": ("/plain/", legacy.shown_plain), "fs2": ("/set/", legacy.shown)}


def row_and_writer():
    return [
        pytest.param(name, writer, id=f"{name}-{writer}", marks=marks(name))
        for name, row in ROWS.items()
        if leading(row) or ("predecessors" in vars(row) and not row.slow_server)
        for writer in row.predecessors
    ]


def written_by_itself(row):
    """How the bytes are made does not depend on how they travel: a row that inherits it adds
    nothing."""
    own = {"raced", "predecessors"} & set(vars(row))
    short = bool(own) and not row.slow_server
    return "fs08" in row.predecessors and (short or long_run_wanted())


@pytest.fixture
def row_world(start_row, predecessor, run_python):
    return lambda name, writer: RowWorld(predecessor, run_python, writer, start_row(name))


@pytest.mark.parametrize(("name", "writer"), row_and_writer())
def test_a_row_is_read_without_a_logout(row_world, name, writer):
    world = row_world(name, writer)
    path, shown = WRITTEN["fs08" if world.row.plain else writer]
    users = ("reader", "changer", "idler", "leaver", "mover")
    written = world.theirs(*((path + user, None) for user in users))
    cookies = {user: cookie for user, (_, cookie) in zip(users, written, strict=True)}

    app = world.ours()
    store = app.extensions["flask_session"].store
    for user, cookie in cookies.items():
        for first in (True, False):
            text, again = world.visit("/get", cookie, app)
            assert text == shown(user)
            if store.capabilities & _core.CAP_GIVES_EXPIRY:
                # The expiry was understood: a touch is due where there was none.
                touched = first and world.row.endless
                assert again == (cookie if touched else None)

    world.visit("/change/carl", cookies["changer"])
    assert world.visit("/get", cookies["changer"])[0] == shown("carl")
    longer = world.ours(PERMANENT_SESSION_LIFETIME=10 * LIFETIME)
    assert world.visit("/get", cookies["idler"], longer) == (shown("idler"), cookies["idler"])
    assert world.visit("/get", cookies["idler"], longer) == (shown("idler"), None)
    world.visit("/clear", cookies["leaver"])
    assert world.visit("/get", cookies["leaver"])[0] == legacy.shown(None)
    _, new = world.visit("/regenerate", cookies["mover"])
    assert world.visit("/get", new)[0] == shown("mover")
    assert world.visit("/get", cookies["mover"])[0] == legacy.shown(None)

    # The predecessor again: what was only read is as it was, and a logout stays one.
    visits = [("/get", cookies["reader"]), ("/get", cookies["leaver"]), ("/get", cookies["mover"])]
    if writer in world.row.returns:  # a rollback
        _, mine = world.visit("/plain/dora", None)
        visits += [("/get", cookies["changer"]), ("/get", cookies["idler"]), ("/get", new)]
        visits += [("/get", mine), ("/change/emma", mine), ("/clear", cookies["changer"])]
    answers = [text for text, _ in world.theirs(*visits)]
    assert answers[:2] == [shown("reader"), legacy.shown(None)]
    assert "user" not in answers[2]
    if writer in world.row.returns:
        assert answers[3:6] == [shown("carl"), shown("idler"), shown("mover")]
        assert answers[6:] == [shown("dora"), "changed", "cleared"]
        assert world.visit("/get", mine)[0] == shown("emma")
        assert world.visit("/get", cookies["changer"])[0] == legacy.shown(None)


@pytest.mark.parametrize("name", parameters(written_by_itself))
def test_plain_data_in_either_format_both_ways(row_world, name):
    world = row_world(name, "fs08")
    shown = legacy.shown_plain
    formats = [{"SESSION_SERIALIZATION_FORMAT": name} for name in ("msgpack", "json")]
    cookies = []
    for written in formats:
        visits = [("/plain/ann", None)] * len(formats)
        for read, (_, cookie) in zip(formats, world.theirs(*visits, **written), strict=True):
            assert world.visit("/get", cookie, **read)[0] == shown("ann")
            world.visit("/change/bob", cookie, **read)
            cookies.append(cookie)
        cookies.append(world.visit("/plain/bob", None, **written)[1])
    for read in formats:
        visits = [("/get", cookie) for cookie in cookies]
        assert [text for text, _ in world.theirs(*visits, **read)] == [shown("bob")] * len(cookies)
    for read in formats:
        app = world.ours(**read)
        assert {world.visit("/get", cookie, app)[0] for cookie in cookies} == {shown("bob")}
