"""Many requests leave nothing behind, and the interpreter starts and ends cleanly.

CESSION_LONG=1: 100,000 requests per store.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import flask_session
import pytest

from tests.python.apps import endurance

pytestmark = pytest.mark.process

# ---- many requests ------------------------------------------------------------------------------


def endure(tmp_path: Path, store: str, requests: int) -> dict:
    settings = {"SESSION_TYPE": store}
    if store == "sqlite":
        settings["SESSION_SQLITE"] = str(tmp_path / "sessions.sqlite3")
    if store == "filesystem":
        settings["SESSION_FILE_DIR"] = str(tmp_path / "sessions")
    done = subprocess.run(
        [sys.executable, endurance.__file__, json.dumps(settings), str(requests)],
        # Of the package under test alone; nothing of the test run's own.
        env={**os.environ, "PYTHONPATH": str(Path(flask_session.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict = json.loads(done.stdout)
    assert result["requests"] >= requests
    return result


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["memory", "sqlite", "filesystem", "broken"])
def test_memory_stays_flat(tmp_path, long_run, store):
    """Visits with new sessions, reads, writes, nested changes, odd cookies, regenerate and logout;
    on a store that fails in all ways ("broken") also those. Compared are a third of the way and
    its end."""
    requests = 100_000 if long_run else 10_000
    result = endure(tmp_path, store, requests)
    before, after = result["before"], result["after"]
    grown = {name: after[name] - count for name, count in before.items() if count is not None}
    assert grown.pop("rss") < 3_000_000
    # What malloc has given out can be asked for exactly. SQLite's cache of pages may still grow.
    assert grown.pop("malloc", 0) < 250_000
    # Python's small blocks: dicts and caches come and go, but not with the number of requests.
    assert grown.pop("blocks") < 1500
    assert abs(grown.pop("objects")) < 200
    assert before["sessions"] == after["sessions"] == 0
    # Sessions, and references to what lives longer than they do.
    assert {name: count for name, count in grown.items() if count} == {}
    assert result.get("sessions left to the collector", 0) == 0


# ---- start and end ------------------------------------------------------------------------------

APP = """
import flask, flask_session, os, sys
from flask import session
app = flask.Flask("ending", instance_path=os.getcwd())
app.config.update({settings})
flask_session.Session(app)
@app.get("/bye/<int:code>")
def bye(code):
    session["bye"] = code
    sys.exit(code)
@app.get("/<value>")
def view(value):
    session["value"] = value
    global kept
    kept = session._get_current_object()
    return value
client = app.test_client()
for value in "abc":
    assert client.get("/" + value).text == value
"""

MEMORY = '{"SESSION_TYPE": "memory"}'
SQLITE = '{"SESSION_TYPE": "sqlite", "SESSION_SQLITE": "ending.sqlite3"}'
ENDINGS = {
    "import": "import flask_session",
    "core alone": "from flask_session import _core",
    "memory": APP.replace("{settings}", MEMORY),
    "sqlite": APP.replace("{settings}", SQLITE),
    "exit in a request": APP.replace("{settings}", SQLITE)
    + """
try:
    client.get("/bye/0")
except SystemExit as error:
    kept = error
""",
    "atexit": APP.replace("{settings}", SQLITE)
    + """
import atexit
atexit.register(lambda: print(client.get("/late").text))
""",
    "thread under way": APP.replace("{settings}", SQLITE)
    + """
import threading
started = threading.Event()
def work():
    while True:
        app.test_client().get("/x")
        started.set()
threading.Thread(target=work, daemon=True).start()
started.wait()
""",
    "os._exit": APP.replace("{settings}", SQLITE) + "os._exit(0)",
    "adapter": """
import flask
from flask_session import _core
from flask_session.base import ServerSideSessionInterface
class Adapter:
    name = "own"
    capabilities = _core.CAP_NATIVE_TTL
    def load(self, key, timeout):
        return None
    def create(self, key, value, ttl_ms, timeout):
        return True
    replace = touch = remove = load
    def close(self):
        pass
class Interface(ServerSideSessionInterface):
    def _open_store(self, key_prefix):
        self.adapter = Adapter()
        self.adapter.interface = self  # a circle
        return _core.Store.wrap(self.adapter)
app = flask.Flask("ending")
app.session_interface = Interface(app)
@app.get("/")
def view():
    flask.session["a"] = 1
    global kept
    kept = flask.session._get_current_object()
    return "a"
assert app.test_client().get("/").text == "a"
""",
    "never configured": """
from flask_session import _core
interface = _core.Interface()
session = _core.Session({"a": 1}, sid="x", permanent=True)
for call in (lambda: interface.open_session(None, None), session.save):
    try:
        call()
    except RuntimeError:
        pass
    else:
        raise SystemExit("no error")
""",
    "imported again": """
import sys
import flask_session
from flask_session import _core as first
for name in [name for name in sys.modules if name.startswith("flask_session")]:
    del sys.modules[name]
import flask_session
from flask_session import _core as second
one, two = first.Session({"a": 1}), second.Session({"a": 1})
assert one == two and type(one) is not type(two)
assert first.encode(one) == second.encode(two)
del first, one
import gc
gc.collect()
assert second.decode(second.encode(two)) == {"a": 1}
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_cleanly(run_python, python, tmp_path, ending):
    """Whatever is still alive: no crash, and not a word. Under a sanitizer its word counts too."""
    code = f"""
import subprocess, sys
done = subprocess.run([sys.executable, "-W", "error", "-X", "dev", "-c", {ENDINGS[ending]!r}],
                      capture_output=True, text=True)
print(repr((done.returncode, done.stdout, done.stderr)))
"""
    expected = (0, "late\n" if ending == "atexit" else "", "")
    assert run_python(python, code, cession=True) == f"{expected!r}\n"
