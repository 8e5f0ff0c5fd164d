"""SESSION_MIGRATE_FROM and SESSION_MIGRATE_TO: a live site changes its store.

CESSION_LONG=1: full counts.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.base import ServerSideSessionInterface
from flask_session.moving import COOKIE_PREFIX
from flask_session.sqlite import SqliteSessionInterface
from itsdangerous.encoding import base64_encode

from tests.python.apps.views import add_keyed_views
from tests.rows import new_prefix

HOUR_MS = 3_600_000


def make_app(folder, **settings):
    app = flask.Flask(__name__, instance_path=str(folder / "instance"))
    app.config.update(SECRET_KEY="a secret of the tests", **settings)
    Session(app)
    return add_views(app)


def add_views(app):
    add_keyed_views(app)

    @app.get("/logout")
    def logout():
        flask.session.clear()
        return "out"

    @app.get("/login")
    def login():
        flask.session.regenerate()
        return "in"

    return app


def store_of(app):
    return app.extensions["flask_session"].store


def moves_of(app):
    return app.extensions["flask_session"].stats()["moves"]


def sqlite(folder, name="old"):
    return {"SESSION_TYPE": "sqlite", "SESSION_SQLITE": str(folder / f"{name}.sqlite3")}


def files(folder, name="old"):
    return {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(folder / name)}


@pytest.fixture
def redis(request):
    def settings(folder, name="old"):
        url = request.getfixturevalue("redis_server").url
        prefix = f"{request.node.name}-{new_prefix()}"
        return {"SESSION_TYPE": "redis", "SESSION_REDIS": url, "SESSION_KEY_PREFIX": prefix}

    return settings


PAIRS = [
    pytest.param("sqlite", "filesystem", id="sqlite-filesystem"),
    pytest.param("filesystem", "sqlite", id="filesystem-sqlite"),
    pytest.param("redis", "sqlite", id="redis-sqlite", marks=pytest.mark.server),
    pytest.param("filesystem", "redis", id="filesystem-redis", marks=pytest.mark.server),
]


@pytest.fixture
def pair(request, tmp_path, redis):
    """(old settings, new settings, new settings that move from the old)"""

    def make(old, new):
        kinds = {"sqlite": sqlite, "filesystem": files, "redis": redis}
        before, after = kinds[old](tmp_path, "old"), kinds[new](tmp_path, "new")
        before = {"SESSION_KEY_PREFIX": "session:", **before}  # else it is the application's
        return before, after, {**after, "SESSION_MIGRATE_FROM": before}

    return make


def take_cookie(visitor, from_):
    cookie = from_.get_cookie("session")
    visitor.set_cookie("session", cookie.value)


# ---- a site --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_nobody_is_logged_out(tmp_path, pair, old, new):
    before, after, both = pair(old, new)
    first = make_app(tmp_path, **before)
    visitor = first.test_client()
    visitor.get("/set/name/ann")
    sid = visitor.get_cookie("session").value
    value, _, expires = store_of(first).load(sid)

    app = make_app(tmp_path, **both)
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/untouched").text == "hello"
    assert moves_of(app)["moved"] == 0
    assert client.get("/get/name").text == "ann"
    assert client.get_cookie("session").value == sid
    moved, _, now_expires = store_of(app).load(sid)
    assert moved == value
    assert abs(now_expires - expires) < 2000
    assert visitor.get("/get/name").text == "None"  # and the old one has no cookie to give
    assert visitor.get_cookie("session").value == sid

    again = make_app(tmp_path, **after)
    take_cookie(again_client := again.test_client(), visitor)
    assert again_client.get("/get/name").text == "ann"

    assert client.get("/logout").text == "out"
    assert client.get_cookie("session") is None
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "None"
    assert {key: moves_of(app)[key] for key in ("store", "moved")} == {"store": old, "moved": 1}


def test_hits_cost_nothing_and_misses_one_read(tmp_path):
    app = make_app(tmp_path, **files(tmp_path, "new"), SESSION_MIGRATE_FROM=sqlite(tmp_path))
    client = app.test_client()
    client.get("/set/name/ann")
    stats = app.extensions["flask_session"].stats
    before = stats()
    client.get("/get/name")
    client.get("/set/name/bob")
    now = stats()
    assert now["load"] - before["load"] == 2
    assert now["replace"] - before["replace"] == 1
    assert set(now["moves"]["operations"].values()) == {0}
    stranger = app.test_client()
    stranger.set_cookie("session", "x" * 43)
    stranger.get("/get/name")
    now = stats()
    assert now["load"] - before["load"] == 3
    assert now["moves"]["operations"]["load"] == 1
    assert sum(now["moves"]["operations"].values()) == 2  # and that it was not found
    assert now["moves"]["missed"] == 1


def test_changes_and_new_ids(tmp_path):
    old = make_app(tmp_path, **sqlite(tmp_path))
    visitor = old.test_client()
    visitor.get("/set/name/ann")
    app = make_app(tmp_path, **files(tmp_path, "new"), SESSION_MIGRATE_FROM=sqlite(tmp_path))
    client = app.test_client()
    take_cookie(client, visitor)
    client.get("/set/more/data")
    client.get("/login")
    assert client.get_cookie("session").value != visitor.get_cookie("session").value
    assert client.get("/get/name").text == "ann"
    assert client.get("/get/more").text == "data"
    late = app.test_client()
    take_cookie(late, visitor)
    assert late.get("/get/name").text == "None"
    assert old.test_client().get("/get/name").text == "None"


def test_a_retired_id_is_moved_as_such(tmp_path):
    old = make_app(tmp_path, **sqlite(tmp_path))
    visitor, late = old.test_client(), old.test_client()
    visitor.get("/set/name/ann")
    take_cookie(late, visitor)
    visitor.get("/login")
    app = make_app(tmp_path, **files(tmp_path, "new"), SESSION_MIGRATE_FROM=sqlite(tmp_path))
    client = app.test_client()
    take_cookie(client, late)
    answer = client.get("/set/name/eve")
    assert "Set-Cookie" not in answer.headers
    assert client.get("/get/name").text == "None"


def test_stats_name_the_store_and_the_command_shows_them(tmp_path):
    app = make_app(tmp_path, **files(tmp_path, "new"), SESSION_MIGRATE_FROM=sqlite(tmp_path))
    shown = app.test_cli_runner().invoke(args=["session", "stats"]).output
    assert "moves: store sqlite, moved 0, missed 0, refused 0, carried 0" in shown


def test_processes_that_do_not_move_yet_follow(tmp_path):
    new = files(tmp_path, "new")
    follower = make_app(tmp_path, **sqlite(tmp_path), SESSION_MIGRATE_TO=new)
    mover = make_app(tmp_path, **new, SESSION_MIGRATE_FROM=sqlite(tmp_path))
    visitor = follower.test_client()
    visitor.get("/set/name/ann")
    other = mover.test_client()
    take_cookie(other, visitor)
    for round in range(3):
        assert other.get("/get/name").text == "ann"
        assert visitor.get("/get/name").text == "ann"
        visitor.get(f"/set/a{round}/1")
        other.get(f"/set/b{round}/2")
    assert other.get("/get/a2").text == "1"
    assert visitor.get("/get/b2").text == "2"
    # One that begins on the new store.
    late = mover.test_client()
    late.get("/set/name/bob")
    take_cookie(visitor, late)
    assert visitor.get("/get/name").text == "bob"
    visitor.get("/logout")
    assert late.get("/get/name").text == "None"
    assert moves_of(follower)["moved"] == 0


def test_the_old_store_is_down(tmp_path, free_port):
    pytest.importorskip("redis")
    dead = f"redis://127.0.0.1:{free_port()}/0"
    app = make_app(tmp_path, **files(tmp_path), SESSION_MIGRATE_FROM=dead)
    app.testing = True
    client = app.test_client()
    client.get("/set/name/ann")
    assert client.get("/get/name").text == "ann"
    with pytest.raises(SessionStoreError):
        client.get("/logout")
    stranger = app.test_client()
    stranger.set_cookie("session", "x" * 43)
    with pytest.raises(SessionStoreError):
        stranger.get("/get/name")


class Dicts(ServerSideSessionInterface):
    """A store of an application's own, as written for the predecessors."""

    def __init__(self, *args, **kwargs):
        self.records = {}
        super().__init__(*args, **kwargs)

    def _retrieve_session_data(self, store_id):
        return self.records.get(store_id)

    def _upsert_session(self, session_lifetime, session, store_id):
        self.records[store_id] = dict(session)

    def _delete_session(self, store_id):
        self.records.pop(store_id, None)


