"""Every allocation of the extension, CPython's and its C library's, fails once: the answer is
MemoryError or the right one, nothing crashes, and what is used afterwards is whole.

The allocators are those of this thread (apps/nomemory.c, compiled here).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime as dt
import decimal
import gc
import importlib.util
import json
import pickle
import shlex
import subprocess
import sys
import sysconfig
import traceback
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import flask
import flask_session
import pytest
from flask_session import Session, SessionStoreError, _core
from flask_session.base import MsgSpecSerializer
from flask_session.memory import MemorySession, MemorySessionInterface
from markupsafe import Markup

from tests.python import apps

# CPython tells of an exception with no object to name where its own interpreter has lost one: in
# the warnings module, say, while a test changes its filters.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"
)

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
    assert module.include(_core.__file__)
    return module


@pytest.fixture(scope="module")
def survivor(nomemory: Any, not_run: Callable[[str], Any]) -> Callable[[str, str], None]:
    """survivor(what, code): NOT RUN where CPython by itself does not survive that every allocation
    of the code's work() fails once."""
    loop = """
import sys
sys.path.insert(0, sys.argv[1])
import nomemory
{code}
for successes in range(500):
    try:
        nomemory.start(successes, 1)
        work()
    except MemoryError:
        pass
    finally:
        nomemory.stop()
"""

    def check(what: str, code: str) -> None:
        where = str(Path(nomemory.__file__).parent)
        command = [sys.executable, "-c", loop.format(code=code), where]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            version = sys.version.split()[0]
            not_run(f"{what} of CPython {version} breaks by itself when memory is short")

    return check


@pytest.fixture(scope="module")
def growing_dicts(survivor: Callable[[str, str], None]) -> None:
    """3.13.0 goes on with a dict that could not grow, and writes past its end (types and modules
    are filled by the same function)."""
    code = """
def work():
    grown = {}
    for key in "abcdefghijklmnopqrstuvwxyz":
        grown.setdefault(key, [])
"""
    survivor("dict.setdefault()", code)


@pytest.fixture(scope="module")
def new_functions(survivor: Callable[[str, str], None]) -> None:
    """3.12.1 frees what it has not set where there is no memory for a function object, as in
    dataclasses.fields()."""
    code = """
import dataclasses
@dataclasses.dataclass
class Point:
    x: int
def work():
    for _ in range(20):
        dataclasses.fields(Point)
"""
    survivor("dataclasses.fields()", code)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """What other tests left is thrown away before, and not, by code that nobody looks at, while
    nothing can be had."""
    gc.collect()


def judge(error: BaseException) -> None:
    """Fail unless this is what may come of a failed allocation."""
    if isinstance(error, SessionStoreError):
        cause = error.__cause__ or error.__context__
        assert isinstance(cause, MemoryError) or "memory" in str(error), repr(error)
    elif sys.version_info < (3, 11) and str(error).startswith("_PyEval_EvalFrameDefault returned"):
        # CPython 3.10 gives a code object its cache at the 1,024th call, and says nothing when
        # there is no memory for it (_PyCode_InitOpcache).
        assert isinstance(error, SystemError)
    elif isinstance(error, (SystemError, AttributeError)):
        # CPython's own interpreter loses exceptions here and there, or finds no attribute. An
        # extension that did would be seen from the test's frame.
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

    format = "json" if encode is _core.encode_json else "msgpack"

    def work():
        again.append(encode(data))
        again.append(_core.decode(value))
        again.append(_core.canonical(value, format))

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


def test_flattened_values(nomemory, growing_dicts, new_functions):
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

    unseen: list[Any] = []

    def renew():
        unseen[:] = [type("Unseen", (Pair,), {})((1, 2))]

    def work():
        assert _core.encode(data) == value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _core.encode({"new": {"deep": unseen}, "names": Names(), "pair": Pair((1, 2))})
            _core.encode({Colour.RED: {Pair((1, 2)): {Pair((3, 4))}}, "when": WHEN})
        with contextlib.suppress(TypeError):
            _core.encode(data, strict=True)

    renew()  # a type that was not seen yet is warned about
    assert exhaust(nomemory, work, renew) > 0


