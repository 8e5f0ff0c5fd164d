"""Pickles that run code when pickle.loads reads them, of every shape that is known for it, and
10,000 mutations of them: our reader runs nothing and imports nothing.

"Runs nothing" is what the interpreter itself says: an audit hook hears of every import, open file,
process, exec, look-up of a pickled class and so on. It must hear nothing while a value is read.
"""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import random
import struct
import sys
import time
import uuid

import flask
import pytest
from flask_session import Session, _core

from tests.python.apps import legacy

# ---- the ear ------------------------------------------------------------------------------------

heard: list[str] = []
listening = False


def hook(event, args):
    if listening:
        heard.append(event)


sys.addaudithook(hook)


def decode(value):
    """(what decode made of it or None, the audit events meanwhile)"""
    global listening
    heard.clear()
    listening = True
    try:
        made = _core.decode(value)
    except ValueError:
        made = None
    finally:
        listening = False
    return made, list(heard)


# ---- shapes -------------------------------------------------------------------------------------


def call(module, name, *args, protocol=0):
    """module.name(*args) by GLOBAL and REDUCE."""
    packed = b"".join(pickle.dumps(arg, 0)[:-1] for arg in args)
    return f"c{module}\n{name}\n(".encode() + packed + b"tR"


def within(code):
    """The session {"user": <what code leaves>}."""
    return b"}(Vuser\n" + code + b"u."


def text(value):
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def stack_global(module, name):
    return text(module) + text(name) + b"\x93"


class Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


