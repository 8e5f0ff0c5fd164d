"""Every allocation that CPython makes for the extension fails once: the answer is MemoryError or
the right one, nothing crashes, and what is used afterwards is whole.

The allocators are those of this thread (apps/nomemory.c, compiled here); the C library's own seam
is exhausted by the C tests.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import importlib.util
import shlex
import subprocess
import sys
import sysconfig
import traceback
import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import flask_session
import pytest
from flask_session import Session, SessionStoreError, _core
from flask_session.memory import MemorySession, MemorySessionInterface
from markupsafe import Markup

from tests.python import apps

VALUES: dict[Any, Any] = {
    "numbers": [0, -1, 2**40, 2**100, 1.5, True, None],
    "text": "Zo\u00eb \U0001f600" * 20,
    "bytes": b"\x00\xff" * 40,
    "byte array": bytearray(b"abc"),
    "tuple": (1, ("a", (2.5,))),
    "sets": [{1, 2}, frozenset({"a"})],
    "moments": [
        dt.datetime(2024, 2, 29, 12),
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc),
        dt.date(2024, 2, 29),
        dt.time(23, 59),
        dt.timedelta(days=-1, microseconds=7),
    ],
    "decimal": decimal.Decimal("1.50"),
    "uuid": uuid.UUID(int=5),
    "markup": Markup("<b>x</b>"),
    "complex": 1 + 2j,
    "ordered": OrderedDict(b=1, a=2),
    "keys": {1: "a", (1, 2): "b", 2.5: "c", None: "d"},
}


@pytest.fixture(scope="module")
def nomemory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = Path(apps.__path__[0]) / "nomemory.c"
    target = (
        tmp_path_factory.mktemp("nomemory") / f"nomemory{sysconfig.get_config_var('EXT_SUFFIX')}"
    )
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    include = sysconfig.get_path("include")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}",
         str(source), "-o", str(target)],
        check=True,
    )  # fmt: skip
    spec = importlib.util.spec_from_file_location("nomemory", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge(error: BaseException) -> None:
    """Fail unless this is what may come of a failed allocation."""
    if isinstance(error, SessionStoreError):
        cause = error.__cause__ or error.__context__
        assert isinstance(cause, MemoryError) or "memory" in str(error), repr(error)
    elif isinstance(error, SystemError):
        # CPython's own interpreter loses exceptions here and there. An extension that did would
        # be seen from the test's frame.
        frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
        assert frame.f_code.co_filename != __file__, repr(error)
    else:
        assert isinstance(error, MemoryError), repr(error)


def exhaust(
    nomemory: Any,
    work: Callable[[], Any],
    check: Callable[[], Any] = lambda: None,
    failures: int = 1,
) -> int:
    """Let the first, the second, ... allocation of work() fail, until none does; how many there
    were. check() runs after each."""
    work()  # what is made once is there
    for successes in range(100_000):
        nomemory.start(successes, failures)
        problem: Exception | None = None
        try:
            work()
        except Exception as error:
            problem = error
        finally:
            seen, left = nomemory.stop()
        if problem is not None:
            judge(problem)
        check()
        if left == failures:
            assert problem is None
            return seen
    raise AssertionError("it never ends")


# ---- the codec -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [_core.encode, _core.encode_json], ids=["msgpack", "json"])
@pytest.mark.parametrize("part", list(VALUES), ids=str)
def test_codec(nomemory, encode, part):
    data = {part: VALUES[part]}
    value = encode(data)
    again: list[Any] = []

    def work():
        again.append(encode(data))
        again.append(_core.decode(value))

    def check():
        assert all(one in (value, data) for one in again)
        again.clear()

    assert exhaust(nomemory, work, check) > 0


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_views(nomemory, format):
    value = {"msgpack": _core.encode, "json": _core.encode_json}[format](VALUES)
    entries = _core.view(value, format)

    def work():
        assert _core.view(value, format) == entries
        assert _core.compose(entries, format) == value
        assert _core.canonical(value, format) == value
        assert _core.decode_checked(value, format)[1]

    assert exhaust(nomemory, work) > 0


def test_flattened_values(nomemory):
    import dataclasses
    import enum

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        y: Any

    data = {"colour": Colour.RED, "point": Point(1, [Point(2, {"a": Colour.RED})])}
    with pytest.warns(UserWarning, match="point"):
        value = _core.encode(data)

    def work():
        assert _core.encode(data) == value

    assert exhaust(nomemory, work) > 0


def test_refused_values(nomemory):
    def work():
        with contextlib.suppress(TypeError):
            _core.encode({"a": [{"b": object()}]})

    assert exhaust(nomemory, work) > 0


# ---- sessions ------------------------------------------------------------------------------------


def test_a_session_as_a_dict(nomemory):
    def work():
        made = MemorySession({"a": 1, "b": [2]}, sid="s" * 20, permanent=True)
        made["c"] = 3
        made.update(d=4)
        made.setdefault("e", []).append(5)
        assert made.get("a") == 1
        assert made.pop("b") == [2]
        assert list(made) == ["_permanent", "a", "c", "d", "e"] or len(made) == 5
        assert made | {"x": 1} == {**made, "x": 1}
        assert "c" in made.copy()
        repr(made)
        del made["c"]
        made.popitem()
        made.clear()
        assert made.permanent

    assert exhaust(nomemory, work) > 0


# ---- stores --------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "filesystem", "adapter"])
def store(request, tmp_path):
    if request.param == "adapter":
        return _core.Store.wrap(DictAdapter())
    path = {"sqlite": tmp_path / "file", "filesystem": tmp_path / "folder"}.get(request.param)
    return _core.Store.open(request.param, {"path": str(path)} if path else {})


class DictAdapter:
    """An adapter over a dict, without expiry."""

    name = "dict"
    capabilities = _core.CAP_ATOMIC | _core.CAP_LISTABLE

    def __init__(self):
        self.values = {}

    def load(self, key, timeout):
        return (self.values[key], b"v", None) if key in self.values else None

    def create(self, key, value, ttl_ms, timeout):
        return self.values.setdefault(key, value) is value

    def replace(self, key, expected, version, value, ttl_ms, timeout):
        if key not in self.values:
            return _core.GONE
        if self.values[key] != expected:
            return self.values[key], b"v", None
        self.values[key] = value
        return _core.OK

    def touch(self, key, expected, version, ttl_ms, timeout):
        if key not in self.values:
            return _core.GONE
        return _core.OK if self.values[key] == expected else _core.CHANGED

    def remove(self, key, timeout):
        self.values.pop(key, None)

    def purge(self, limit, timeout):
        return 0

    def scan(self, cursor, batch, timeout):
        return b"", [(key, value, None) for key, value in self.values.items()]


def test_store(nomemory, store):
    kept = store.prefixed("p:")
    kept.create("stays", b"here", 3_600_000)

    def work():
        kept.remove("k")
        if kept.create("k", b"one", 3_600_000):
            value, version, _ = kept.load("k")
            assert value == b"one"
            assert kept.replace("k", value, version, b"two", 3_600_000) == _core.OK
            told = kept.replace("k", b"other", b"", b"x", 3_600_000)
            assert told[0] == b"two"
            assert kept.touch("k", told[0], told[1], 3_600_000) == _core.OK
        assert kept.load("missing") is None
        assert kept.purge(5) == 0
        cursor, rows = kept.scan(b"", 100)
        assert (cursor, len(rows)) == (b"", 2)
        assert kept.counts()["load"] >= 1

    def check():
        assert kept.load("stays")[0] == b"here"
        assert kept.load("k") is None or kept.load("k")[0] in (b"one", b"two")

    assert exhaust(nomemory, work, check) > 0


# ---- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SESSION_USE_SIGNER": True, "SECRET_KEY_FALLBACKS": ["old"]},
        {"SESSION_SERIALIZATION_FORMAT": "json", "SESSION_PERMANENT": False},
    ],
    ids=["plain", "signed", "json"],
)
def test_requests(nomemory, settings):
    app = flask.Flask("nomemory", static_folder=None)
    app.config.update({"SECRET_KEY": "k", "SESSION_TYPE": "memory", **settings})
    Session(app)
    interface = app.session_interface

    def request(cookie: str | None, use: Callable[[Any], Any], successes: int = -1) -> Any:
        """One request by hand, so that what fails is not Flask's own: (what use() gave, the cookie
        that was set, failures that did not come to pass)."""
        context = app.test_request_context(
            headers={"Cookie": f"session={cookie}"} if cookie else {}
        )
        given, left = None, 1
        with context:
            response = app.response_class("x")
            if successes >= 0:
                nomemory.start(successes, 1)
            try:
                session = interface.open_session(app, context.request)
                given = use(session)
                interface.save_session(app, session, response)
            except Exception as error:
                judge(error)
                assert successes >= 0
            finally:
                if successes >= 0:
                    left = nomemory.stop()[1]
        lines = response.headers.getlist("Set-Cookie")
        return given, lines[0][8:].partition(";")[0] if lines else None, left

    def write(session):
        session["n"] = session.get("n", 0) + 1

    def append(session):
        session["list"].append(1)

    def login(session):
        session.regenerate()
        session["user"] = "ann"

    def fill(session):
        session.update(user="ann", list=[])

    def read(session):
        return session.get("user"), session.get("list")

    def receive(sender, **details):
        assert details

    with (
        flask_session.session_saved.connected_to(receive, app),
        flask_session.session_created.connected_to(receive, app),
    ):
        _, steady, _ = request(None, fill)
        for use in (read, write, append, login, dict.clear, fill):
            _, cookie, _ = request(None, fill)
            for successes in range(100_000):
                _, _, left = request(cookie, use, successes)
                # another visitor's session is what it was
                assert request(steady, read)[0] == ("ann", [])
                if request(cookie, read)[0] == (None, None):
                    _, cookie, _ = request(None, fill)
                if left:
                    break
            else:
                raise AssertionError("it never ends")


def test_configuration(nomemory):
    def work():
        interface = MemorySessionInterface()
        assert interface._store.load("x") is None
        assert interface.sid_length == 32

    exhaust(nomemory, work)


def test_import(nomemory, run_python, python):
    """The module itself, in a process of its own: its start may fail, and no more."""
    code = """
import sys, importlib
sys.path[:0] = sys.argv[1:3]
import nomemory, flask_session
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
path = flask_session._core.__file__
failed = 0
for successes in range(20000):
    loader = ExtensionFileLoader("flask_session._core", path)
    spec = spec_from_loader("flask_session._core", loader)
    nomemory.start(successes, 1)
    try:
        module = module_from_spec(spec)
        loader.exec_module(module)
    except MemoryError:
        failed += 1
    except (SystemError, ImportError):  # CPython's own words for it, in other places
        failed += 1
    finally:
        seen, left = nomemory.stop()
    if left:
        break
assert module.encode({"a": 1}) and failed > 50, failed
print("done")
"""
    where = str(Path(nomemory.__file__).parent)
    site = str(Path(flask_session.__file__).parents[1])
    assert sys.executable
    assert run_python(python, code, where, site, cession=True).strip() == "done"
