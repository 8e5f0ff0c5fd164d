"""An application for the command `migrate` in a process of its own, which may be killed in it.

CESSION_MIGRATING: {"settings": configuration, "rows": [[row, where], ...], "instance": folder,
"kill": [place, number] or null}. The process kills itself when it comes to this place ("bring": a
session was stored; "save": a new state is written and not yet in its place) so often.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import flask
import flask_session.migrate
from flask_session import Session

from tests.rows import ROWS

given = json.loads(os.environ["CESSION_MIGRATING"])
app = flask.Flask(__name__, instance_path=given["instance"])
for name, where in given["rows"]:
    app.config.update(ROWS[name].settings(where))
app.config.update(given["settings"])
Session(app)


def killing(function, number):
    def instead(*args, **kwargs):
        nonlocal number
        number -= 1
        if number == 0 and function is Path.replace:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = function(*args, **kwargs)
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return instead


if given["kill"]:
    place, number = given["kill"]
    if place == "bring":
        owner = flask_session.migrate.Migration
        owner._bring = killing(owner._bring, number)
    else:
        Path.replace = killing(Path.replace, number)