def test_to_an_interface_of_the_application_s_own(tmp_path):
    old = make_app(tmp_path, **sqlite(tmp_path))
    visitor = old.test_client()
    visitor.get("/set/name/ann")
    app = flask.Flask(__name__)
    app.config["SESSION_MIGRATE_FROM"] = sqlite(tmp_path)
    app.session_interface = interface = Dicts(app)
    add_views(app)
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "ann"
    assert list(interface.records) == ["session:" + client.get_cookie("session").value]
    assert visitor.get("/get/name").text == "None"
    client.get("/logout")
    assert interface.records == {}


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("sqlite", "sqlite"),
        ("SQLite", "sqlite"),
        ("filesystem:///{}/x", "filesystem"),
        ({"SESSION_URL": "sqlite:///{}/y"}, "sqlite"),
        ({"SESSION_TYPE": "Filesystem", "SESSION_FILE_DIR": "{}/z"}, "filesystem"),
    ],
)
def test_places(tmp_path, place, named):
    if isinstance(place, dict):
        place = {key: value.format(tmp_path) for key, value in place.items()}
    elif isinstance(place, str):
        place = place.format(str(tmp_path).lstrip("/"))
    app = make_app(tmp_path, **files(tmp_path, "own"), SESSION_MIGRATE_FROM=place)
    assert moves_of(app)["store"] == named
    assert not (tmp_path / "own").exists()  # nothing is touched before it is needed


