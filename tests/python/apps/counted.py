"""An application whose requests are counted: what each asks of the store, and what that costs on
the wire.
"""

from __future__ import annotations

import time

import flask
from flask import session
from flask_session import Session, _core

from tests.python.flask_version import LATE

UNTOUCHED = {} if LATE else {"load": 1}

OPERATIONS = ("load", "create", "replace", "touch", "remove", "purge", "scan")
DAY = 86_400


class Site:
    """An application, and browsers whose requests are counted."""

    def __init__(self, folder, setup=None, **settings):
        self.app = app = flask.Flask(__name__, instance_path=str(folder))
        # A lifetime that leaves a touch interval of 60 seconds.
        app.config.update({"PERMANENT_SESSION_LIFETIME": DAY, **settings})
        Session(app)
        if setup is not None:
            setup(app)
        add_views(app)
        self.store = app.extensions["flask_session"].store

    def server_reset(self):
        pass

    def server_check(self, operations, not_found):
        pass

    def counts(self):
        counts = self.store.counts()
        return {name: counts[name] for name in (*OPERATIONS, "not_found")}

    def visit(self, client, path, expected, method="GET"):
        """The answer to a request, which must cost just the expected operations."""
        before = self.counts()
        self.server_reset()
        answer = client.open(path, method=method)
        after = self.counts()
        made = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        not_found = made.pop("not_found", 0)
        assert made == expected, path
        self.server_check(made, not_found)
        assert answer.status_code < 500, answer.text
        return answer

    def record(self, client):
        return self.store.load(client.get_cookie("session").value)

    def age(self, client, seconds):
        """Let the record's expiry be what it was so many seconds ago."""
        sid = client.get_cookie("session").value
        value, version, _ = self.store.load(sid)
        lifetime = int(self.app.permanent_session_lifetime.total_seconds())
        ttl_ms = (lifetime - seconds) * 1000
        assert self.store.touch(sid, value, version, ttl_ms) == _core.OK

    def left(self, client):
        """Seconds until the record expires."""
        return self.record(client)[2] / 1000 - time.time()

    def browser(self):
        """A browser that is logged in."""
        client = self.app.test_client()
        self.visit(client, "/set/user/ann", {"create": 1})
        return client


def add_views(app):
    @app.get("/untouched")
    def untouched():
        return "no session in sight"

    @app.get("/get")
    def get():
        return str(session.get("user"))

    @app.get("/get-often")
    def get_often():
        seen = [session.get("user"), "user" in session, len(session), dict(session), session.sid]
        return flask.render_template_string("{{ session.user }}{{ seen }}", seen=seen)

    @app.get("/set/<key>/<value>")
    def put(key, value):
        session[key] = value
        return "set"

    @app.get("/set-the-same")
    def set_the_same():
        session["user"] = session["user"]
        return "set"

    @app.get("/set-and-back")
    def set_and_back():
        session["other"] = 1
        del session["other"]
        return "set"

    @app.get("/mark")
    def mark():
        session.modified = True
        return "marked"

    @app.get("/nested")
    def nested():
        session["nested"]["list"].append(1)
        return "appended"

    @app.get("/make-nested")
    def make_nested():
        session["nested"] = {"list": []}
        return "made"

    @app.get("/pop/<key>")
    def pop(key):
        session.pop(key, None)
        return "popped"

    @app.get("/clear")
    def clear():
        session.clear()
        return "cleared"

    @app.get("/login")
    def login():
        session.regenerate()
        session["user"] = "ann"
        return "logged in"

    @app.get("/save")
    def save():
        session["saved"] = 1
        session.save()
        session.save()
        return "saved"

    @app.get("/destroy")
    def destroy():
        session.destroy()
        return "destroyed"

    @app.get("/flash/<text>")
    def flash(text):
        flask.flash(text)
        return "flashed"

    @app.get("/flashed")
    def flashed():
        return ",".join(flask.get_flashed_messages())

    @app.get("/permanent/<int:value>")
    def permanent(value):
        session.permanent = bool(value)
        return "set"

    @app.get("/fails")
    def fails():
        flask.abort(418)

    @app.get("/away")
    def away():
        return flask.redirect("/untouched")

    @app.get("/stream")
    def stream():
        return flask.Response(iter(["a", "b"]))


def cookies_of(answer):
    return answer.headers.getlist("Set-Cookie")
