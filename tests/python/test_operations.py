"""What a request costs: operations, counted by the store itself, by a TCP proxy in front of the
server and by the server's own statistics, which must all agree.

Nothing waits for time to pass: to make a record old its expiry is moved.
"""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from flask import session
from flask_session import _core

from tests.python.apps.counted import DAY, UNTOUCHED, Site, cookies_of
from tests.services import RedisService

# What the redis server counts for each operation: the call, and what its script does.
COMMANDS = {
    "load": {"evalsha": 1, "get": 1, "pttl": 1},
    "create": {"set": 1},
    "replace": {"evalsha": 1, "get": 1, "set": 1},
    "touch": {"evalsha": 1, "get": 1, "pexpire": 1},
    "remove": {"del": 1},
}
NATIVE_COMMANDS = {**COMMANDS, "load": {"get": 1, "pttl": 1}}


# ---- counting -----------------------------------------------------------------------------------


class RedisSite(Site):
    """Natively, or by the adapter, which reads by a script."""

    def __init__(self, folder, server, proxy, native, **settings):
        redis = pytest.importorskip("redis")
        self.server = redis.Redis.from_url(server.url, socket_timeout=10)
        self.proxy = proxy
        through = redis.Redis.from_url(proxy.url(server.url), socket_timeout=10)
        settings.update(SESSION_TYPE="redis", SESSION_REDIS=through, SESSION_NATIVE=native)
        self.native = native
        super().__init__(folder, **settings)
        assert self.app.extensions["flask_session"].stats()["native"] is native
        # The first connection has its greeting, and a script is sent whole once.
        client = self.app.test_client()
        for path in ("/set/a/1", "/get", "/set/a/2", "/mark", "/pop/a"):
            client.get(path)

    def server_reset(self):
        self.server.config_resetstat()
        self.proxy.reset()

    def server_check(self, operations, not_found):
        assert self.proxy.round_trips == sum(operations.values())
        wanted = {}
        commands = NATIVE_COMMANDS if self.native else COMMANDS
        for operation, times in operations.items():
            for command, count in commands[operation].items():
                wanted[command] = wanted.get(command, 0) + count * times
        if not self.native:
            wanted["pttl"] = wanted.get("pttl", 0) - not_found
        wanted = {command: count for command, count in wanted.items() if count}
        stats = self.server.info("commandstats")
        found = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
        # The questions of this test itself.
        for own in ("info", "config|resetstat"):
            found.pop(own, None)
        assert found == wanted


@pytest.fixture(scope="module")
def redis_counted(services):
    """A server that nobody else speaks to."""
    return services.own(RedisService)


@pytest.fixture(
    params=[
        *("memory", "sqlite", "filesystem"),
        pytest.param("redis", marks=pytest.mark.server),
        pytest.param("redis-adapter", marks=pytest.mark.server),
    ]
)
def make_site(request, tmp_path, counting_proxy):
    def make(**settings):
        if request.param.startswith("redis"):
            server = request.getfixturevalue("redis_counted")
            native = request.param == "redis"
            return RedisSite(tmp_path, server, counting_proxy(server.port()), native, **settings)
        if request.param == "filesystem":
            settings.setdefault("SESSION_FILE_DIR", str(tmp_path / "sessions"))
        return Site(tmp_path, SESSION_TYPE=request.param, **settings)

    return make


@pytest.fixture
def site(make_site):
    return make_site()


# ---- requests that do not use the session -------------------------------------------------------


@pytest.mark.parametrize("path", ["/untouched", "/away", "/fails", "/nowhere", "/stream"])
def test_untouched_costs_nothing(site, path):
    stranger = site.app.test_client()
    answer = site.visit(stranger, path, {})
    assert "Vary" not in answer.headers
    assert cookies_of(answer) == []
    visitor = site.browser()
    for _ in range(3):
        answer = site.visit(visitor, path, UNTOUCHED)
        assert "Vary" not in answer.headers
        assert cookies_of(answer) == []


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/untouched"), ("OPTIONS", "/get"), ("POST", "/get")]
)
def test_untouched_by_other_methods(site, method, path):
    visitor = site.browser()
    answer = site.visit(visitor, path, UNTOUCHED, method)
    assert "Vary" not in answer.headers
    assert cookies_of(answer) == []