class Names(dict):
    """With items of its own."""

    def __init__(self):
        super().__init__(a=1)

    def items(self):
        return [("b", 2), ("c", [3])]


class Pair(tuple):
    __slots__ = ()


class Zone(dt.tzinfo):
    def utcoffset(self, moment):
        return dt.timedelta(hours=2)

    def dst(self, moment):
        return dt.timedelta(0)


WHEN = dt.datetime(2024, 2, 29, tzinfo=Zone())


@pytest.mark.parametrize("encode", [_core.encode, _core.encode_json], ids=["msgpack", "json"])
def test_refused_values(nomemory, encode):
    def work():
        for refused in (
            {"a": [{"b": object()}]},
            {"a": "\ud800"},
            {"a" * 200: {(1, 2): {object()}}},
            {"a": [nested(200)]},
        ):
            with contextlib.suppress(TypeError, ValueError):
                encode(refused, strict=True)
        for refused in (b"\xc1", b"{", b"\x81", b"\x80\x04."):
            with contextlib.suppress(ValueError):
                _core.decode(refused)

    assert exhaust(nomemory, work) > 0


def nested(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize("encode", [_core.encode, _core.encode_json], ids=["msgpack", "json"])
def test_large_values(nomemory, encode):
    """The buffers of the codec grow at every kind of value."""
    values = [*VALUES.values(), -5, -(2**20), -(2**40), 2**60, -(2**70), "x", b"x", (), [], {}]
    values += [dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))]
    for length in (0, 1, 7, 20, 40, 60):
        for value in values:
            data = {"pad": "x" * (length + 64 - len("pad") - 5), "value": value, "after": [value]}
            expected = encode(data)

            def work(data=data, expected=expected):
                assert encode(data) == expected

            exhaust(nomemory, work)


PICKLED = {
    key: value
    for key, value in VALUES.items()
    if key not in ("markup", "complex", "ordered", "decimal", "uuid", "byte array")
}


@pytest.mark.parametrize("protocol", range(6))
def test_pickles(nomemory, protocol):
    value = pickle.dumps(PICKLED, protocol)
    expected = _core.decode(value)
    assert expected == PICKLED

    def work():
        assert _core.decode(value) == expected
        made = _core.canonical(value, "msgpack")
        assert _core.decode(made) == expected

    assert exhaust(nomemory, work) > 0


def test_json_of_others(nomemory):
    value = json.dumps(
        {"a": [1, -5, 2.5, 1e300, 10**30, "\u00e9\n\ud83d\ude00", None, True], "b": {"c": {}}}
    ).encode()
    expected = _core.decode(value)

    def work():
        assert _core.decode(value) == expected
        assert _core.view(_core.canonical(value, "json"), "json")

    assert exhaust(nomemory, work) > 0


# ---- sessions ------------------------------------------------------------------------------------


def test_a_session_as_a_dict(nomemory, growing_dicts):
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
        made.update({"f": 1}, g=2, h=3, i=4, j=5)
        made.clear()
        assert made.permanent
        made.permanent = False
        made |= {"k": 1}
        assert list(reversed(made))
        assert len(made.keys()) == len(made.values()) == len(made.items())
        assert copy.copy(made) == made
        assert made.sid == "s" * 20
        made.sid = "t" * 20
        with contextlib.suppress(TypeError):
            made.get()

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
        # Not items(): CPython 3.11 crashes where the iterator of those finds no memory.
        return b"", [(key, self.values[key], None) for key in self.values]


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
        assert kept.capabilities
        assert kept.name
        with contextlib.suppress(ValueError):  # an adapter has no such thing
            kept.maintain()

    def check():
        assert kept.load("stays")[0] == b"here"
        assert kept.load("k") is None or kept.load("k")[0] in (b"one", b"two")

    assert exhaust(nomemory, work, check) > 0


