"""Views that the predecessors' applications and ours share; run as a program in a predecessor's
virtualenv it visits them: JSON {"settings", "setup", "where", "visits": [[path, cookie], ...]} in,
[[text, cookie], ...] out. `setup` is code that puts client objects into `config`, see Row.legacy.
"""

import datetime as dt
import decimal
import uuid

import flask
from markupsafe import Markup

# Of every plain type that our reader of pickles builds.
VALUES = {
    "none": None,
    "flags": [True, False],
    "numbers": [0, -1, 2**40, 2**100, 1.5, float("inf")],
    "text": "Zo\u00eb \U0001f600",
    "bytes": b"\x00\xff",
    "tuple": (1, ("a", (2.5,))),
    "set": {1, "a"},
    "frozenset": frozenset({(1, 2)}),
    "nested": {"list": [{"deep": [1, 2, 3]}], 5: "number as a key"},
    "moment": dt.datetime(2024, 2, 29, 12, 30, 15, 123456),
    "moment_utc": dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.timezone.utc),
    "moment_offset": dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=-3))),
    "day": dt.date(2024, 2, 29),
    "time": dt.time(23, 59, 59, 999999),
    "span": dt.timedelta(days=-1, seconds=5, microseconds=7),
    "decimal": decimal.Decimal("1.50"),
    "uuid": uuid.UUID(int=5),
    "markup": Markup("<b>x</b>"),
}
PLAIN = {"list": [1, "a", None, True, 1.5, {"deep": []}], "text": "Zo\u00eb"}


def shown(user):
    """What /get answers for a session that /set made; None: for none."""
    return show({} if user is None else dict(VALUES, user=user))


def shown_plain(user):
    return show(dict(PLAIN, user=user))


def show(session):
    """Every value with its type, sets in an order."""

    def part(value):
        if isinstance(value, (set, frozenset)):
            return type(value).__name__ + repr(sorted(map(part, value)))
        return repr(value)

    return ";".join(sorted(key + "=" + part(value) for key, value in session.items()))


def add_views(app):
    @app.route("/set/<user>")
    def put(user):
        flask.session.update(VALUES, user=user)
        return "set"

    @app.route("/plain/<user>")
    def plain(user):
        flask.session.update(PLAIN, user=user)
        return "set"

    @app.route("/get")
    def get():
        return show({key: value for key, value in flask.session.items() if key != "_permanent"})

    @app.route("/change/<user>")
    def change(user):
        flask.session["user"] = user
        return "changed"

    @app.route("/clear")
    def clear():
        flask.session.clear()
        return "cleared"

    @app.route("/regenerate")
    def regenerate():
        flask.current_app.session_interface.regenerate(flask.session)
        return "new"


def visit(app, path, cookie):
    """(text, value of the cookie that was set or None)"""
    headers = {} if cookie is None else {"Cookie": "session=" + cookie}
    answer = app.test_client(use_cookies=False).get(path, headers=headers)
    assert answer.status_code == 200, answer.status
    lines = answer.headers.getlist("Set-Cookie")
    return answer.get_data(as_text=True), lines[0][8:].partition(";")[0] if lines else None


def main():
    import json
    import sys
    import warnings

    warnings.simplefilter("ignore")
    from flask_session import Session

    given = json.load(sys.stdin)
    app = flask.Flask("legacy")
    app.config.update(given["settings"])
    exec(given["setup"], {"app": app, "config": app.config, "where": given["where"]})
    with app.app_context():  # which Flask-Session2 needs for its tables
        Session(app)
    add_views(app)
    print(json.dumps([visit(app, path, cookie) for path, cookie in given["visits"]]))


if __name__ == "__main__":
    main()