COMMAND = "touch never"
CALLS = {
    "os.system": ("os", "system", COMMAND),
    "posix.system": ("posix", "system", COMMAND),
    "nt.system": ("nt", "system", COMMAND),
    "os.popen": ("os", "popen", COMMAND),
    "os.execl": ("os", "execl", "/bin/true", "true"),
    "os.spawnl": ("os", "spawnl", 0, "/bin/true", "true"),
    "os.mknod": ("os", "mknod", "never"),
    "pty.spawn": ("pty", "spawn", "/bin/true"),
    "subprocess.Popen": ("subprocess", "Popen", ["true"]),
    "subprocess.check_output": ("subprocess", "check_output", ["true"]),
    "subprocess.getoutput": ("subprocess", "getoutput", "true"),
    "eval": ("builtins", "eval", "open('never', 'w')"),
    "exec": ("builtins", "exec", "open('never', 'w')"),
    "exec of Python 2": ("__builtin__", "execfile", "never"),
    "eval of Python 2": ("__builtin__", "eval", "open('never', 'w')"),
    "compile": ("builtins", "compile", "1", "x", "exec"),
    "__import__": ("builtins", "__import__", "antigravity"),
    "open": ("builtins", "open", "never", "w"),
    "io.open": ("io", "open", "never", "w"),
    "getattr": ("builtins", "getattr", {}, "clear"),
    "setattr": ("builtins", "setattr", 1, "x", 1),
    "breakpoint": ("builtins", "breakpoint"),
    "input": ("builtins", "input"),
    "type": ("builtins", "type", "X", (), {}),
    "importlib": ("importlib", "import_module", "antigravity"),
    "runpy": ("runpy", "run_module", "antigravity"),
    "webbrowser": ("webbrowser", "open", "http://127.0.0.1:1/"),
    "urllib": ("urllib.request", "urlopen", "http://127.0.0.1:1/"),
    "socket": ("socket", "create_connection", ("127.0.0.1", 1)),
    "shutil.rmtree": ("shutil", "rmtree", "never"),
    "pathlib": ("pathlib", "PosixPath", "never"),
    "ctypes": ("ctypes", "CDLL", "libc.so.6"),
    "marshal": ("marshal", "loads", b"\xe3"),
    "pickle.loads": ("pickle", "loads", b"cos\nsystem\n(Vtouch never\ntR."),
    "timeit": ("timeit", "timeit", "open('never', 'w')"),
    "code": ("code", "interact"),
    "pdb": ("pdb", "run", "open('never', 'w')"),
    "cProfile": ("cProfile", "run", "open('never', 'w')"),
    "doctest": ("doctest", "debug_script", "open('never', 'w')"),
    "pip": ("pip", "main", ["download", "x"]),
    "attrgetter": ("operator", "attrgetter", "system"),
    "methodcaller": ("operator", "methodcaller", "clear"),
    "partial": ("functools", "partial", 1),
    "weakref": ("weakref", "finalize", 1, 2),
    "logging": ("logging.config", "listen"),
    "codec by name": ("_codecs", "encode", "text", "antigravity"),
    "codec that unpacks": ("_codecs", "encode", "text", "zlib"),
    "decode": ("_codecs", "decode", b"text", "antigravity"),
    "lookup": ("_codecs", "lookup", "antigravity"),
    "help of a plain type": ("builtins", "dict.fromkeys", "abc"),
    "method of a plain type": ("builtins", "str.format", "{0.__class__}", 1),
    "now": ("datetime", "datetime.now"),
    "strptime": ("datetime", "datetime.strptime", "2024", "%Y"),
    "uuid1": ("uuid", "uuid1"),
    "getcontext": ("decimal", "getcontext"),
    "Markup.format": ("markupsafe", "Markup.format_map", "x", {}),
    "namedtuple": ("collections", "namedtuple", "X", "a b"),
    "defaultdict": ("collections", "defaultdict", None),
    "Counter": ("collections", "Counter", "abc"),
    "ChainMap": ("collections", "ChainMap"),
    "our own": ("flask_session._core", "decode", b"x"),
    "flask": ("flask", "Flask", "x"),
}
OTHERS = {
    "INST": b"}(Vuser\n(Vtouch never\nios\nsystem\nu.",
    "OBJ": b"}(Vuser\n(cos\nsystem\nVtouch never\nou.",
    "NEWOBJ": b"\x80\x02}(X\x04\x00\x00\x00usercsubprocess\nPopen\n(Vtrue\nt\x81u.",
    "NEWOBJ_EX": b"\x80\x04}(\x8c\x04user" + stack_global("subprocess", "Popen") + b")}\x92u.",
    "STACK_GLOBAL": b"\x80\x04}(\x8c\x04user"
    + stack_global("os", "system") + text("x") + b"\x85Ru.",
    "STACK_GLOBAL by memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94"
    + b"}(\x8c\x04userh\x00h\x01\x93u.",
    "STACK_GLOBAL of a part": b"\x80\x04}(\x8c\x04user" + stack_global("os", "path.join") + b"u.",
    "EXT1": b"\x80\x02}(X\x04\x00\x00\x00user\x82\x01u.",
    "EXT2": b"\x80\x02}(X\x04\x00\x00\x00user\x83\x01\x00u.",
    "EXT4": b"\x80\x02}(X\x04\x00\x00\x00user\x84\x01\x00\x00\x00u.",
    "PERSID": b"}(Vuser\nPsomething\nu.",
    "BINPERSID": b"}(Vuser\nVsomething\nQu.",
    "NEXT_BUFFER": b"\x80\x05}(\x8c\x04user\x97u.",
    "READONLY_BUFFER": b"\x80\x05}(\x8c\x04user\x97\x98u.",
    "BUILD": within(b"ccollections\nOrderedDict\n)R}(V__class__\ncos\nsystem\nub"),
    "BUILD of a class": within(b"cdatetime\ndatetime\n}(Vnow\ncos\nsystem\nub"),
    "BUILD with slots": within(b"cuuid\nUUID\n)\x81N}(V__dict__\nNu\x86b"),
    "REDUCE of what was made": within(b"cdatetime\ntimedelta\n(I1\ntR(tR"),
    "REDUCE of a dict": within(b"}(tR"),
    "a time zone that acts": within(
        b"cdatetime\ndatetime\n(C\x0a\x07\xe8\x01\x01\x00\x00\x00\x00\x00\x00cos\nsystem\ntR"
    ),
    "_reconstructor": within(b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR"),
    "copyreg.add_extension": within(call("copyreg", "add_extension", "os", "system", 1)),
    "APPENDS to what acts": within(b"cos\nenviron\n(Va\ne"),
    "SETITEM to what acts": within(b"cos\nenviron\nVa\nVb\ns"),
    "ADDITEMS to what acts": b"\x80\x04}(\x8c\x04user"
    + stack_global("os", "environ") + b"(K\x01\x90u.",
    "a list that maps": within(b"c__builtin__\nmap\n(cos\nsystem\n(Vtouch never\nltR"),
    "first of all": b"cos\nsystem\n(Vtouch never\ntR0}.",
    "last of all": b"}cos\nsystem\n(Vtouch never\ntR0.",
    "then garbage": b"cos\nsystem\n(Vtouch never\ntR\xff\xff",
    "as a key": b"}(cos\nsystem\n(Vtouch never\ntRNu.",
    "instead of a dict": call("os", "system", COMMAND) + b".",
    "a frame around it": b"\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00"
    + b"}(\x8c\x04user" + stack_global("os", "system") + text("x") + b"\x85Ru.",
    "by Python's own pickler": pickle.dumps({"user": Reduced(print, ("x",))}),
    "with a state": pickle.dumps({"user": Reduced(print, ("x",), {"a": 1})}),
    "with items": pickle.dumps({"user": Reduced(dict, (), None, iter([1]), iter([(1, 2)]))}),
}  # fmt: skip
SHAPES = {name: within(call(*what)) for name, what in CALLS.items()} | OTHERS
PLAIN = [pickle.dumps(legacy.VALUES, protocol) for protocol in range(6)]


def test_there_are_enough():
    assert len(SHAPES) >= 30
    assert len(set(SHAPES.values())) == len(SHAPES)


def test_the_ear_hears():
    global listening
    for name in ("uuid1", "partial", "pathlib", "marshal", "lookup"):
        heard.clear()
        listening = True
        try:
            pickle.loads(SHAPES[name])
        except Exception:
            pass
        finally:
            listening = False
        assert "pickle.find_class" in heard


@pytest.mark.parametrize("name", SHAPES)
def test_shape_is_refused(name):
    assert decode(SHAPES[name]) == (None, [])


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_read(protocol):
    made, events = decode(PLAIN[protocol])
    assert legacy.show(made) == legacy.show(legacy.VALUES)
    assert events == []


# ---- mutations ----------------------------------------------------------------------------------

OPCODES = bytes(op.code.encode("latin-1")[0] for op in pickletools.opcodes)


def mutant(generator, sources):
    value = bytearray(generator.choice(sources))
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(value) + 1)
        kind = generator.randrange(6)
        if kind == 0 and at < len(value):
            value[at] ^= 1 << generator.randrange(8)
        elif kind == 1 and at < len(value):
            value[at] = generator.choice(OPCODES)
        elif kind == 2:
            value[at:at] = bytes([generator.choice(OPCODES)])
        elif kind == 3:
            del value[at : at + generator.randint(1, 8)]
        elif kind == 4:
            other = generator.choice(sources)
            start = generator.randrange(len(other))
            value[at:at] = other[start : start + generator.randint(1, 40)]
        else:
            value[at:] = generator.choice(sources)[at:]
        if not value:
            value += b"."
    return bytes(value)


