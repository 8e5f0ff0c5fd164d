"""The file store as `nobody`: what modes and a full disk do. files.py FOLDER prints what happened
as JSON.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import sys
from pathlib import Path

import flask
from flask_session import Session
from views import add_views


def main():
    folder = Path(sys.argv[1])
    place = folder / "sessions"

    def make(place):
        app = flask.Flask("files")
        app.config.update(SESSION_TYPE="filesystem", SESSION_FILE_DIR=str(place))
        Session(app)

        @app.errorhandler(Exception)
        def failed(error):
            return type(error).__name__, 500

        return add_views(app).test_client()

    # Modules are loaded at first use; nobody may not be able to read them.
    first = make(folder / "first")
    for path in ("/set/1", "/get", "/regenerate", "/clear"):
        first.get(path)
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    seen = {"uid": os.getuid()}

    def shown(answer):
        return [answer.status_code, answer.text]

    def visitor():
        client = make(place)
        client.get("/set/1")
        return client

    def newest():
        files = [path for path in place.rglob("*") if len(path.name) == 64]
        return max(files, key=lambda path: path.stat().st_mtime_ns)

    def same(client):
        """The same browser at a process that has opened nothing yet."""
        other = make(place)
        other.set_cookie("session", client.get_cookie("session").value)
        return other

    client = visitor()
    newest().chmod(0)
    seen["unreadable file"] = {"get": shown(client.get("/get")), "set": shown(client.get("/set/1"))}

    def refuse(name, path, client):
        mode = path.stat().st_mode
        path.chmod(0)
        fresh = same(client)
        seen[name] = {
            "get": shown(fresh.get("/get")),
            "set": shown(fresh.get("/set/2")),
            "untouched": shown(fresh.get("/untouched")),
        }
        path.chmod(mode)

    client = visitor()
    refuse("unreadable shard", newest().parent, client)
    seen["readable again"] = shown(client.get("/get"))
    refuse("unreadable directory", place / "cession", client)
    seen["directory readable again"] = shown(client.get("/get"))

    (place / "cession").chmod(0o777)
    seen["directory that others may write to"] = shown(same(client).get("/get"))
    (place / "cession").chmod(0o700)

    # A limit on the size of files is as good as a full disk.
    client = visitor()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    seen["full disk"] = {
        "set": shown(client.get("/set/" + "x" * 5000)),
        "get": shown(client.get("/get")),
        "left": len(list(place.rglob("tmp-*"))),
    }
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    seen["room again"] = shown(client.get("/set/small"))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
