"""The shortcuts for Cookie, Vary and Set-Cookie give what werkzeug's Python gives.

The Python way is taken by an interface that overrides a getter without changing what it says; the
shortcut by the stock one. Both answer the same requests, and whole responses are compared.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta

import pytest
from flask import Flask, Request, Response, make_response, session
from flask_session import Session
from flask_session.memory import MemorySessionInterface
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from tests import examples

KEY = "not a secret"


class PythonWay(MemorySessionInterface):
    """Overriding a getter leaves the shortcuts for good."""

    def get_cookie_name(self, app):
        return super().get_cookie_name(app)


class OtherRequest(Request):
    """Its cookies are an application's business."""


class OtherResponse(Response):
    pass


class OtherHeaders(Headers):
    pass


def make_app(interface, config, request_class=Request, response_class=Response):
    app = Flask("headers")
    app.request_class = request_class
    app.response_class = response_class
    app.config.update(SECRET_KEY=KEY, SESSION_TYPE="memory", **config)
    app.session_interface = interface(
        app, use_signer=config.get("SESSION_USE_SIGNER", False), key_prefix="session:"
    )

    @app.route("/untouched")
    def untouched():
        return "text"

    @app.route("/read")
    def read():
        return str(session.get("user"))

    @app.route("/write")
    def write():
        session["n"] = session.get("n", 0) + 1
        return "text"

    @app.route("/nested")
    def nested():
        session.setdefault("list", []).append(1)
        return "text"

    @app.route("/clear")
    def clear():
        session.clear()
        return "text"

    @app.route("/browser")
    def browser():
        session.permanent = False
        session["user"] = "u"
        return "text"

    @app.route("/lasting")
    def lasting():
        session.permanent = True
        session["user"] = "u"
        return "text"

    @app.route("/vary")
    def vary():
        session["n"] = 1
        response = make_response("text")
        response.vary.add("Accept")
        return response

    @app.route("/varycookie")
    def varycookie():
        session["n"] = 2
        response = make_response("text")
        response.headers["vary"] = "cookie, Accept"
        return response

    @app.route("/two")
    def two():
        session["n"] = 3
        response = make_response("text")
        response.headers.add("Vary", "Accept")
        response.headers.add("Vary", "Cookie")
        return response

    @app.route("/setcookie")
    def setcookie():
        session["n"] = 4
        response = make_response("text")
        response.set_cookie("other", "1")
        response.set_cookie("session", "theirs")
        return response

    @app.route("/public")
    def public():
        session["n"] = 5
        response = make_response("text")
        response.cache_control.public = True
        response.cache_control.max_age = 60
        return response

    @app.route("/shared")
    def shared():
        session["n"] = 6
        response = make_response("text")
        response.headers["Cache-Control"] = "s-maxage=10"
        return response

    @app.route("/headers")
    def headers():
        session["n"] = 7
        response = make_response("text")
        response.headers = OtherHeaders(response.headers)
        return response

    @app.route("/error")
    def error():
        session["n"] = 8
        raise ZeroDivisionError

    return app


PATHS = [
    "/untouched",
    "/read",
    "/lasting",
    "/read",
    "/write",
    "/nested",
    "/vary",
    "/varycookie",
    "/two",
    "/setcookie",
    "/public",
    "/shared",
    "/headers",
    "/error",
    "/browser",
    "/read",
    "/write",
    "/clear",
    "/read",
]