def test_untouched_does_not_keep_a_session_alive(site):
    visitor = site.browser()
    site.age(visitor, 1000)
    site.visit(visitor, "/untouched", UNTOUCHED)
    assert site.left(visitor) < DAY - 900


def test_untouched_with_a_cookie_that_is_no_id(site):
    visitor = site.app.test_client()
    visitor.set_cookie("session", "x")
    answer = site.visit(visitor, "/untouched", {})
    assert "Vary" not in answer.headers
    assert cookies_of(answer) == []


def test_static_files_cost_nothing(make_site, tmp_path):
    site = make_site()
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "x.txt").write_text("x")
    site.app.static_folder = str(tmp_path / "static")
    answer = site.visit(site.browser(), "/static/x.txt", UNTOUCHED)
    assert answer.text == "x"
    assert cookies_of(answer) == []


# ---- reading ------------------------------------------------------------------------------------


def test_read_of_a_stranger_costs_nothing(site):
    answer = site.visit(site.app.test_client(), "/get", {})
    assert answer.text == "None"
    assert answer.headers["Vary"] == "Cookie"
    assert cookies_of(answer) == []


def test_read_is_one_round_trip(site):
    visitor = site.browser()
    for path in ("/get", "/get", "/get-often"):
        answer = site.visit(visitor, path, {"load": 1})
        assert "ann" in answer.text
        assert answer.headers["Vary"] == "Cookie"
        assert cookies_of(answer) == []


def test_read_of_an_unknown_id_is_one_round_trip(site):
    visitor = site.app.test_client()
    visitor.set_cookie("session", _core.generate_sid(32))
    answer = site.visit(visitor, "/get", {"load": 1})
    assert answer.text == "None"
    assert cookies_of(answer) == []


def test_read_of_an_impossible_id_costs_nothing(site):
    visitor = site.app.test_client()
    for sid in ("x", "a" * 15, "a" * 257, "a" * 3800, "a" * 20 + ".", "../" * 10, "a" * 20 + "%00"):
        visitor.set_cookie("session", sid)
        assert site.visit(visitor, "/get", {}).text == "None"


# ---- writing ------------------------------------------------------------------------------------


def test_new_session_is_one_create(site):
    client = site.app.test_client()
    answer = site.visit(client, "/set/user/ann", {"create": 1})
    assert len(cookies_of(answer)) == 1
    assert answer.headers["Vary"] == "Cookie"


def test_change_is_one_more_round_trip(site):
    visitor = site.browser()
    for value in ("bob", "eve"):
        site.visit(visitor, f"/set/user/{value}", {"load": 1, "replace": 1})
    assert site.visit(visitor, "/get", {"load": 1}).text == "eve"


def test_nested_change_is_one_more_round_trip(site):
    visitor = site.browser()
    site.visit(visitor, "/make-nested", {"load": 1, "replace": 1})
    site.visit(visitor, "/nested", {"load": 1, "replace": 1})
    assert _core.decode(site.record(visitor)[0])["nested"] == {"list": [1]}


@pytest.mark.parametrize("path", ["/set-the-same", "/set-and-back", "/mark"])
def test_write_of_the_same_is_a_touch(site, path):
    """The application says that something changed; the bytes say that nothing did."""
    visitor = site.browser()
    site.visit(visitor, path, {"load": 1, "touch": 1})


def test_save_in_the_view_is_not_repeated_at_the_end(site):
    site.visit(site.browser(), "/save", {"load": 1, "replace": 1})
    site.visit(site.app.test_client(), "/save", {"create": 1})