def refused(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except (TypeError, ValueError, SessionStoreError):
        return
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize("kind", ["memory", "sqlite", "filesystem", "adapter"])
def test_stores_are_made(nomemory, tmp_path, kind):
    def make():
        if kind == "adapter":
            return _core.Store.wrap(DictAdapter())
        if kind == "memory":
            return _core.Store.open_url("memory:")
        return _core.Store.open(kind, {"path": str(tmp_path / kind)})

    other, options = object(), {"a": "b"}

    def work():
        store = make()
        made = store.prefixed("p:")
        assert made.load("k") is None
        made.close()
        refused(_core.Store.wrap, other)
        refused(_core.Store.open, "unknown", options)
        refused(made.load, "k")
        refused(made.purge, 0)

    assert exhaust(nomemory, work) > 0


@pytest.mark.parametrize("kind", ["memory", "adapter"])
def test_stores_that_move(nomemory, kind):
    def make():
        return (
            _core.Store.wrap(DictAdapter())
            if kind == "adapter"
            else _core.Store.open_url("memory:")
        )

    def work():
        fresh, old = make(), make()
        assert old.create("k", b"v", 3_600_000)
        assert fresh.moves() is None
        both = fresh.migrating(old, 3_600_000)
        refused(make().migrating, both, 3_600_000)
        refused(make().migrating, make(), 0)
        refused(fresh.migrating, both, 3_600_000)
        assert both.load("k")[0] == b"v"
        moves = both.moves()
        assert (moves["store"], moves["moved"], moves["operations"]["load"]) == (old_name, 1, 1)
        both.remove("k")
        assert both.load("k") is None
        both.close()

    old_name = make().name
    assert exhaust(nomemory, work) > 0


@pytest.mark.parametrize("operation", ["load", "create", "replace", "touch", "purge", "scan"])
def test_answers_of_adapters(nomemory, operation):
    class Wrong(DictAdapter):
        pass

    stores = [_core.Store.wrap(Wrong())]
    arguments = {
        "load": ("k",),
        "create": ("k", b"v", 1000),
        "replace": ("k", b"v", b"", b"w", 1000),
        "touch": ("k", b"v", b"", 1000),
        "purge": (5,),
        "scan": (b"", 5),
    }[operation]

    def work():
        try:
            getattr(stores[0], operation)(*arguments)
        except SessionStoreError as error:
            if isinstance(error.__cause__, TypeError):
                return
            raise
        raise AssertionError("nothing was refused")

    def renew():  # one that failed too often is left alone
        stores[:] = [_core.Store.wrap(Wrong())]

    setattr(Wrong, operation, lambda self, *args: object())
    assert exhaust(nomemory, work, renew) > 0


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
                nomemory.start(successes, 1, False)
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


def test_all_of_a_configuration(nomemory):
    class Events:
        signals: ClassVar[dict[str, Any]] = {}

    class Bare(_core.Interface):
        serializer: Any

    def work():
        made = Bare()
        made._configure(
            store=_core.Store.open("memory"),
            session_class=MemorySession,
            key_prefix="p:",
            permanent=False,
            use_signer=True,
            sid_length=20,
            serialization_format="json",
            touch_interval=5.5,
            conflict="raise",
            on_store_error="503",
            strict_types=True,
            timeout=1,
            lazy=True,
            events=Events,
            defaults={},
            serializer_class=MsgSpecSerializer,
        )
        made.serializer = json
        made.serializer = MsgSpecSerializer("msgpack")
        assert made._decode(made._encode({"a": 1})) == {"a": 1}
        for refused in (
            {"conflict": "x"},
            {"touch_interval": "x"},
            {"serialization_format": "x"},
            {"sid_length": 0},
            {"events": 5},
        ):
            with contextlib.suppress(TypeError, ValueError):
                _core.Interface()._configure(
                    store=_core.Store.open("memory"), session_class=MemorySession, **refused
                )

    exhaust(nomemory, work)


def test_import(nomemory, growing_dicts, run_python, python):
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