@pytest.mark.parametrize("key", ["SESSION_MIGRATE_FROM", "SESSION_MIGRATE_TO"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "a SESSION_TYPE, a URL or a dict"),
        ("", "a SESSION_TYPE, a URL or a dict"),
        ({}, "a SESSION_TYPE, a URL or a dict"),
        ("carrier-pigeon", "is unknown"),
        ("mysql://me:hunter2@host/db", "must be a URL that begins with"),
        ({"SESSION_FILE_DIR": "x"}, "must name SESSION_TYPE or SESSION_URL"),
        ("memory", "cannot be 'memory'"),
        ("null", "cannot be 'null'"),
        ("custom", "cannot be 'custom'"),
        ("filesystem", "the store that SESSION_TYPE names"),
    ],
)
def test_refused_places(tmp_path, key, value, said):
    with pytest.raises(SessionConfigError) as caught:
        make_app(tmp_path, **files(tmp_path), **{key: value})
    assert str(caught.value).startswith(key)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_not_from_and_to_at_once(tmp_path):
    other = sqlite(tmp_path)
    with pytest.raises(SessionConfigError, match="are both set"):
        make_app(tmp_path, **files(tmp_path), SESSION_MIGRATE_FROM=other, SESSION_MIGRATE_TO=other)


def test_prefixes_of_both_sides(tmp_path):
    before = {**sqlite(tmp_path), "SESSION_KEY_PREFIX": "old:"}
    old = make_app(tmp_path, **before)
    visitor = old.test_client()
    visitor.get("/set/name/ann")
    after = {**sqlite(tmp_path, "new"), "SESSION_KEY_PREFIX": "new:"}
    app = make_app(tmp_path, **after, SESSION_MIGRATE_FROM=before)
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "ann"
    sid = client.get_cookie("session").value
    assert SqliteSessionInterface(path=after["SESSION_SQLITE"], key_prefix="new:")._store.load(sid)


def test_arguments_of_a_store_that_moves():
    def memory():
        return _core.Store.open("memory")

    store = memory().migrating(memory(), HOUR_MS)
    assert store.name == "memory"
    assert store.moves()["store"] == "memory"
    assert memory().moves() is None
    with pytest.raises(ValueError, match="moves records already"):
        store.migrating(memory(), HOUR_MS)
    with pytest.raises(ValueError, match="moves records already"):
        memory().migrating(store, HOUR_MS)
    with pytest.raises(ValueError, match="lifetime"):
        memory().migrating(memory(), 0)
    one = memory()
    with pytest.raises(ValueError):
        one.migrating(one, HOUR_MS)
    with pytest.raises(TypeError):
        one.migrating(None, HOUR_MS)
    one.create("k", b"v", 1000)
    two = memory()
    both = one.migrating(two, HOUR_MS)
    for taken in (one, two):
        with pytest.raises(ValueError, match="closed, or was taken over"):
            taken.load("k")
        with pytest.raises(ValueError, match="closed, or was taken over"):
            taken.migrating(memory(), HOUR_MS)
    assert both.prefixed("").moves()["moved"] == 0
    store.close()
    with pytest.raises(ValueError):
        store.moves()


