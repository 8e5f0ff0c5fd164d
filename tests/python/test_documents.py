"""What the documents say is so: the example runs, the tables agree with the code, links lead
somewhere, and the demonstration holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask_session import config
from flask_session.defaults import Defaults

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the README, without its head."""
    section = re.split(rf"^## {heading}$", README, flags=re.MULTILINE)[1].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.process
def test_readme_example(flask_run, browser):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    server = flask_run(source=code)
    visitor = browser(server)
    assert "stranger" in visitor.get("/").text
    assert not visitor.cookies
    assert "Ada" in visitor.post("/login", {"username": "Ada"}).text
    server.restart()
    assert "Ada" in visitor.get("/").text
    assert "stranger" in browser(server).get("/").text


def test_readme_backends():
    works, not_yet = set(), set()
    for name, _, today in rows("Backends"):
        (not_yet if today.startswith("not yet") else works).update(re.findall(r"`(\w+)`", name))
    assert works == {*config.BACKENDS, "null", "custom"}
    assert not_yet == set(config.UNAVAILABLE)


def test_readme_settings():
    named = 0
    for key, default, _ in rows("Settings"):
        name = key.strip("`")
        value = getattr(Defaults, name)
        if default.startswith("`"):
            assert repr(value).replace("'", '"') == default.strip("`"), name
        elif default.endswith(" s") and default[:-2].isdigit():
            assert value == float(default[:-2]), name
        else:
            assert value is None, name  # described in words
        named += 1
    assert named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_targets(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not re.match(r"\w+:", target):
            assert (path.parent / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`(?:sudo )?make ([a-z][a-z-]*)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(
        r"`((?:tools|tests|src|ext|include|python|docs|examples)/[\w./]+)`", text
    ):
        assert (ROOT / name).exists() or "NAME" in name, name


@pytest.mark.process
def test_demonstration():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo" / "visit.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("All steps hold.\n")