@pytest.mark.parametrize("path", ["/pop/user", "/clear", "/destroy"])
def test_logout_is_one_remove(site, path):
    visitor = site.browser()
    answer = site.visit(visitor, path, {"load": 1, "remove": 1})
    assert len(cookies_of(answer)) == 1
    assert visitor.get_cookie("session") is None
    site.visit(visitor, "/get", {})


def test_logout_of_a_stranger_costs_nothing(site):
    answer = site.visit(site.app.test_client(), "/clear", {})
    assert cookies_of(answer) == []
    unknown = site.app.test_client()
    unknown.set_cookie("session", _core.generate_sid(32))
    answer = site.visit(unknown, "/clear", {"load": 1})
    assert len(cookies_of(answer)) == 1
    assert unknown.get_cookie("session") is None


def test_login_with_regenerate(site):
    """Of a visitor who had a session: the new record, and the tombstone of the old one."""
    visitor = site.browser()
    old = visitor.get_cookie("session").value
    answer = site.visit(visitor, "/login", {"load": 1, "create": 1, "replace": 1})
    assert len(cookies_of(answer)) == 1
    assert visitor.get_cookie("session").value != old
    site.visit(visitor, "/get", {"load": 1})
    # Of one who had none: just a new session.
    site.visit(site.app.test_client(), "/login", {"create": 1})


def test_old_id_after_login(site):
    visitor, thief = site.browser(), site.app.test_client()
    thief.set_cookie("session", visitor.get_cookie("session").value)
    site.visit(visitor, "/login", {"load": 1, "create": 1, "replace": 1})
    answer = site.visit(thief, "/get", {"load": 1})
    assert answer.text == "None"
    answer = site.visit(thief, "/set/user/eve", {"load": 1})
    assert cookies_of(answer) == []


# ---- permanent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("default", [True, False])
def test_permanent_in_every_request_does_not_write(make_site, default):
    def setup(app):
        @app.before_request
        def keep():
            session.permanent = True

    site = make_site(setup=setup, SESSION_PERMANENT=default)
    stranger = site.app.test_client()
    answer = site.visit(stranger, "/untouched", {})
    assert cookies_of(answer) == []
    visitor = site.browser()
    for path in ("/untouched", "/get", "/untouched"):
        answer = site.visit(visitor, path, {"load": 1})
        assert cookies_of(answer) == []


def test_permanence_is_one_write_when_it_changes(site):
    visitor = site.browser()
    answer = site.visit(visitor, "/permanent/0", {"load": 1, "replace": 1})
    assert "Expires" not in cookies_of(answer)[0]
    assert cookies_of(site.visit(visitor, "/permanent/0", {"load": 1})) == []
    answer = site.visit(visitor, "/permanent/1", {"load": 1, "replace": 1})
    assert "Expires" in cookies_of(answer)[0]


# ---- touches ------------------------------------------------------------------------------------

READ, TOUCHED = {"load": 1}, {"load": 1, "touch": 1}


@pytest.mark.parametrize(
    ("settings", "not_due", "due"),
    [
        # a twentieth of the lifetime, at most a minute
        ({}, 50, 70),
        ({"PERMANENT_SESSION_LIFETIME": 400}, 10, 30),
        ({"PERMANENT_SESSION_LIFETIME": timedelta(seconds=2000)}, 50, 70),
        ({"SESSION_TOUCH_INTERVAL": 600}, 590, 610),
        ({"SESSION_TOUCH_INTERVAL": timedelta(minutes=20)}, 1190, 1210),
        ({"SESSION_TOUCH_INTERVAL": 10}, 2, 20),
        ({"SESSION_TOUCH_INTERVAL": 10 * DAY}, DAY - 30, None),
        ({"SESSION_TOUCH_INTERVAL": 0}, None, 1),
        ({"SESSION_PERMANENT": False}, 50, 70),
    ],
    ids=str,
)
def test_touch_when_due(make_site, settings, not_due, due):
    site = make_site(**settings)
    visitor = site.browser()
    lifetime = site.app.permanent_session_lifetime.total_seconds()
    if not_due is not None:
        site.age(visitor, not_due)
        answer = site.visit(visitor, "/get", READ)
        assert cookies_of(answer) == []
        assert site.left(visitor) < lifetime - not_due + 1
    if due is not None:
        site.age(visitor, due)
        before = site.record(visitor)[0]
        answer = site.visit(visitor, "/get", TOUCHED)
        assert lifetime - 10 < site.left(visitor) <= lifetime
        assert site.record(visitor)[0] == before
        # The browser's copy gets the new date as well, if it has one.
        assert len(cookies_of(answer)) == (0 if settings.get("SESSION_PERMANENT") is False else 1)
        if settings.get("SESSION_TOUCH_INTERVAL") != 0:
            answer = site.visit(visitor, "/get", READ)
            assert cookies_of(answer) == []


