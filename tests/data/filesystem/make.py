"""Write the sessions that cachelib's FileSystemCache leaves behind, for tests/c/test_filesystem.c.

    for version in 0.9.0 0.13.0 0.17.0; do
        python3 -m venv "$TMPDIR/$version"
        "$TMPDIR/$version/bin/pip" install "cachelib==$version"
        "$TMPDIR/$version/bin/python" tests/data/filesystem/make.py tests/data/filesystem
    done

Stored the way Flask-Session does it: key "session:" + id, value dict(session), the lifetime as the
timeout. The clock is set back to 2020, so that the files are the same on every day they are made.
"""

import sys
from importlib.metadata import version
from pathlib import Path

NOW = 1577836800  # 2020-01-01
LIVE_UNTIL = 4102444800  # 2100-01-01


def main() -> None:
    import cachelib.file

    cachelib.file.time = lambda: float(NOW)
    folder = Path(sys.argv[1]) / f"cachelib-{version('cachelib')}"
    cache = cachelib.file.FileSystemCache(str(folder), threshold=500, mode=0o600)
    session = {"_permanent": True, "username": "Zo\u00eb", "count": 3}
    cache.set("session:live", session, LIVE_UNTIL - NOW)
    cache.set("session:never", {**session, "count": 4}, 0)
    cache.set("session:expired", {**session, "count": 5}, 60)
    # What Flask-Session2 stores: the same dict, and an id of another form.
    cache.set("session:8e2d4c1a-5b7f-4d7a-9c55-2f1f0a6b3c4d", session, LIVE_UNTIL - NOW)
    print(folder, sorted(path.name for path in folder.iterdir()))


if __name__ == "__main__":
    main()
