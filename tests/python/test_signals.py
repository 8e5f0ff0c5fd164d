"""Signals: who is told what, and that no session id is told."""

from __future__ import annotations

import logging

import flask
import flask_session
import pytest
from flask_session import Session
from flask_session.signals import Events

from tests.python.apps.views import add_views

NAMES = sorted(Events.signals)


@pytest.fixture
def app():
    app = flask.Flask(__name__)
    app.config["SESSION_TYPE"] = "memory"
    Session(app)

    add_views(app)

    @app.get("/cached")
    def cached():
        flask.session["value"] = "cached"
        return "x", {"Cache-Control": "public, s-maxage=60"}

    return app


@pytest.fixture
def heard():
    """[(event name, sender, keyword arguments)] of all signals, while the test runs."""
    log = []
    receivers = []
    for name, signal in Events.signals.items():

        def receive(sender, _name=name, **details):
            log.append((_name, sender, details))

        signal.connect(receive)
        receivers.append((signal, receive))
    yield log
    for signal, receive in receivers:
        signal.disconnect(receive)


def names(heard):
    return [name for name, _, _ in heard]


def test_every_signal_is_exported():
    assert len(NAMES) == 11
    for name, signal in Events.signals.items():
        assert getattr(flask_session, "session_" + name) is signal
        assert signal.name == "session-" + name.replace("_", "-")


def test_life_of_a_session(app, heard):
    client = app.test_client()
    client.get("/untouched")
    assert names(heard) == []
    client.get("/set/1")
    assert names(heard) == ["created", "saved"]
    heard.clear()
    client.get("/get")
    assert names(heard) == ["loaded"]
    heard.clear()
    client.get("/set/2")
    assert names(heard) == ["loaded", "saved"]
    heard.clear()
    client.get("/regenerate")
    assert names(heard) == ["loaded", "regenerated"]
    heard.clear()
    client.get("/clear")
    assert names(heard) == ["loaded", "removed"]


def test_sender_and_hash(app, heard):
    client = app.test_client()
    client.get("/set/1")
    client.get("/get")
    sid = client.get_cookie("session").value
    hashes = {details["sid_hash"] for _, _, details in heard}
    assert len(hashes) == 1  # the same session has the same hash
    assert all(sender is app for _, sender, _ in heard)
    other = app.test_client()
    other.get("/set/1")
    assert heard[-1][2]["sid_hash"] not in hashes
    assert sid not in repr(heard)


def test_touched(app, heard):
    app.config["PERMANENT_SESSION_LIFETIME"] = 1000
    client = app.test_client()
    client.get("/set/1")
    app.config["PERMANENT_SESSION_LIFETIME"] = 100_000
    heard.clear()
    client.get("/get")
    assert names(heard) == ["loaded", "touched"]


def test_rejected(app, heard, caplog):
    caplog.set_level(logging.INFO, "flask_session")
    store = app.extensions["flask_session"].store
    sid = "A" * 43
    store.create(sid, b"\xc1 this is no session", 60_000)
    client = app.test_client()
    client.set_cookie("session", sid)
    assert client.get("/get").text == "None"
    assert names(heard) == ["rejected"]
    assert sid not in caplog.text
    assert "refused" in caplog.text


def test_lost(app, heard, caplog):
    client = app.test_client()

    @app.get("/slow")
    def slow():
        flask.session["value"] = "late"
        app.extensions["flask_session"].store.remove(flask.session.sid)
        return "done"

    client.get("/set/1")
    sid = client.get_cookie("session").value
    heard.clear()
    answer = client.get("/slow")
    assert names(heard) == ["loaded", "lost"]
    assert "Set-Cookie" not in answer.headers
    assert "Changes were dropped" in caplog.text
    assert sid not in caplog.text


def test_conflict_says_how_many_keys(app, heard):
    client, other = app.test_client(), app.test_client()

    @app.get("/both")
    def both():
        flask.session["value"] = "mine"
        other.get("/set/theirs")
        return "done"

    client.get("/set/1")
    other.set_cookie("session", client.get_cookie("session").value)
    client.get("/both")
    [details] = [details for name, _, details in heard if name == "conflict"]
    assert details["keys"] == 1


def test_made_private(app, heard, caplog):
    answer = app.test_client().get("/cached")
    assert names(heard).count("made_private") == 1
    assert "private" in answer.headers["Cache-Control"]
    assert "s-maxage" not in answer.headers["Cache-Control"]
    assert "made private" in caplog.text


def test_store_error_carries_the_error(heard, caplog):
    app = flask.Flask(__name__)
    error = flask_session.SessionStoreError("down")
    Events().emit("store_error", app, "", error)
    [(name, sender, details)] = heard
    assert (name, sender) == ("store_error", app)
    assert details["error"] is error
    assert [record.getMessage() for record in caplog.records] == ["The store failed; error: down"]


def test_nobody_listens(app):
    client = app.test_client()
    client.get("/set/1")
    assert client.get("/get").text == "1"
    assert app.extensions["flask_session"].stats()["events"]["loaded"] == 1


def test_receiver_s_exception_ends_the_request(app):
    app.testing = True

    def fail(sender, **details):
        raise LookupError("receiver")

    with flask_session.session_created.connected_to(fail):
        with pytest.raises(LookupError, match="receiver"):
            app.test_client().get("/set/1")
