"""docs/migrating.md: every command and every configuration in it does what stands beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import flask
import pytest
from flask_session import Session, _core, stores

import tests.rows
from tests.python.apps import legacy
from tests.python.apps.views import add_views
from tests.rows import ROWS, new_prefix
from tests.services.base import clean_environment

ROOT = Path(tests.rows.__file__).parents[2]
TEXT = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^(?: {4}| {6}).*\n)+", TEXT, re.MULTILINE)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
FLASK = [line for line in COMMANDS if line.startswith("flask ")]
PIP = [line for line in COMMANDS if line.startswith("pip ")]
CODE = [textwrap.dedent(block) for block in BLOCKS if "app.config" in block]
OTHER = ["app.session_interface.serializer = orjson"]  # test_serializer.py

HOUR_MS = 3_600_000
pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_everything_in_it_is_looked_at():
    known = {line.strip() for code in CODE for line in code.splitlines()}
    assert [line for line in COMMANDS if line not in {*known, *FLASK, *PIP, *OTHER}] == []
    assert len(CODE) == 4
    assert len(FLASK) == 3
    assert set(PIP) == {
        *("pip uninstall -y Flask-Session", "pip uninstall -y Flask-Session2", "pip install .")
    }


@pytest.fixture
def here(tmp_path, redis_private):
    """text -> text with the places of this test."""
    server = redis_private()
    root = f"redis://127.0.0.1:{server.port()}"

    def replace(text):
        text = text.replace("redis://127.0.0.1:6379", root)
        return text.replace("/var/lib/app", str(tmp_path / "var"))

    return replace


def made(folder, settings):
    app = flask.Flask(__name__, instance_path=str(folder / "instance"))
    app.config.update(SECRET_KEY="a secret of the tests", **settings)
    Session(app)
    return add_views(app)


def run(folder, code, here):
    """The application that a block of the document makes."""
    app = flask.Flask(__name__, instance_path=str(folder / "instance"))
    app.config.update(SECRET_KEY="a secret of the tests")
    exec(here(code), {"app": app, "Session": Session})
    return add_views(app)


@pytest.mark.filterwarnings("ignore:the client in SESSION_REDIS")
def test_configurations(tmp_path, here):
    cookie, follow, move, redis = (run(tmp_path / str(i), CODE[i], here) for i in (0, 1, 1, 3))
    move = run(tmp_path / "1", CODE[2], here)  # the same site as the follower
    signed = flask.Flask(__name__)
    signed.secret_key = "a secret of the tests"
    for before, after in [
        (add_views(signed), cookie),
        (follow, move),
        (move, follow),
        (made(tmp_path, old_redis(here)), redis),
    ]:
        visitor, same = before.test_client(), after.test_client()
        visitor.get("/set/here")
        same.set_cookie("session", visitor.get_cookie("session").value)
        assert same.get("/get").text == "here"
    assert "moves" in move.extensions["flask_session"].stats()


def old_redis(here):
    url = here("redis://127.0.0.1:6379/0")
    return {"SESSION_TYPE": "redis", "SESSION_REDIS": url, "SESSION_KEY_PREFIX": "old:"}


SITE = """
import flask
from flask_session import Session

