"""tools/check_floors.py finds what it is there to find."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ("include", "src", "ext", "python")
IGNORED = shutil.ignore_patterns("__pycache__", "*.so")


def copied(folder: Path) -> Path:
    for name in CHECKED:
        shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
    return folder


def findings(tree: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_floors.py"), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == (1 if lines[:-1] else 0), done.stdout + done.stderr
    return lines[:-1]


def test_the_tree_itself(tmp_path):
    assert findings(copied(tmp_path)) == []


# A file's path, what is in it, and what is said about it.
FAULTS = [
    ("src/base/x.c", '#include "store/pool.h"', "looks up or sideways"),
    ("src/session/x.c", '#include "store/pool.h"', "looks up or sideways"),
    ("src/drivers/x.c", '#include "flow/flow.h"', "looks up or sideways"),
    ("src/flow/x.c", "#include <Python.h>", "Python.h is not included here"),
    ("src/flow/x.c", "#include <sqlite3.h>", "sqlite3.h is not included here"),
    ("include/cession/x.h", '#include "base/os.h"', "a public header includes only"),
    ("include/cession/x.h", "size_t f(void);", "does not compile alone with gcc"),
    (
        "include/cession/x.h",
        "enum x { A }; static inline enum x f(void) { return 1; }",
        "does not compile alone with g++",
    ),
    ("src/base/x.c", '#include "base/alloc.h"', "the last #include must be"),
    ("src/base/x.c", 'int f(void) { return puts("x"); }', "the library does not print"),
    ("src/base/x.c", '#include "base/banned.h"', "src/base/meson.build does not build"),
    ("ext/x.c", '#include "core.h"', "ext/meson.build does not build"),
    ("python/flask_session/x.py", "x = 1", "python/meson.build does not install"),
    ("python/notes.md", "see /ro" + "ot/file", "a path of one machine"),
    ("python/notes.md", "TO" + "DO: later", "a note to self"),
    ("python/notes.md", "blank at the end ", "blank at the end of the line"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All faults in one tree, each in a file of its own."""
    tree = copied(tmp_path_factory.mktemp("faults"))
    for number, (path, text, _) in enumerate(FAULTS):
        own = tree / named(path, number)
        own.write_text(text + "\n")
    return findings(tree)


def named(path: str, number: int) -> str:
    return path.replace("/x.", f"/x{number}.").replace("/notes.", f"/notes{number}.")


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[says for _, _, says in FAULTS])
def test_a_fault_is_found(found, number):
    path, _, says = FAULTS[number]
    says = says.replace("/x.", f"/x{number}.")
    own = named(path, number)
    assert any(says in line and own in line for line in found), found
