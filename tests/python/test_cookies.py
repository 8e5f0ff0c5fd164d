"""The session cookie: every key of Flask's, prefixes, signatures and their keys, deletion."""

from __future__ import annotations

import re

import flask
import pytest
from flask_session import Session, SessionConfigError
from flask_session.memory import MemorySessionInterface
from itsdangerous import Signer

from tests.python.apps.views import add_views

SALT = {"salt": "flask-session", "key_derivation": "hmac"}
#: So many characters has an id.
PLAIN = re.compile(r"[A-Za-z0-9_-]{43}")


def make_app(**settings):
    app = flask.Flask(__name__)
    app.config.update({"SESSION_TYPE": "memory", **settings})
    app.testing = True
    Session(app)
    return add_views(app)


def ask(app, path, cookie=None, name="session"):
    """(text, value of the cookie that was set or None, its attributes)"""
    headers = {} if cookie is None else {"Cookie": f"{name}={cookie}"}
    client = app.test_client(use_cookies=False)
    answer = client.get(path, headers=headers, base_url="https://example.org")
    lines = answer.headers.getlist("Set-Cookie")
    assert len(lines) < 2
    if not lines:
        return answer.text, None, None
    pair, *attributes = lines[0].split("; ")
    assert pair.startswith(f"{name}=")
    return answer.text, pair.partition("=")[2], attributes


# ---- every key ----------------------------------------------------------------------------------

SETTINGS = [
    ({}, ["HttpOnly", "Path=/"]),
    ({"SESSION_COOKIE_HTTPONLY": False}, ["Path=/"]),
    ({"SESSION_COOKIE_SECURE": True}, ["Secure", "HttpOnly", "Path=/"]),
    ({"SESSION_COOKIE_SAMESITE": "Lax"}, ["HttpOnly", "Path=/", "SameSite=Lax"]),
    ({"SESSION_COOKIE_SAMESITE": "Strict"}, ["HttpOnly", "Path=/", "SameSite=Strict"]),
    (
        {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
        ["Secure", "HttpOnly", "Path=/", "SameSite=None"],
    ),
    ({"SESSION_COOKIE_DOMAIN": "example.org"}, ["Domain=example.org", "HttpOnly", "Path=/"]),
    ({"SESSION_COOKIE_PATH": "/in"}, ["HttpOnly", "Path=/in"]),
    ({"APPLICATION_ROOT": "/site"}, ["HttpOnly", "Path=/site"]),
    ({"SESSION_COOKIE_NAME": "visit"}, ["HttpOnly", "Path=/"]),
    ({"SESSION_COOKIE_PARTITIONED": True}, ["Secure", "HttpOnly", "Path=/", "Partitioned"]),
    (
        {
            "SESSION_COOKIE_NAME": "__Host-visit",
            "SESSION_COOKIE_SECURE": True,
            "SESSION_COOKIE_SAMESITE": "None",
            "SESSION_COOKIE_PARTITIONED": True,
        },
        ["Secure", "HttpOnly", "Path=/", "SameSite=None", "Partitioned"],
    ),
]


@pytest.mark.parametrize("permanent", [True, False])
@pytest.mark.parametrize(("settings", "expected"), SETTINGS)
def test_set_and_deleted_alike(settings, expected, permanent):
    app = make_app(SESSION_PERMANENT=permanent, **settings)
    if not hasattr(app.session_interface, "get_cookie_partitioned"):
        expected = [part for part in expected if part != "Partitioned"]
        if "SESSION_COOKIE_SECURE" not in settings:
            expected = [part for part in expected if part != "Secure"]
    name = settings.get("SESSION_COOKIE_NAME", "session")
    _, sid, attributes = ask(app, "/set/1", name=name)
    times = [part for part in attributes if part.startswith("Expires=")]
    assert len(times) == permanent
    assert [part for part in attributes if part not in times] == expected
    assert ask(app, "/get", sid, name)[0] == "1"
    _, value, deleted = ask(app, "/clear", sid, name)
    assert value == ""
    gone = ["Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0"]
    assert [part for part in deleted if part in gone] == gone
    assert sorted(part for part in deleted if part not in gone) == sorted(expected)


@pytest.mark.parametrize("on", [True, False])
def test_refresh_each_request(on):
    app = make_app(SESSION_REFRESH_EACH_REQUEST=on)
    _, sid, _ = ask(app, "/set/1")
    app.config["PERMANENT_SESSION_LIFETIME"] = 5000  # another one: a touch is due
    assert (ask(app, "/get", sid)[1] is not None) is on


# ---- prefixes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"NAME": "__Host-s"}, ["SECURE"]),
        ({"NAME": "__Secure-s"}, ["SECURE"]),
        ({"NAME": "__host-s"}, ["SECURE"]),  # browsers do not look at the case
        ({"NAME": "__Host-s", "SECURE": True, "PATH": "/in"}, ["PATH"]),
        ({"NAME": "__Host-s", "SECURE": True, "DOMAIN": "example.org"}, ["DOMAIN"]),
        (
            {"NAME": "__Host-s", "PATH": "/in", "DOMAIN": "example.org"},
            ["SECURE", "PATH", "DOMAIN"],
        ),
        ({"NAME": "__Host-s", "SECURE": True}, []),
        ({"NAME": "__Secure-s", "SECURE": True, "PATH": "/in", "DOMAIN": "example.org"}, []),
        ({"NAME": "__Hostile"}, []),
        ({"NAME": "s", "PATH": "/in"}, []),
    ],
)
def test_prefixes_are_checked_at_init(settings, wrong):
    settings = {f"SESSION_COOKIE_{key}": value for key, value in settings.items()}
    if not wrong:
        make_app(**settings)
        return
    with pytest.raises(SessionConfigError, match="because of its prefix") as caught:
        make_app(**settings)
    assert isinstance(caught.value, ValueError)
    named = re.findall(r"SESSION_COOKIE_(\w+) must", str(caught.value))
    assert named == wrong


