"""Values written by Flask-Session 0.8 are read by us, and ours by it, in both formats."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import math
import pickle
import random
import uuid

import pytest
from flask_session import _core
from markupsafe import Markup

pytestmark = pytest.mark.process

ENCODE = {"msgpack": _core.encode, "json": _core.encode_json}

# Runs in the predecessor's virtualenv: pickled (format, sessions to write, values to read) in,
# pickled (values written, sessions read) out, all as hexadecimal text. Extension types that it
# does not know come out as an object of msgspec's.
PREDECESSOR = """
import pickle, sys
import flask
from flask_session.base import MsgSpecSerializer

format, to_write, to_read = pickle.loads(bytes.fromhex(sys.stdin.read()))
serializer = MsgSpecSerializer(app=flask.Flask(__name__), format=format)
written = [serializer.encode(session) for session in to_write]
read = []
for value in to_read:
    session = serializer.decode(value)
    known = lambda item: type(item).__module__ != "msgspec.msgpack"
    read.append({key: item for key, item in session.items() if known(item)})
print(pickle.dumps((written, read)).hex())
"""

TEXTS = [
    "",
    "a",
    "user_id",
    "\u00e9\u20ac\U0001f600",
    "x" * 300,
    '"\\/\b\f\n\r\t\x00\x1f\x7f\u2028',
]
INTS = [0, 1, -1, 127, 128, 255, 65536, -33, -(2**31), 2**53, 2**63 - 1, -(2**63), 2**64 - 1]
FLOATS = [0.0, -0.0, 1.5, -1e-5, 0.1, 1e15, 1e16, 1.5e300, 5e-324, 123456789.125]


def plain_value(generator: random.Random, format: str, depth: int = 0):
    kinds = ["none", "bool", "int", "float", "text"] + (["bytes"] if format == "msgpack" else [])
    if depth < 4:
        kinds += ["list", "dict"] * 2
    match generator.choice(kinds):
        case "none":
            return None
        case "bool":
            return generator.random() < 0.5
        case "int":
            return generator.choice([*INTS, generator.randint(-(2**63), 2**64 - 1)])
        case "float":
            return generator.choice([*FLOATS, generator.uniform(-1e6, 1e6)])
        case "text":
            return generator.choice(TEXTS)
        case "bytes":
            return generator.randbytes(generator.choice([0, 1, 40, 300]))
        case "list":
            return [
                plain_value(generator, format, depth + 1) for _ in range(generator.randint(0, 5))
            ]
        case _:
            return plain_session(generator, format, depth + 1)


def plain_session(generator: random.Random, format: str, depth: int = 0) -> dict:
    return {
        generator.choice([*TEXTS, str(generator.random())]): plain_value(generator, format, depth)
        for _ in range(generator.randint(0, 6))
    }


@pytest.fixture
def ask(predecessor, run_python):
    executable = predecessor("fs08")

    def ask(format: str, to_write: list, to_read: list):
        question = pickle.dumps((format, to_write, to_read)).hex()
        return pickle.loads(bytes.fromhex(run_python(executable, PREDECESSOR, input=question)))

    return ask


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_plain_values_in_both_directions(ask, format):
    generator = random.Random(8)
    sessions = [plain_session(generator, format) for _ in range(300)]
    ours = [ENCODE[format](session) for session in sessions]
    theirs, read = ask(format, sessions, ours)
    assert theirs == ours
    for session, decoded in zip(sessions, read, strict=True):
        assert repr(decoded) == repr(session)
    for session, value in zip(sessions, theirs, strict=True):
        decoded, canonical = _core.decode_checked(value, format)
        assert repr(decoded) == repr(session)
        assert canonical


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_what_it_wrote_of_other_types_is_read_as_it_reads_it(ask, format):
    sessions = [
        {"t": (1, (2, 3))},
        {"s": {"only"}},
        {"d": dt.date(2024, 2, 29), "n": dt.datetime(2024, 2, 29, 1, 2, 3)},
        {"u": uuid.UUID(int=5), "c": decimal.Decimal("1.50"), "y": bytearray(b"x")},
        {"o": collections.OrderedDict(b=1, a=2), "k": {1: 2, 1.5: 3}},
        {"b": b"bytes"},
        {"z": dt.datetime(2024, 2, 29, 1, 2, 3, 4, dt.timezone.utc)},
        {"p": dt.datetime(2024, 2, 29, 1, 2, 3, 4, dt.timezone(dt.timedelta(hours=2)))},
        {"x": math.inf},
    ]
    if format == "msgpack":
        sessions.append({"k": {(1, 2): 3, None: 4, b"x": 5, True: 6}})
    theirs, _ = ask(format, sessions, [])
    _, read = ask(format, [], theirs)
    assert [_core.decode(value) for value in theirs] == read
    # it reads either format, and so do we
    _, crosswise = ask("json" if format == "msgpack" else "msgpack", [], theirs)
    assert crosswise == read


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_a_rollback_reads_the_plain_keys_of_a_session_with_other_types(ask, format):
    plain = {"_permanent": True, "user_id": 5, "cart": [{"sku": "x", "n": 2.5}]}
    others = {
        "t": (1, 2),
        "s": {1},
        "f": frozenset([1]),
        "o": collections.OrderedDict(a=1),
        "y": bytearray(b"x"),
        "c": 1j,
        "i": 2**70,
        "d": decimal.Decimal("1.5"),
        "u": uuid.UUID(int=1),
        "m": Markup("x"),
        "n": dt.datetime(2024, 1, 1),
        "z": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
        "e": dt.date(2024, 1, 1),
        "w": dt.time(1, 2),
        "q": dt.timedelta(1),
        "l": [(1,)],
    }
    _, (read,) = ask(format, [], [ENCODE[format]({**plain, **others})])
    assert {key: read[key] for key in plain} == plain
    if format == "msgpack":
        assert read["z"] == others["z"]