CONFIGS = {
    "stock": {},
    "signer": {"SESSION_USE_SIGNER": True},
    "domain": {"SESSION_COOKIE_DOMAIN": "example.com"},
    "dotted domain": {"SESSION_COOKIE_DOMAIN": ".example.com:80"},
    "idna": {"SESSION_COOKIE_DOMAIN": "bücher.example"},
    "path": {"SESSION_COOKIE_PATH": "/a b/ü;x"},
    "root": {"APPLICATION_ROOT": "/app"},
    "secure": {"SESSION_COOKIE_SECURE": True},
    "open": {"SESSION_COOKIE_HTTPONLY": False},
    "lax": {"SESSION_COOKIE_SAMESITE": "Lax"},
    "strict": {"SESSION_COOKIE_SAMESITE": "strict"},
    "none": {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
    "partitioned": {"SESSION_COOKIE_PARTITIONED": True},
    "host": {"SESSION_COOKIE_NAME": "__Host-s", "SESSION_COOKIE_SECURE": True},
    "name": {"SESSION_COOKIE_NAME": "sïd"},
    "long": {"PERMANENT_SESSION_LIFETIME": timedelta(days=400)},
    "short": {"PERMANENT_SESSION_LIFETIME": timedelta(seconds=90)},
    "fraction": {"PERMANENT_SESSION_LIFETIME": timedelta(seconds=90, microseconds=1)},
    "seconds": {"PERMANENT_SESSION_LIFETIME": 1000},
    "no refresh": {"SESSION_REFRESH_EACH_REQUEST": False},
}


def visit(app):
    """What the application answers to all PATHS by one visitor; time stands still."""
    answers = []
    cookie = None
    for path in PATHS:
        environ = EnvironBuilder(path, headers=[("Cookie", cookie)] if cookie else []).get_environ()
        result = {}

        def start(status, headers, exc_info=None, result=result):
            result["status"], result["headers"] = status, headers

        body = b"".join(app.wsgi_app(environ, start))
        answers.append((path, result["status"], result["headers"], body))
        name = app.config["SESSION_COOKIE_NAME"].encode().decode("latin1") + "="
        for key, value in result["headers"]:
            if key == "Set-Cookie" and value.startswith(name) and "theirs" not in value:
                cookie = value.partition(";")[0]
    return answers


def without_sid(answers, app):
    """The same with the ids (random) and signatures replaced by their order of appearance."""
    seen = {}
    shown = []
    prefix = app.config["SESSION_COOKIE_NAME"].encode().decode("latin1") + "="
    for path, status, headers, body in answers:
        plain = []
        for key, value in headers:
            if key == "Set-Cookie" and value.startswith(prefix):
                text = value[len(prefix) :].partition(";")[0]
                value = value.replace(text, f"<{seen.setdefault(text, len(seen))}>", 1)
            plain.append((key, value))
        shown.append((path, status, plain, body))
    return shown


def both(config, request_class=Request, response_class=Response):
    for _ in range(5):
        start = time.time()
        shown = []
        for interface in (MemorySessionInterface, PythonWay):
            app = make_app(interface, config, request_class, response_class)
            shown.append(without_sid(visit(app), app))
        if int(start) == int(time.time()):
            return shown  # within one second of the clock: the same Expires
    raise AssertionError("the clock never left room for two visits in one second")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_same_response(config):
    fast, slow = both(config)
    assert any(key == "Set-Cookie" for _, _, headers, _ in fast for key, _ in headers)
    for one, other in zip(fast, slow, strict=True):
        assert one == other


@pytest.mark.parametrize("request_class", [Request, OtherRequest])
@pytest.mark.parametrize("response_class", [Response, OtherResponse])
def test_same_response_with_other_classes(request_class, response_class):
    fast, slow = both({}, request_class, response_class)
    assert fast == slow


def test_configuration_changed_between_requests():
    app = make_app(MemorySessionInterface, {})
    client = app.test_client()
    assert "Secure" not in client.get("/lasting").headers["Set-Cookie"]
    app.config["SESSION_COOKIE_SECURE"] = True
    assert "; Secure;" in client.get("/write", base_url="https://localhost").headers["Set-Cookie"]


def test_bad_samesite_is_an_error_either_way():
    app = make_app(MemorySessionInterface, {"SESSION_COOKIE_SAMESITE": "sometimes"})
    app.testing = True
    with pytest.raises(ValueError, match="SameSite"):
        app.test_client().get("/lasting")


# ---- Cookie -------------------------------------------------------------------------------------

ALPHABET = [*list('abs session=;; \t"\\,:/.-_'), "session", "session=", "=", ";", "é", "\x7f", "\n"]


def headers_like_a_fuzzer(count):
    chance = random.Random(20)
    for _ in range(count):
        yield "".join(chance.choices(ALPHABET, k=chance.randrange(24)))
    for _ in range(count // 4):
        parts = [
            chance.choice(["session", "Session", "a", " session", "session ", "", "s"])
            + chance.choice(["=", " = ", "", "==", "=\t"])
            + chance.choice(["x" * 20, "", '"q"', "a b", "é", "v;", "\\", " v "])
            for _ in range(chance.randrange(1, 6))
        ]
        yield chance.choice([";", "; ", " ;"]).join(parts)


def test_cookie_is_read_as_werkzeug_reads_it():
    app = make_app(MemorySessionInterface, {})
    interface = app.session_interface
    handled = 0
    for header in headers_like_a_fuzzer(examples(40_000, 1_000_000)):
        request = Request(EnvironBuilder().get_environ())
        request.environ["HTTP_COOKIE"] = header
        expected = request.cookies.get("session")
        request = Request(request.environ)
        done, value = interface._read_cookie(app, request)
        if done:
            handled += 1
            assert value == expected, header
    assert handled > 1000


def test_header_less_request_has_no_cookie():
    app = make_app(MemorySessionInterface, {})
    request = Request(EnvironBuilder().get_environ())
    assert app.session_interface._read_cookie(app, request) == (True, None)


def test_session_of_a_quoted_cookie_is_found():
    app = make_app(MemorySessionInterface, {})
    client = app.test_client()
    cookie = client.get("/lasting").headers["Set-Cookie"].partition(";")[0]
    name, _, sid = cookie.partition("=")
    for header in (f'{name}="{sid}"', f'other="a;b"; {name}={sid}', f"{name} = {sid} ; x"):
        environ = EnvironBuilder("/read").get_environ()
        environ["HTTP_COOKIE"] = header
        assert b"".join(app.wsgi_app(environ, lambda *args: None)) == b"u", header


def test_extension_uses_the_shortcuts():
    app = Flask("stock")
    app.config.update(SECRET_KEY=KEY, SESSION_TYPE="memory")
    Session(app)
    request = Request(EnvironBuilder(headers=[("Cookie", "session=abc")]).get_environ())
    assert app.session_interface._read_cookie(app, request) == (True, "abc")
