"""Sessions in an SQLite file that may not be read or written, as a user for whom that counts.

unprivileged.py FOLDER: as root it becomes `nobody` (which owns FOLDER from then on) after
everything is imported, since the package may lie where nobody else can read. Prints what happened
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
from typing import Any

import failing


def drop_privileges(folder: Path) -> None:
    # Modules are loaded at first use; once used they need no file any more.
    client = failing.make_app({"SESSION_TYPE": "memory"}, "store").test_client()
    client.get("/write/x")
    client.get("/read")
    client.get("/untouched")
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def new_app(path: Path) -> Any:
    """As a process that is started anew: nothing is open yet."""
    settings = {"SESSION_TYPE": "sqlite", "SESSION_SQLITE": str(path)}
    return failing.make_app({**settings, "SESSION_STORE_TIMEOUT": 0.5}, "store")


def shown(answer: Any) -> list[Any]:
    return [answer.status_code, answer.text, "Set-Cookie" in answer.headers]


def main() -> None:
    folder = Path(sys.argv[1])
    drop_privileges(folder)
    home = folder / "home"
    home.mkdir()
    path = home / "sessions.sqlite3"
    seen: dict[str, Any] = {"uid": os.getuid()}

    app = new_app(path)
    client = app.test_client()
    seen["login"] = shown(client.get("/write/me"))
    sid = client.get_cookie("session").value
    del client, app

    def visit(name: str, target: Path = path, read: bool = True) -> Any:
        one = new_app(target).test_client()
        one.set_cookie("session", sid)
        seen[name] = {"read": shown(one.get("/read"))} if read else {}
        seen[name]["write"] = shown(one.get("/write/again"))
        seen[name]["untouched"] = one.get("/untouched").status_code
        return one

    path.chmod(0)
    one = visit("unreadable file")
    path.chmod(0o600)
    seen["readable again"] = shown(one.get("/read"))[:2]

    path.chmod(0o400)
    one = visit("read-only file", read=False)
    path.chmod(0o600)
    seen["writable again"] = shown(one.get("/write/again"))[:2]
    del one

    home.chmod(0)
    one = visit("unreadable folder")
    home.chmod(0o700)
    seen["folder readable again"] = shown(one.get("/read"))[:2]

    other = folder / "other"
    other.mkdir(mode=0o500)
    one = visit("read-only folder, no file", other / "new.sqlite3", read=False)
    other.chmod(0o700)
    seen["writable folder"] = shown(one.get("/write/x"))

    # A limit on the size of files is as good as a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    one = new_app(path).test_client()
    one.get("/write/big")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    seen["disk full"] = {
        "write": shown(one.get("/write/" + "x" * 5000)),
        "read": shown(one.get("/read"))[:2],
    }
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    seen["room again"] = shown(one.get("/write/small"))[:2]
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
