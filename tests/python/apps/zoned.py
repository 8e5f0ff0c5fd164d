"""An application in a process with a time zone of its own: visits in, what was seen out.

JSON {"row": [name, place, prefix], "before": what the last process printed or null} in; JSON out:
the ids of a session that lives for LIFETIME and of one that lives for a second, and when they were
written.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from flask_session import _core

from tests.python.apps import script

LIFETIME = 3600


def main() -> None:
    given = json.load(sys.stdin)

    def make_app(lifetime: int) -> Any:
        settings = {"PERMANENT_SESSION_LIFETIME": lifetime}
        return script.make_app(settings, 0, os.devnull, given["row"])

    def visit(app: Any, sid: str | None, *steps: list[Any]) -> tuple[Any, Any]:
        client = app.test_client()
        if sid is not None:
            client.set_cookie("session", sid)
        values = client.post("/do", json=steps).json
        cookie = client.get_cookie("session")
        return values[-1], cookie and cookie.value

    seen: dict[str, Any] = {"offset": -time.timezone}
    usual, short, longer = make_app(LIFETIME), make_app(1), make_app(10 * LIFETIME)
    store = usual.extensions["flask_session"].store
    if not store.capabilities & _core.CAP_NATIVE_TTL:
        store.purge(1000)
    before = given["before"]
    if before is not None:
        seen["usual before"] = visit(usual, before["usual"], ["get", "user"])[0]
        seen["short before"] = visit(usual, before["short"], ["get", "user"])[0]
        seen["start of touch"] = time.time()
        visit(longer, before["usual"], ["get", "user"])
        seen["end of touch"] = time.time()
    seen["start"] = time.time()
    seen["usual"] = visit(usual, None, ["set", "user", "ann"])[1]
    seen["short"] = visit(short, None, ["set", "user", "bob"])[1]
    seen["end"] = time.time()
    expires = store.load(seen["usual"])[2]
    seen["expires"] = None if expires is None else expires / 1000
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