class Failing:
    """A store of one record in Python; one of its operations raises."""

    name = "failing"
    capabilities = _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY

    def __init__(self, fails):
        self.fails, self.value = fails, b"v"

    def ask(self, operation):
        if operation == self.fails:
            raise ConnectionError("the test's store is down")

    def load(self, key, timeout):
        self.ask("load")
        return None if self.value is None else (self.value, b"", None)

    def create(self, key, value, ttl_ms, timeout):
        return False

    def replace(self, key, expected, version, value, ttl_ms, timeout):
        self.ask("replace")
        if self.value != expected:
            return _core.GONE if self.value is None else (self.value, b"", None)
        self.value = value
        return _core.OK

    def touch(self, key, expected, version, ttl_ms, timeout):
        self.ask("touch")
        return _core.OK

    def remove(self, key, timeout):
        self.ask("remove")
        self.value = None


@pytest.mark.parametrize("fails", ["load", "replace", "touch", "remove"])
def test_a_client_of_the_old_store_raises_at_any_step(fails):
    old = Failing(fails)
    store = _core.Store.open("memory").migrating(_core.Store.wrap(old), HOUR_MS)
    if fails != "remove":
        with pytest.raises(SessionStoreError) as caught:
            store.load("k")
        assert isinstance(caught.value.__cause__, ConnectionError)
        old.fails = None
    assert store.load("k")[0] == b"v"
    old.fails = fails
    if fails == "remove":
        with pytest.raises(SessionStoreError):
            store.remove("k")
    else:
        store.remove("k")
    old.fails = None
    assert store.load("k") is None


# ---- races ---------------------------------------------------------------------------------------


def encoded(number):
    return _core.encode({"number": number})


def two_processes(folder, redis_settings=None):
    """Two applications of the same site, as two processes have them, and the old store."""
    old = sqlite(folder)
    apps = [make_app(folder, **files(folder, "new"), SESSION_MIGRATE_FROM=old) for _ in range(2)]
    source = SqliteSessionInterface(path=old["SESSION_SQLITE"])._store
    return apps, source


def test_a_logout_that_races_the_move_stays_a_logout(tmp_path, long_run):
    apps, source = two_processes(tmp_path)
    stores = [store_of(app) for app in apps]
    rounds = 1000 if long_run else 60
    with ThreadPoolExecutor(3) as pool:
        for number in range(rounds):
            sid = f"{number:043}"
            source.create(sid, encoded(number), HOUR_MS)
            meet = threading.Barrier(3)

            def load(store, sid=sid, meet=meet):
                meet.wait()
                return store.load(sid)

            def leave(sid=sid, meet=meet):
                meet.wait()
                stores[0].remove(sid)

            loads = [pool.submit(load, store) for store in stores]
            pool.submit(leave).result()
            assert all(
                found.result() is None or found.result()[0] == encoded(number) for found in loads
            )
            assert [store.load(sid) for store in stores] == [None, None]
            left = source.load(sid)
            assert left is None or not _core.decode(left[0])


@pytest.mark.server
def test_dual_read_under_load(tmp_path, long_run, redis_server):
    """Requests come all the time while sessions move: nobody is logged out, none moves twice."""
    count, seconds, rate = (2000, 30, 200) if long_run else (300, 3, 200)
    prefix = new_prefix()
    old = {"SESSION_TYPE": "redis", "SESSION_REDIS": redis_server.url, "SESSION_KEY_PREFIX": prefix}
    apps = [
        make_app(tmp_path, **sqlite(tmp_path, "new"), SESSION_MIGRATE_FROM=old) for _ in range(2)
    ]
    before = make_app(tmp_path, **old)
    for number in range(count):
        store_of(before).create(f"{number:043}", encoded(number), HOUR_MS)

    def visit(turn):
        number = turn * 7919 % count
        client = apps[turn % 2].test_client()
        client.set_cookie("session", f"{number:043}")
        if turn % 3 == 0:
            client.get(f"/set/turn/{turn}")
        return client.get("/get/number").text == str(number)

    start, total = time.monotonic(), seconds * rate
    with ThreadPoolExecutor(8) as pool:
        asked = []
        for turn in range(total):
            time.sleep(max(0, start + turn / rate - time.monotonic()))
            asked.append(pool.submit(visit, turn))
        assert all(answer.result() for answer in asked)
    moved = sum(moves_of(app)["moved"] for app in apps)
    assert moved == min(count, total)
    assert sum(moves_of(app)["missed"] for app in apps) == 0


# ---- Flask's own cookies -------------------------------------------------------------------------


