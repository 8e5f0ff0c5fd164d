"""What type checkers make of the public interface: typing_sample.py uses all of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import flask_session
import pytest

from tests.services import Unavailable, venvs
from tests.services.base import clean_environment

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(__file__).parent / "typing_sample.py"

# A mistake that a checker must find, or it checks nothing.
WRONG = """
from flask_session import Session, RedisSessionInterface
from flask_session.filesystem import FileSystemSessionInterface
Session(5)
RedisSessionInterface(use_signer="no")
FileSystemSessionInterface(threshold="500")
FileSystemSessionInterface().cache.get(5)
FileSystemSessionInterface().nothing
"""


def test_the_sample_uses_every_public_name():
    used = {node.id for node in ast.walk(ast.parse(SAMPLE.read_text())) if type(node) is ast.Name}
    missing = {name for name in flask_session.__all__ if not name.startswith("__")} - used
    assert missing == set()


def run(*command, env=None):
    environment = clean_environment(env)
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def mypy(tmp_path, not_run):
    pytest.importorskip("mypy")

    def check(path):
        return run(
            sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--no-color-output",
            "--cache-dir", str(tmp_path / "mypy"), str(path), env={"MYPYPATH": "python"},
        )  # fmt: skip

    return check


@pytest.mark.process
def test_mypy(mypy, tmp_path):
    done = mypy(SAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    assert mypy(wrong).stdout.count("error:") == 5


@pytest.fixture
def pyright(tmp_path, not_run):
    try:
        python = venvs.python("pyright")
    except Unavailable as reason:
        not_run(reason)

    def check(path):
        folder = tmp_path / path.stem
        folder.mkdir()
        (folder / "checked.py").write_text(path.read_text())
        settings = folder / "pyrightconfig.json"
        settings.write_text(
            json.dumps(
                {
                    "extraPaths": [str(ROOT / "python")],
                    "reportMissingModuleSource": False,  # the extension is only built elsewhere
                }
            )
        )
        done = run(
            python, "-m", "pyright", "--outputjson", "--project", str(folder),
            "--pythonpath", sys.executable, env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        )  # fmt: skip
        try:
            return json.loads(done.stdout)
        except ValueError:
            not_run(f"pyright does not run here: {(done.stdout + done.stderr).strip()[-300:]}")

    return check


@pytest.mark.process
def test_pyright(pyright, tmp_path):
    found = pyright(SAMPLE)
    assert found["summary"]["filesAnalyzed"] == 1
    assert found["generalDiagnostics"] == []
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    errors = [item for item in pyright(wrong)["generalDiagnostics"] if item["severity"] == "error"]
    assert {item["range"]["start"]["line"] for item in errors} == {3, 4, 5, 6, 7}
