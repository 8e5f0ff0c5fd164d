"""How long a login takes beside few and beside many stored sessions: filesystem and sqlite.

    python bench/logins.py [--many 100000] [--few 100] [--logins 2000] [--folder FOLDER]

Whole in-process requests that make a new session of about 300 bytes. Two applications, each on a
store of its own that was filled before, take turns, so that the machine's noise meets both; the
ratio of their medians is what counts. --folder chooses the file system.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import flask
from flask_session import Session, _core
from werkzeug.test import EnvironBuilder

PAYLOAD = {"user": "somebody", "note": "x" * 240}
ROUND = 20


def make_app(kind: str, folder: Path) -> flask.Flask:
    app = flask.Flask("logins")
    app.config.update(
        SESSION_TYPE=kind,
        SESSION_FILE_DIR=str(folder / "sessions"),
        SESSION_SQLITE=str(folder / "sessions.sqlite3"),
    )
    Session(app)

    @app.get("/")
    def login() -> str:
        flask.session.update(PAYLOAD)
        return "in"

    return app


def fill(app: flask.Flask, count: int) -> None:
    store = app.extensions["flask_session"].store
    value = _core.encode({"_permanent": True, **PAYLOAD})
    for number in range(count):
        store.create(f"stored-{number:020d}", value, 30 * 86_400_000)


def login(app: flask.Flask) -> float:
    """Microseconds of one login; the answer's cookie is thrown away."""
    environ = EnvironBuilder(path="/").get_environ()
    begin = time.perf_counter_ns()
    body = app.wsgi_app(environ, lambda status, headers, exc_info=None: None)
    b"".join(body)
    body.close()
    return (time.perf_counter_ns() - begin) / 1000


def compare(kind: str, folder: Path, few: int, many: int, logins: int) -> tuple[float, float]:
    apps = {}
    for name, count in (("few", few), ("many", many)):
        place = folder / f"{kind}-{name}"
        place.mkdir()
        apps[name] = make_app(kind, place)
        fill(apps[name], count)
    times: dict[str, list[float]] = {"few": [], "many": []}
    for turn in range(logins // ROUND + 1):
        for name in ("few", "many") if turn % 2 else ("many", "few"):
            measured = [login(apps[name]) for _ in range(ROUND)]
            if turn:  # the first turn warms up
                times[name] += measured
    return statistics.median(times["few"]), statistics.median(times["many"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--logins", type=int, default=2000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for kind in ("filesystem", "sqlite"):
            few, many = compare(kind, Path(folder), arguments.few, arguments.many, arguments.logins)
            print(
                f"{kind}: {many / few:.2f} times the login beside {arguments.many:,} sessions"
                f" that it is beside {arguments.few:,} ({many:.0f} and {few:.0f} us, medians)"
            )


if __name__ == "__main__":
    main()