def signed_app(**settings):
    """As the site was before: sessions in signed cookies."""
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="a secret of the tests", **settings)
    return add_views(app)


def cookie_app(folder, **settings):
    return make_app(folder, **{**sqlite(folder), "SESSION_MIGRATE_FROM": "cookie", **settings})


@pytest.fixture
def visitor():
    client = signed_app().test_client()
    client.get("/set/name/ann")
    return client


@pytest.mark.parametrize("signer", [False, True])
def test_a_session_in_a_cookie_is_moved(tmp_path, visitor, signer):
    app = cookie_app(tmp_path, SESSION_USE_SIGNER=signer)
    client = app.test_client()
    take_cookie(client, visitor)
    client.get("/untouched")
    assert app.extensions["flask_session"].stats()["load"] == 0
    take_cookie(client, visitor)
    answer = client.get("/get/name")
    assert answer.text == "ann"
    assert client.get_cookie("session").value.startswith(COOKIE_PREFIX)
    assert moves_of(app) | {"operations": None} == {
        "store": "cookie",
        "moved": 1,
        "missed": 0,
        "refused": 0,
        "carried": 0,
        "operations": None,
    }
    client.get("/set/more/data")
    assert client.get("/get/name").text == "ann"
    # Requests that still bring the cookie open the same session.
    other = app.test_client()
    take_cookie(other, visitor)
    assert other.get("/get/more").text == "data"
    assert moves_of(app)["moved"] == 1


def test_every_type_that_flask_knows_comes_along(tmp_path):
    import datetime
    import uuid

    from markupsafe import Markup

    moment = datetime.datetime(2024, 2, 29, 13, 5, tzinfo=datetime.timezone.utc)
    data = {
        "text": "\N{SNOWMAN}",
        "number": 2**40,
        "tuple": (1, (2, "x")),
        "bytes": b"\0\xff",
        "markup": Markup("<b>"),
        "uuid": uuid.UUID(int=5),
        "time": moment,
        "none": None,
        "list": [1, {"a": (1,)}],
        "float": 0.5,
        "big": "x" * 3000,
    }
    before = signed_app()
    with before.test_client() as visitor, visitor.session_transaction() as session:
        session.update(data)
    app = cookie_app(tmp_path)
    with app.test_client() as client:
        take_cookie(client, visitor)
        client.get("/get/text")
        found = dict(flask.session)
    found.pop("_permanent", None)
    assert found == data
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in data.items()
    }


@pytest.mark.parametrize("way", ["/logout", "/login"])
def test_a_cookie_is_worth_nothing_after_the_logout(tmp_path, visitor, way):
    app = cookie_app(tmp_path)
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "ann"
    client.get(way)
    client.delete_cookie("session")
    for application in (app, cookie_app(tmp_path)):  # in another process, too
        replay = application.test_client()
        take_cookie(replay, visitor)
        assert replay.get("/get/name").text == "None"
        assert replay.get("/set/name/eve").text == "set"
        again = application.test_client()
        take_cookie(again, visitor)
        assert again.get("/get/name").text == "None"


def test_a_logout_before_the_first_look(tmp_path, visitor):
    app = cookie_app(tmp_path)
    client = app.test_client()
    take_cookie(client, visitor)
    client.get("/logout")
    replay = app.test_client()
    take_cookie(replay, visitor)
    assert replay.get("/get/name").text == "None"


def test_the_mark_lasts_as_long_as_the_cookie(tmp_path, visitor):
    app = cookie_app(tmp_path, PERMANENT_SESSION_LIFETIME=timedelta(days=31))
    client = app.test_client()
    take_cookie(client, visitor)
    client.get("/get/name")
    sid = client.get_cookie("session").value
    client.get("/logout")
    plain = make_app(tmp_path, **sqlite(tmp_path))
    _, _, expires = store_of(plain).load(sid)
    assert expires / 1000 - time.time() > 30.9 * 86400