def test_touch_after_the_lifetime_was_shortened_or_prolonged(site):
    visitor = site.browser()
    for lifetime in (DAY // 2, 3 * DAY, DAY):
        site.app.config["PERMANENT_SESSION_LIFETIME"] = lifetime
        site.visit(visitor, "/get", TOUCHED)
        assert lifetime - 10 < site.left(visitor) <= lifetime
        site.visit(visitor, "/get", READ)


@pytest.mark.parametrize("path", ["/get", "/get-often", "/permanent/1"])
def test_refresh_off_never_touches(make_site, path):
    site = make_site(SESSION_REFRESH_EACH_REQUEST=False)
    visitor = site.browser()
    site.age(visitor, DAY - 100)
    answer = site.visit(visitor, path, READ)
    assert cookies_of(answer) == []
    assert site.left(visitor) <= 100


def test_refresh_off_is_kept_alive_by_changes(make_site):
    site = make_site(SESSION_REFRESH_EACH_REQUEST=False)
    visitor = site.browser()
    site.age(visitor, 1000)
    site.visit(visitor, "/set/user/bob", {"load": 1, "replace": 1})
    assert site.left(visitor) > DAY - 10
    site.age(visitor, 1000)
    site.visit(visitor, "/mark", TOUCHED)
    assert site.left(visitor) > DAY - 10


def test_change_is_no_touch_besides(site):
    visitor = site.browser()
    site.age(visitor, 1000)
    site.visit(visitor, "/set/user/bob", {"load": 1, "replace": 1})
    assert site.left(visitor) > DAY - 10


def test_record_without_expiry_is_due(site):
    if not isinstance(site, RedisSite):
        # Others cannot hold such a record.
        with pytest.raises(ValueError):
            site.store.create("a" * 20, b"\x80", 0)
        return
    visitor = site.browser()
    site.server.persist("session:" + visitor.get_cookie("session").value)
    site.visit(visitor, "/get", TOUCHED)
    assert DAY - 10 < site.left(visitor) <= DAY


def test_expired_record_costs_a_read_and_is_gone(site):
    visitor = site.browser()
    sid = visitor.get_cookie("session").value
    value, version, _ = site.store.load(sid)
    assert site.store.touch(sid, value, version, 1) == _core.OK
    time.sleep(0.02)
    assert site.visit(visitor, "/get", READ).text == "None"
    answer = site.visit(visitor, "/set/user/ann", {"load": 1, "create": 1})
    assert sid not in cookies_of(answer)[0]


def test_signed_cookies_cost_the_same(make_site):
    site = make_site(SESSION_USE_SIGNER=True, SECRET_KEY="k")
    visitor = site.app.test_client()
    site.visit(visitor, "/set/user/ann", {"create": 1})
    signed = visitor.get_cookie("session").value
    assert site.visit(visitor, "/get", READ).text == "ann"
    site.visit(visitor, "/untouched", UNTOUCHED)
    visitor.set_cookie("session", signed[:-1] + ("A" if signed[-1] != "A" else "E"))
    assert site.visit(visitor, "/get", {}).text == "None"