def test_host_prefix_under_an_application_root():
    with pytest.raises(SessionConfigError, match="SESSION_COOKIE_PATH"):
        make_app(
            SESSION_COOKIE_NAME="__Host-s", SESSION_COOKIE_SECURE=True, APPLICATION_ROOT="/site"
        )
    make_app(
        SESSION_COOKIE_NAME="__Host-s",
        SESSION_COOKIE_SECURE=True,
        APPLICATION_ROOT="/site",
        SESSION_COOKIE_PATH="/",
    )


def test_partitioned_makes_secure():
    settings = {"SESSION_COOKIE_NAME": "__Host-s", "SESSION_COOKIE_PARTITIONED": True}
    if hasattr(MemorySessionInterface, "get_cookie_partitioned"):
        make_app(**settings)
    else:  # Flask before 3.1 does not look at the key
        with pytest.raises(SessionConfigError, match="SESSION_COOKIE_SECURE"):
            make_app(**settings)


def test_getters_that_need_a_request_are_left_alone():
    class Own(MemorySessionInterface):
        def get_cookie_secure(self, app):
            return flask.request.is_secure

    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="custom", SESSION_COOKIE_NAME="__Secure-s")
    app.session_interface = Own(app)
    Session(app)
    assert "Secure" in ask(add_views(app), "/set/1", name="__Secure-s")[2]


# ---- signatures ---------------------------------------------------------------------------------


class Site:
    """Applications with other settings on one store."""

    def __init__(self, path):
        self.path = path

    def app(self, **settings):
        return make_app(SESSION_TYPE="sqlite", SESSION_SQLITE=self.path, **settings)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "sessions.sqlite3")


def login(app):
    return ask(app, "/set/ann")[1]


def test_signed(site):
    app = site.app(SECRET_KEY="new", SESSION_USE_SIGNER=True)
    cookie = login(app)
    assert PLAIN.fullmatch(Signer("new", **SALT).unsign(cookie).decode())
    assert ask(app, "/get", cookie)[:2] == ("ann", None)


def test_switched_off_nobody_is_logged_out(site):
    cookie = login(site.app(SECRET_KEY="new", SESSION_USE_SIGNER=True))
    app = site.app(SECRET_KEY="new")
    text, plain, _ = ask(app, "/get", cookie)
    assert (text, plain) == ("ann", cookie.partition(".")[0])
    assert ask(app, "/get", plain)[:2] == ("ann", None)


