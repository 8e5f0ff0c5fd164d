"""The Flask application whose sessions C programs share: settings in CESSION_NEIGHBOUR (JSON)."""

from __future__ import annotations

import datetime
import decimal
import json
import os
from typing import Any

import flask
import flask_session
from flask import session

app = flask.Flask("neighbour")
app.config.update(json.loads(os.environ["CESSION_NEIGHBOUR"]))
flask_session.Session(app)


@app.post("/login/<user>")
def login(user: str) -> Any:
    session["user"] = user
    session.regenerate()
    return "ok"


@app.post("/set/<key>/<value>")
def put(key: str, value: str) -> Any:
    session[key] = value
    return "ok"


@app.post("/types")
def types() -> Any:
    session.update(
        none=None,
        truth=True,
        number=-7,
        large=2**64 - 1,
        float=0.1,
        text='a"<\u00e9\x1b',
        bytes=b"\xff\x00",
        nested={"list": [1, [], {}], "empty": {}},
        day=datetime.date(2026, 1, 2),
        price=decimal.Decimal("1.50"),
    )
    session[7] = ("tuple",)
    return "ok"


@app.post("/logout")
def logout() -> Any:
    session.clear()
    return "ok"


@app.get("/all")
def everything() -> Any:
    return flask.jsonify({str(key): str(value) for key, value in session.items()})