def spellings(cookie):
    """The same signature, written differently: base64 leaves two bits of its last letter free."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(cookie[-1]) & ~3
    return [cookie[:-1] + alphabet[last + bits] for bits in range(4)]


def test_another_spelling_of_the_signature_is_the_same_cookie(tmp_path, visitor):
    app = cookie_app(tmp_path)
    ways = spellings(visitor.get_cookie("session").value)
    assert len(set(ways)) == 4
    interface = app.session_interface
    sids = {interface._import_cookie(app, text) for text in ways}
    assert len(sids) == 1
    assert None not in sids


def other_cookies(visitor):
    good = visitor.get_cookie("session").value
    payload, moment, signature = good.split(".")
    serializer = SecureCookieSessionInterface().get_signing_serializer(signed_app())
    foreign = flask.Flask(__name__)
    foreign.secret_key = "another secret"
    other = SecureCookieSessionInterface().get_signing_serializer(foreign)
    yield (
        "another payload",
        f"{base64_encode(json.dumps({'name': 'eve'})).decode()}.{moment}.{signature}",
    )
    yield "another key", other.dumps({"name": "eve"})
    yield "no signature", f"{payload}.{moment}"
    yield "cut", good[:-4]
    yield "a list", serializer.dumps(["name"])
    yield "nothing", serializer.dumps({})
    yield "only permanent", serializer.dumps({"_permanent": True})
    yield "text", "a.b.c"


def test_other_cookies_are_no_session(tmp_path, visitor):
    app = cookie_app(tmp_path)
    for name, text in other_cookies(visitor):
        client = app.test_client()
        client.set_cookie("session", text)
        assert client.get("/get/name").text == "None", name
    assert moves_of(app)["moved"] == 0


def test_an_old_cookie_is_no_session(tmp_path, visitor, monkeypatch):
    now = time.time()
    app = cookie_app(tmp_path, PERMANENT_SESSION_LIFETIME=100)
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 101)
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "None"


def test_what_is_left_of_a_cookie_s_lifetime_is_kept(tmp_path):
    before = signed_app()
    serializer = SecureCookieSessionInterface().get_signing_serializer(before)
    signed = serializer.make_signer(serializer.salt)
    issued = int(time.time()) - 600
    signed.get_timestamp = lambda: issued
    value = signed.sign(serializer.dump_payload({"name": "ann"})).decode()
    app = cookie_app(tmp_path, PERMANENT_SESSION_LIFETIME=1000, SESSION_REFRESH_EACH_REQUEST=False)
    client = app.test_client()
    client.set_cookie("session", value)
    assert client.get("/get/name").text == "ann"
    _, _, expires = store_of(app).load(client.get_cookie("session").value)
    assert abs(expires / 1000 - (issued + 1000)) < 2


def test_a_cookie_where_ids_are_of_the_application_s_own_making(tmp_path, visitor):
    class Own(SqliteSessionInterface):
        def _generate_sid(self, session_id_length):
            return f"own.id.{time.monotonic_ns()}"

    app = flask.Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="a secret of the tests", SESSION_MIGRATE_FROM="cookie")
    app.session_interface = Own(app)
    add_views(app)
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "ann"
    other = app.test_client()
    other.get("/set/name/bob")
    assert other.get_cookie("session").value.startswith("own.id.")
    assert other.get("/get/name").text == "bob"


def test_without_a_secret_key_there_are_no_cookies(tmp_path, visitor):
    app = cookie_app(tmp_path)
    app.secret_key = None
    client = app.test_client()
    take_cookie(client, visitor)
    assert client.get("/get/name").text == "None"


@pytest.mark.filterwarnings("ignore:cachelib loads")
def test_cookies_need_a_store_that_can_compare(tmp_path):
    cachelib = pytest.importorskip("cachelib")
    with pytest.raises(SessionConfigError, match="needs a store that can compare and set"):
        cookie_app(tmp_path, SESSION_TYPE="cachelib", SESSION_CACHELIB=cachelib.SimpleCache())
    with pytest.raises(SessionConfigError, match="SESSION_MIGRATE_TO cannot be 'cookie'"):
        cookie_app(tmp_path, SESSION_MIGRATE_FROM=None, SESSION_MIGRATE_TO="cookie")


def test_many_requests_bring_the_same_cookie_at_once(tmp_path, visitor, long_run):
    app = cookie_app(tmp_path)
    for _ in range(50 if long_run else 5):
        visitor.get(f"/set/round/{time.monotonic_ns()}")  # another cookie
        meet = threading.Barrier(6)

        def visit(number, meet=meet):
            client = app.test_client()
            take_cookie(client, visitor)
            meet.wait()
            answer = client.get(f"/set/key{number}/x")
            assert answer.text == "set"
            return client

        with ThreadPoolExecutor(6) as pool:
            clients = list(pool.map(visit, range(6)))
        assert len({client.get_cookie("session").value for client in clients}) == 1
        for number in range(6):
            assert clients[0].get(f"/get/key{number}").text == "x"
        assert clients[0].get("/get/name").text == "ann"
