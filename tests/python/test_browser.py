"""Cookies under the rules of a real browser engine: Chromium keeps what we set, removes what we
delete, and refuses what the check at init refuses.
"""

from __future__ import annotations

import threading

import flask
import pytest
from flask_session import Session, SessionConfigError, config
from flask_session.memory import MemorySessionInterface
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.services import ChromiumService
from tests.services.chromium import certificate

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def chromium(services, tmp_path_factory):
    return services.start(ChromiumService), certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def window(chromium):
    service, _ = chromium
    made = service.open()
    yield made
    made.close()


class QuietHandler(WSGIRequestHandler):
    def log(self, type, message, *args):
        pass


@pytest.fixture
def serve(chromium):
    """serve(app, tls): the port it is served on."""
    servers = []

    def make(app, tls):
        context = chromium[1] if tls else None
        server = make_server(
            "127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler, ssl_context=context
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server.port

    yield make
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def make_app(**settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="memory", **settings)
    Session(app)

    @app.get("/set")
    def put():
        flask.session["user"] = "ann"
        return "set"

    @app.get("/in/get")
    @app.get("/get")
    def get():
        return str(flask.session.get("user"))

    @app.get("/in/clear")
    @app.get("/clear")
    def clear():
        flask.session.clear()
        return "cleared"

    @app.get("/in/clear-carelessly")
    @app.get("/clear-carelessly")
    def carelessly():
        """As the predecessor deletes it: by name, domain and path alone."""
        interface = app.session_interface
        response = flask.make_response("cleared")
        response.delete_cookie(
            interface.get_cookie_name(app),
            domain=interface.get_cookie_domain(app),
            path=interface.get_cookie_path(app),
        )
        return response

    @app.get("/frame/<path:url>")
    def frame(url):
        return f"<iframe src='https://{url}'></iframe>"

    return app


def partitioned(**more):
    return {
        "SESSION_COOKIE_PARTITIONED": True,
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_SAMESITE": "None",
        **more,
    }


#: name: (settings, over TLS, what the browser shows, does a careless deletion do it)
VARIANTS = {
    "plain": ({}, False, {"secure": False, "httpOnly": True, "path": "/"}, True),
    "plain over TLS": ({}, True, {"secure": False}, True),
    "for the browser session": ({"SESSION_PERMANENT": False}, False, {"session": True}, True),
    "path": ({"SESSION_COOKIE_PATH": "/in"}, False, {"path": "/in"}, True),
    "Strict": ({"SESSION_COOKIE_SAMESITE": "Strict"}, False, {"sameSite": "Strict"}, True),
    "domain": (
        {"SESSION_COOKIE_DOMAIN": "site.example"},
        False,
        {"domain": ".site.example"},
        True,
    ),
    "Secure": ({"SESSION_COOKIE_SECURE": True}, True, {"secure": True}, True),
    "__Secure-": (
        {"SESSION_COOKIE_NAME": "__Secure-s", "SESSION_COOKIE_SECURE": True},
        True,
        {"secure": True, "name": "__Secure-s"},
        False,
    ),
    "__Host-": (
        {"SESSION_COOKIE_NAME": "__Host-s", "SESSION_COOKIE_SECURE": True},
        True,
        {"secure": True, "name": "__Host-s", "path": "/"},
        False,
    ),
    "Partitioned": (partitioned(), True, {"secure": True, "sameSite": "None"}, False),
    "__Host- and Partitioned": (
        partitioned(SESSION_COOKIE_NAME="__Host-s"),
        True,
        {"secure": True, "name": "__Host-s"},
        False,
    ),
}

KNOWN = hasattr(MemorySessionInterface, "get_cookie_partitioned")  # Flask 3.1 and later


@pytest.mark.parametrize("name", [name for name in VARIANTS if KNOWN or "Partitioned" not in name])
def test_set_and_cleared(window, serve, name):
    settings, tls, shown, careless = VARIANTS[name]
    app = make_app(**settings)
    site = f"{'https' if tls else 'http'}://site.example:{serve(app, tls)}"
    inside = "/in" if "SESSION_COOKIE_PATH" in settings else ""

    assert window.visit(site + "/set") == "set"
    [cookie] = window.cookies()
    assert {key: cookie.get(key) for key in shown} == shown
    assert ("partitionKey" in cookie) is ("Partitioned" in name)
    assert cookie["session"] is (settings.get("SESSION_PERMANENT") is False)
    assert window.visit(site + inside + "/get") == "ann"

    # What a deletion needs: by the same attributes, and by no fewer.
    assert window.visit(site + inside + "/clear-carelessly") == "cleared"
    assert (window.cookies() == []) is careless
    window.visit(site + "/set")
    assert window.visit(site + inside + "/get") == "ann"
    assert window.visit(site + inside + "/clear") == "cleared"
    assert window.cookies() == []
    assert window.visit(site + inside + "/get") == "None"


@pytest.mark.skipif(not KNOWN, reason="this Flask knows no partitioned cookies")
def test_partitioned_in_the_frame_of_another_site(window, serve):
    """Each site that embeds the application has a session of its own, and a logout ends that."""
    app = make_app(**partitioned(SESSION_COOKIE_NAME="__Host-s"))
    port = serve(app, True)

    def embedded(top, path):
        window.visit(f"https://{top}:{port}/frame/site.example:{port}{path}")

    def sites():
        return sorted(
            cookie["partitionKey"]["topLevelSite"]
            for cookie in window.cookies()
            if cookie["domain"] == "site.example"
        )

    embedded("one.example", "/set")
    embedded("two.example", "/set")
    assert sites() == ["https://one.example", "https://two.example"]
    embedded("one.example", "/clear")
    assert sites() == ["https://two.example"]
    embedded("two.example", "/clear")
    assert sites() == []


# ---- the check at init --------------------------------------------------------------------------

PREFIXES = [
    (name, secure, path, domain)
    for name in ("__Host-s", "__Secure-s", "__host-s", "__secure-s", "__Hostile", "s")
    for secure in (True, False)
    for path in ("/", "/in")
    for domain in (None, "site.example")
]


def test_refused_at_init_is_what_the_browser_refuses(window, serve):
    app = flask.Flask(__name__)

    @app.get("/<int:number>")
    def raw(number):
        prefix, secure, path, domain = PREFIXES[number]
        response = flask.make_response("set")
        response.set_cookie(f"{prefix}{number}", "x", secure=secure, path=path, domain=domain)
        return response

    site = f"https://site.example:{serve(app, True)}"
    refused = []
    for number, (prefix, secure, path, domain) in enumerate(PREFIXES):
        name = f"{prefix}{number}"
        window.visit(f"{site}/{number}")
        by_browser = name not in {cookie["name"] for cookie in window.cookies()}
        checked = flask.Flask(__name__)
        checked.config.update(
            SESSION_COOKIE_NAME=name,
            SESSION_COOKIE_SECURE=secure,
            SESSION_COOKIE_PATH=path,
            SESSION_COOKIE_DOMAIN=domain,
        )
        try:
            config.check_cookie(checked, MemorySessionInterface())
        except SessionConfigError:
            refused.append(number)
        assert (number in refused) is by_browser, PREFIXES[number]
    assert 10 < len(refused) < len(PREFIXES) - 10