app = flask.Flask(__name__, instance_path={instance!r})
app.config.update(SECRET_KEY="a secret of the tests")
{code}
"""


@pytest.mark.process
@pytest.mark.parametrize("command", FLASK)
def test_commands(tmp_path, here, command):
    (tmp_path / "var").mkdir()
    instance = str(tmp_path / "instance")
    (tmp_path / "site_of_test.py").write_text(SITE.format(instance=instance, code=here(CODE[2])))
    arguments = here(command).split()
    source, target = (arguments[arguments.index(name) + 1] for name in ("--from", "--to"))
    app = flask.Flask(__name__, instance_path=instance)
    app.config.update(SESSION_REDIS=here("redis://127.0.0.1:6379/0"))
    kept, before = stores.open_beside(app, "--from", source)
    for number in range(25):
        before.create(f"{number:043}", _core.encode({"number": number}), HOUR_MS)
    done = subprocess.run(
        [sys.executable, "-m", *arguments[:1], "--app", "site_of_test", *arguments[1:]],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25 sessions: 25 copied" in done.stdout
    also_kept, after = stores.open_beside(app, "--to", target)
    for number in range(25):
        assert _core.decode(after.load(f"{number:043}")[0]) == {"number": number}
    assert kept is not also_kept


# ---- the predecessors ----------------------------------------------------------------------------

BOOT = """
import json, sys
given = json.loads(sys.stdin.read())
import flask
import flask_session
app = flask.Flask("site")
app.config.update(given["config"])
flask_session.Session(app)
@app.get("/set/<value>")
def put(value):
    flask.session["value"] = value
    return "set"
@app.get("/get")
def get():
    return str(flask.session.get("value"))
client = app.test_client()
if given["cookie"]:
    host = [] if hasattr(client, "get_cookie") else ["localhost"]  # an older werkzeug
    client.set_cookie(*host, *given["cookie"])
answer = client.get(given["path"])
line = answer.headers.get("Set-Cookie", "=").split(";")[0]
print(json.dumps([answer.text, line.split("=", 1)[1], flask_session.__file__]))
"""


def link(source, target):
    """Hundreds of megabytes, of which pip replaces a few: it never writes into a file."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package"), [("fs08", "Flask-Session"), ("fs2", "Flask-Session2")]
)
def test_installing(tmp_path, predecessor, name, package, not_run):
    """The commands, in a virtualenv that has the predecessor. `pip install .` builds the package;
    here it gets the wheel that was built for these tests."""
    wheels = list((ROOT / "build/wheel").glob("cession-*.whl"))
    if not wheels:
        not_run("there is no wheel of the package in build/wheel: make deps")
    original = Path(predecessor(name)).parents[1]
    folder = tmp_path / "venv"
    shutil.copytree(original, folder, symlinks=True, copy_function=link)
    python = str(folder / "bin/python")

    def visit(path, cookie=None):
        given = {
            "config": {"SESSION_TYPE": "filesystem", "SESSION_FILE_DIR": str(tmp_path / "files")},
            "path": path,
            "cookie": ["session", cookie] if cookie else None,
        }
        done = subprocess.run(
            [python, "-c", BOOT], input=json.dumps(given), env=clean_environment(), cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def pip(command):
        assert command in PIP
        arguments = [str(wheels[0]) if word == "." else word for word in command.split()[1:]]
        done = subprocess.run(
            [python, "-m", "pip", "--disable-pip-version-check", *arguments],
            env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    text, cookie, theirs = visit("/set/ann")
    assert text == "set"
    pip(f"pip uninstall -y {package}")
    assert not Path(theirs).exists()
    pip("pip install .")
    text, _, ours = visit("/get", cookie)
    assert text == "ann"
    assert (Path(ours).parent / "moving.py").exists()


@pytest.mark.process
@pytest.mark.parametrize(("name", "reads"), [("fs08", True), ("fs2", False)])
def test_what_the_predecessors_read_of_ours(start_row, predecessor, run_python, name, reads):
    row = start_row("redis")
    settings = {"SECRET_KEY": "secret", "SESSION_KEY_PREFIX": new_prefix()}
    app = flask.Flask(__name__)
    app.config.update(row.settings(row.where), **settings)
    Session(app)
    client = add_views(app).test_client()
    client.get("/set/ann")
    given = {
        "settings": settings,
        "setup": ROWS["redis"].legacy,
        "where": row.where,
        "visits": [["/get", client.get_cookie("session").value]],
    }
    code = Path(legacy.__file__).read_text()
    [[text, _]] = json.loads(run_python(predecessor(name), code, input=json.dumps(given)))
    assert ("ann" in text) is reads
