"""A master that uses the session store, forks children that use it, and exits.

forker.py PATH CHILDREN SESSIONS [busy]: every child prints "SID KEY" for each write that was
acknowledged. With `busy`, threads of the master write all the time while it forks, and the master
stays until the children have ended; it prints what it wrote as well.
"""

from __future__ import annotations

import os
import sys
import threading

import flask
import flask_session
from flask import session


def make_app(path: str) -> flask.Flask:
    app = flask.Flask("forker")
    app.config.update(SESSION_TYPE="sqlite", SESSION_SQLITE=path)
    flask_session.Session(app)

    @app.get("/set/<key>")
    def put(key: str) -> str:
        session[key] = 1
        return "ok"

    return app


def work(app: flask.Flask, sessions: int, writes: int = 10) -> None:
    for _ in range(sessions):
        client = app.test_client()
        for number in range(writes):
            key = f"{os.getpid()}-{number}"
            assert client.get(f"/set/{key}").text == "ok"
            # Only now it is acknowledged. Short lines go through a pipe whole.
            os.write(1, f"{client.get_cookie('session').value} {key}\n".encode())


def main() -> None:
    app = make_app(sys.argv[1])
    children, sessions = int(sys.argv[2]), int(sys.argv[3])
    busy = sys.argv[4:] == ["busy"]
    work(app, 1)
    done = threading.Event()

    def keep_writing() -> None:
        while not done.is_set():
            work(app, 1)

    threads = [threading.Thread(target=keep_writing) for _ in range(2 if busy else 0)]
    for thread in threads:
        thread.start()
    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            work(app, sessions)
            os._exit(0)
        pids.append(pid)
    if not busy:
        os._exit(0)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    done.set()
    for thread in threads:
        thread.join()
    work(app, 1)
    os._exit(max(codes))


if __name__ == "__main__":
    main()
