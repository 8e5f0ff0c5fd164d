"""Names, types and what an import brings in."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import flask_session
import pytest
from flask.sessions import SessionInterface, SessionMixin
from flask_session import (
    _core,
    base,
    cachelib,
    contract,
    filesystem,
    legacy,
    memory,
    null,
    redis,
    sqlite,
)

ROOT = Path(__file__).parents[2]
PACKAGE = Path(flask_session.__file__).parent


def test_public_names():
    for name in flask_session.__all__:
        assert getattr(flask_session, name) is not None
    assert sorted(flask_session.__all__) == sorted(set(flask_session.__all__))


def test_one_version():
    project = (ROOT / "pyproject.toml").read_text()
    build = (ROOT / "meson.build").read_text()
    version = re.search(r'^version = "([^"]+)"', project, re.MULTILINE).group(1)
    assert flask_session.__version__ == version
    assert version == _core.VERSION
    assert re.search(r"^  version: '([^']+)'", build, re.MULTILINE).group(1) == version


def test_exceptions():
    assert flask_session.SessionStoreError.__mro__[1] is Exception
    assert flask_session.SessionConflict.__base__ is flask_session.SessionStoreError
    assert flask_session.SessionConfigError.__base__ is ValueError


@pytest.mark.parametrize(
    "session_class",
    [
        memory.MemorySession,
        redis.RedisSession,
        sqlite.SqliteSession,
        filesystem.FileSystemSession,
        cachelib.CacheLibSession,
    ],
)
def test_session_classes(session_class):
    assert issubclass(session_class, base.ServerSideSession)
    assert issubclass(session_class, dict)
    assert issubclass(session_class, SessionMixin)
    session = session_class({"a": 1}, sid="x" * 16, permanent=True)
    assert dict(session) == {"a": 1, "_permanent": True}
    assert session.sid == "x" * 16
    assert session.permanent is True
    session.clear()
    assert dict(session) == {"_permanent": True}
    assert not session


@pytest.mark.parametrize(
    "interface_class",
    [
        memory.MemorySessionInterface,
        redis.RedisSessionInterface,
        sqlite.SqliteSessionInterface,
        filesystem.FileSystemSessionInterface,
        cachelib.CacheLibSessionInterface,
    ],
)
def test_interface_classes(interface_class):
    assert issubclass(interface_class, base.ServerSideSessionInterface)
    assert issubclass(interface_class, SessionInterface)
    # What runs in every request is the extension's.
    for name in ("open_session", "save_session", "is_null_session", "regenerate"):
        assert getattr(interface_class, name) is getattr(_core.Interface, name)


def test_null_interface_is_exported():
    assert flask_session.NullSessionInterface is null.NullSessionInterface


def test_adapters_keep_the_contract():
    interface = memory.MemorySessionInterface()
    for adapter in (redis.RedisStore(None), legacy.LegacyStore(interface)):
        assert isinstance(adapter, contract.Adapter)
    assert redis.RedisStore(None).capabilities & _core.CAP_ATOMIC
    assert not legacy.LegacyStore(interface).capabilities & _core.CAP_ATOMIC


def test_serializer_writes_what_is_stored():
    serializer = base.MsgSpecSerializer()
    assert isinstance(serializer, base.Serializer)
    assert serializer.decode(serializer.encode({"a": (1, 2)})) == {"a": (1, 2)}
    with pytest.raises(ValueError):
        serializer.decode(b"\xc1")


def test_marked_as_typed():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def test_stubs_name_what_the_extension_has():
    tree = ast.parse((ROOT / "python/flask_session/_core.pyi").read_text())
    described = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            described[node.name] = {
                getattr(item, "name", None) or item.target.id
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AnnAssign)
            }
        elif isinstance(node, ast.FunctionDef):
            described[node.name] = set()
        elif isinstance(node, ast.AnnAssign):
            described[node.target.id] = set()
    described.pop("_Events")
    assert set(described) == {name for name in vars(_core) if not name.startswith("__")}
    inherited = {"__init__"}
    for name in ("Interface", "Store"):
        has = {item for item in vars(getattr(_core, name)) if not item.startswith("__")}
        assert described[name] - inherited == has
    own = {item for item in vars(_core.Session) if not hasattr(dict, item)}
    assert described["Session"] - inherited == {item for item in own if not item.startswith("__")}


def test_import_brings_no_client_library():
    code = (
        "import sys, flask_session\n"
        "import flask_session.sessions, flask_session.sqlite, flask_session.cachelib\n"
        "print(sorted({'redis', 'sqlite3', 'msgspec', 'cachelib', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before = subprocess.run(
        [sys.executable, "-c", "import sys, flask; print(sorted({'asyncio'} & set(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == before.stdout