@pytest.mark.parametrize("key", [None, "another"])
def test_switched_off_a_signature_of_no_key_is_refused(site, key):
    cookie = login(site.app(SECRET_KEY="new", SESSION_USE_SIGNER=True))
    assert ask(site.app(SECRET_KEY=key), "/get", cookie)[:2] == ("None", None)


def test_switched_on_unsigned_cookies_are_refused(site):
    plain = login(site.app(SECRET_KEY="new"))
    app = site.app(SECRET_KEY="new", SESSION_USE_SIGNER=True)
    assert ask(app, "/get", plain)[:2] == ("None", None)
    # and the id is not taken over by what follows
    assert ask(app, "/set/bob", plain)[1].partition(".")[0] != plain
    assert app.session_interface._counts()["rejected"] == 2


def test_switched_on_without_a_key(site):
    app = site.app(SESSION_USE_SIGNER=True)
    with pytest.raises(KeyError, match="SECRET_KEY must be set when SESSION_USE_SIGNER is True"):
        ask(app, "/set/ann")
    with pytest.raises(KeyError, match="SECRET_KEY must be set"):
        ask(app, "/get", "x" * 43 + ".y")


@pytest.mark.parametrize("key", ["old", b"old", "\N{SNOWMAN}"])
@pytest.mark.parametrize("place", [0, 2])
def test_fallbacks_are_honoured_and_signed_anew(site, key, place):
    cookie = login(site.app(SECRET_KEY=key, SESSION_USE_SIGNER=True))
    fallbacks = ["x", "y"]
    fallbacks.insert(place, key)
    app = site.app(SECRET_KEY="new", SECRET_KEY_FALLBACKS=fallbacks, SESSION_USE_SIGNER=True)
    text, renewed, _ = ask(app, "/get", cookie)
    assert text == "ann"
    assert Signer("new", **SALT).unsign(renewed).decode() == cookie.partition(".")[0]
    assert ask(app, "/get", renewed)[:2] == ("ann", None)
    # a fallback that is gone counts no more
    app.config["SECRET_KEY_FALLBACKS"] = ["x"]
    assert ask(app, "/get", cookie)[:2] == ("None", None)
    assert ask(app, "/get", renewed)[0] == "ann"


def test_fallbacks_are_honoured_where_signing_is_switched_off(site):
    cookie = login(site.app(SECRET_KEY="old", SESSION_USE_SIGNER=True))
    app = site.app(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"])
    assert ask(app, "/get", cookie)[:2] == ("ann", cookie.partition(".")[0])


def test_signed_anew_without_refresh(site):
    cookie = login(site.app(SECRET_KEY="old", SESSION_USE_SIGNER=True))
    app = site.app(
        SECRET_KEY="new",
        SECRET_KEY_FALLBACKS=["old"],
        SESSION_USE_SIGNER=True,
        SESSION_REFRESH_EACH_REQUEST=False,
    )
    assert Signer("new", **SALT).unsign(ask(app, "/get", cookie)[1])


def test_not_signed_anew_where_the_session_is_not_used(site):
    cookie = login(site.app(SECRET_KEY="old", SESSION_USE_SIGNER=True))
    app = site.app(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"], SESSION_USE_SIGNER=True)
    assert ask(app, "/untouched", cookie) == ("hello", None, None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cookie: cookie[:-1],
        lambda cookie: cookie + "x",
        lambda cookie: cookie.replace(".", ""),
        lambda cookie: cookie.partition(".")[0],
        lambda cookie: "x" + cookie[1:] if cookie[0] != "x" else "y" + cookie[1:],
        lambda cookie: cookie.partition(".")[0] + ".",
        lambda cookie: "." + cookie.partition(".")[2],
        lambda cookie: cookie.swapcase(),
    ],
)
def test_spoiled_signatures(site, spoil):
    app = site.app(SECRET_KEY="new", SESSION_USE_SIGNER=True)
    cookie = login(app)
    assert ask(app, "/get", spoil(cookie))[:2] == ("None", None)
    assert ask(app, "/get", cookie)[0] == "ann"