def test_ten_thousand_mutants_run_nothing(long_run):
    generator = random.Random(20241)
    sources = [*SHAPES.values(), *PLAIN, *PLAIN]
    read = 0
    for _ in range(100_000 if long_run else 10_000):
        value = mutant(generator, sources)
        made, events = decode(value)
        assert events == [], value
        assert made is None or type(made) is dict
        read += made is not None
    assert read > 10  # some are still what they were


# ---- from the stores ----------------------------------------------------------------------------


def make_app(**settings):
    app = flask.Flask(__name__)
    app.config.update(settings)
    app.testing = True
    Session(app)
    legacy.add_views(app)
    return app


def file_of_cachelib(folder, key, value):
    """As FileSystemCache leaves it."""
    folder.mkdir(exist_ok=True)
    path = folder / hashlib.md5(key.encode()).hexdigest()
    path.write_bytes(struct.pack("I", int(time.time()) + 3600) + value)
    path.chmod(0o600)


def visit_all(app, put):
    """Visitors whose records are these, and as many mutants."""
    generator = random.Random(7)
    values = [*SHAPES.values()]
    values += [mutant(generator, values) for _ in range(len(values))]
    for number, value in enumerate(values):
        sid = f"{number:032}"
        put(sid, value)
        answer, _ = legacy.visit(app, "/get", sid)
        made, _ = decode(value)
        expected = {key: item for key, item in (made or {}).items() if key != "_permanent"}
        assert answer == legacy.show({str(key): item for key, item in expected.items()})
    assert app.extensions["flask_session"].stats()["events"]["rejected"] >= len(SHAPES)


def test_in_a_directory_of_the_predecessor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sessions"
    app = make_app(SESSION_TYPE="filesystem", SESSION_FILE_DIR=str(folder))
    visit_all(app, lambda sid, value: file_of_cachelib(folder, f"session:{sid}", value))
    assert not (tmp_path / "never").exists()


@pytest.mark.server
def test_in_redis(redis_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    redis = pytest.importorskip("redis")
    client = redis.Redis.from_url(redis_server.url, socket_timeout=10)
    prefix = f"gadgets-{uuid.uuid4()}:"
    app = make_app(SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_KEY_PREFIX=prefix)
    visit_all(app, lambda sid, value: client.set(prefix + sid, value, ex=3600))
    assert not (tmp_path / "never").exists()
