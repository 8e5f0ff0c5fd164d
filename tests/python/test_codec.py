"""The codec: sessions to bytes and back, in both formats."""

from __future__ import annotations

import collections
import copy
import ctypes
import dataclasses
import datetime as dt
import decimal
import enum
import gc
import json
import math
import mmap
import pickle
import random
import struct
import sys
import threading
import types
import uuid
import warnings
import weakref
import zoneinfo

import msgspec
import pytest
from flask_session import _core
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from tests import examples

FORMATS = ("msgpack", "json")
EXAMPLES = examples(100, 1000)
ENCODE = {"msgpack": _core.encode, "json": _core.encode_json}
META = "__cession__"
TOMBSTONE = {
    "msgpack": msgspec.msgpack.encode({META: {"t": True}}),
    "json": msgspec.json.encode({META: {"t": True}}),
}

# ---- values -------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
small_ints = st.integers(-(2**63), 2**64 - 1)
edges = [0, 31, 32, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**63, 2**64]
ints = (
    small_ints
    | st.integers()
    | st.sampled_from(
        [sign * edge + step for edge in edges for sign in (1, -1) for step in (-1, 0, 1)]
    )
    | st.sampled_from([2**2048 - 1, 2**2048, -(2**2048), 10**700, -(10**3000)])
)
offsets = st.timedeltas(
    dt.timedelta(hours=-24, microseconds=1), dt.timedelta(hours=24, microseconds=-1)
).map(dt.timezone)
zones = st.none() | st.just(dt.timezone.utc) | offsets
decimals = st.decimals(allow_nan=True) | st.sampled_from(
    [
        decimal.Decimal(t)
        for t in ("1.50", "-0", "1E+3", "-1E-999", "sNaN12", "-NaN", "-Infinity", "0E+7")
    ]
)
complexes = st.complex_numbers(allow_nan=True)
datetimes = st.datetimes(timezones=zones, allow_imaginary=True).flatmap(
    lambda moment: st.sampled_from([moment, moment.replace(fold=1)])
)
times = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.times(),
    zones,
    st.sampled_from([0, 1]),
)
hashable_leaves = (
    st.none()
    | st.booleans()
    | ints
    | st.floats()
    | text
    | st.binary(max_size=300)
    | complexes
    | text.map(Markup)
    | st.uuids()
    | decimals.filter(lambda number: not number.is_snan())
    | datetimes
    | st.dates()
    | times
    | st.timedeltas()
)


def is_nan(value) -> bool:
    return value != value


def has_nan(value) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return any(has_nan(item) for item in value)
    return (not isinstance(value, decimal.Decimal) and is_nan(value)) or (
        isinstance(value, decimal.Decimal) and value.is_nan()
    )


# NaN is unequal to itself: as a key two of them would be stored alike, which is refused
keys = st.recursive(
    hashable_leaves,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
).filter(lambda key: not has_nan(key))
leaves = hashable_leaves | decimals | st.binary(max_size=40).map(bytearray)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(collections.OrderedDict)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)
sessions = st.dictionaries((text | keys).filter(lambda key: key != META), values, max_size=5)
plain_leaves = (
    st.none()
    | st.booleans()
    | small_ints
    | st.floats(allow_nan=False)
    | text
    | st.binary(max_size=300)
)
plain = st.recursive(
    plain_leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
    max_leaves=12,
)
plain_sessions = st.dictionaries(text.filter(lambda key: key != META), plain, max_size=6)
# What JSON can say by itself.
json_leaves = (
    st.none() | st.booleans() | small_ints | st.floats(allow_nan=False, allow_infinity=False) | text
)
json_keys = text.filter(lambda key: not key.startswith(META))
json_values = st.recursive(
    json_leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(json_keys, inner, max_size=5),
    max_leaves=12,
)
json_sessions = st.dictionaries(json_keys, json_values, max_size=6)


def same_float(a: float, b: float) -> bool:
    return struct.pack(">d", a) == struct.pack(">d", b) or (is_nan(a) and is_nan(b))


def set_order(items):
    """Items of two equal sets, so that each meets its equal."""
    return sorted(items, key=lambda item: _core.encode({"": item}))


def assert_same(a, b) -> None:
    """Equal, and of the same type all the way down."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert len(a) == len(b), (a, b)
        for (key_a, value_a), (key_b, value_b) in zip(a.items(), b.items(), strict=True):
            assert_same(key_a, key_b)
            assert_same(value_a, value_b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), (a, b)
        for item_a, item_b in zip(a, b, strict=True):
            assert_same(item_a, item_b)
    elif isinstance(a, (set, frozenset)):
        assert_same(set_order(a), set_order(b))
    elif isinstance(a, float):
        assert same_float(a, b), (a, b)
    elif isinstance(a, complex):
        assert same_float(a.real, b.real), (a, b)
        assert same_float(a.imag, b.imag), (a, b)
    elif isinstance(a, decimal.Decimal):
        assert a.as_tuple() == b.as_tuple(), (a, b)
    else:
        assert a == b, (a, b)
        if isinstance(a, (dt.datetime, dt.time)):
            assert a.replace(tzinfo=None) == b.replace(tzinfo=None)
            assert a.fold == b.fold
            assert a.tzinfo == b.tzinfo
            assert a.utcoffset() == b.utcoffset()


NOT_A_SESSION = "these bytes are no session"


def decode_checked(value: bytes, format: str):
    """As _core.decode_checked, None for no session; any other error comes through."""
    try:
        return _core.decode_checked(value, format)
    except ValueError as error:
        if str(error) != NOT_A_SESSION:
            raise
        return None


def refused(value: bytes) -> bool:
    return decode_checked(value, "msgpack") is None


# ---- what is stored comes back ------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@given(session=sessions)
@settings(deadline=None, max_examples=EXAMPLES)
def test_every_type_comes_back_equal_and_of_the_same_type(format, session):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = ENCODE[format](session, strict=True)
    decoded, canonical = _core.decode_checked(value, format)
    assert_same(session, decoded)
    # a NaN with other bits than usual is not sure to keep them
    assert canonical or _core.canonical(value, format) == value
    assert ENCODE[format](decoded) == value
    assert ENCODE[format](session) == value
    other = "json" if format == "msgpack" else "msgpack"
    assert not _core.decode_checked(value, other)[1]


@given(session=sessions)
@settings(deadline=None, max_examples=EXAMPLES)
def test_the_formats_hold_the_same(session):
    packed, tagged = _core.encode(session), _core.encode_json(session)
    assert_same(_core.decode(packed), _core.decode(tagged))
    assert _core.canonical(packed, "json") == tagged
    if b"float" not in tagged and b"complex" not in tagged:  # JSON has one NaN only
        assert _core.canonical(tagged, "msgpack") == packed


@given(
    items=st.lists(keys, max_size=6, unique_by=lambda key: (str(type(key)), repr(key))),
    seed=st.integers(),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_a_set_is_stored_alike_however_it_was_built(items, seed):
    first = set(items)
    shuffled = list(first)
    random.Random(seed).shuffle(shuffled)
    second = set()
    for item in [object() for _ in range(20)]:
        second.add(item)
    for item in shuffled:
        second.add(item)
    second = {item for item in second if type(item) is not object}
    for encode in ENCODE.values():
        assert encode({"s": first}) == encode({"s": second})


@pytest.mark.parametrize("format", FORMATS)
def test_order_of_keys_is_kept_and_counts(format):
    session = {"b": 1, "a": 2, "c": collections.OrderedDict([("z", 1), ("y", 2)])}
    session["c"].move_to_end("z")
    decoded = _core.decode(ENCODE[format](session))
    assert list(decoded) == ["b", "a", "c"]
    assert list(decoded["c"].items()) == [("y", 2), ("z", 1)]
    assert ENCODE[format]({"a": 2, "b": 1}) != ENCODE[format]({"b": 1, "a": 2})


@pytest.mark.parametrize("format", FORMATS)
def test_fold_and_offset_are_kept(format):
    moments = [
        dt.datetime(2024, 10, 27, 2, 30, fold=1),
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(seconds=-1, microseconds=1))),
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc, fold=1),
        dt.datetime.min.replace(tzinfo=dt.timezone.utc),
        dt.datetime.max.replace(tzinfo=dt.timezone.utc),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=23))),
        dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=23))),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.timezone.utc),
        dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=-3)), fold=1),
        dt.date.min,
        dt.date.max,
        dt.timedelta.min,
        dt.timedelta.max,
    ]
    assert_same(_core.decode(ENCODE[format]({"m": moments}))["m"], moments)


def test_every_day_is_the_same_timestamp_for_msgspec():
    day = dt.datetime(1, 1, 1, 12, 34, 56, tzinfo=dt.timezone.utc)
    moments = [day + dt.timedelta(days=n, microseconds=n % 3) for n in range(0, 3_652_058, 97)]
    moments += [
        dt.datetime(year, month, 28, tzinfo=dt.timezone.utc) + dt.timedelta(days=n)
        for year in (1600, 1900, 1999, 2000, 2023, 2024, 2100)
        for month in (2, 12)
        for n in range(3)
    ]
    value = msgspec.msgpack.encode({"m": moments})
    assert _core.encode({"m": moments}) == value
    assert _core.decode(value) == {"m": moments}


def test_the_decimal_context_does_not_matter():
    number = decimal.Decimal("-1.5E+30")
    value, text_ = _core.encode({"n": number}), _core.encode_json({"n": number})
    with decimal.localcontext() as context:
        context.capitals = 0
        context.prec = 1
        context.Emax = 5
        context.traps[decimal.InvalidOperation] = False
        assert _core.encode({"n": number}) == value
        assert _core.encode_json({"n": number}) == text_
        assert _core.decode_checked(value, "msgpack") == ({"n": number}, True)
        # too large for any Decimal: NaN where that is not trapped, and so no session
        assert refused(
            msgspec.msgpack.encode({"n": msgspec.msgpack.Ext(8, b"1E+99999999999999999999")})
        )


def test_uuids_of_other_origin_are_equal():
    made = uuid.uuid1()  # knows whether it is safe
    decoded = _core.decode(_core.encode({"u": made}))["u"]
    assert decoded == made
    assert hash(decoded) == hash(made)
    assert copy.copy(decoded).is_safe is uuid.SafeUUID.unknown


# ---- plain values and the predecessor's library -------------------------------------------------


@given(session=plain_sessions)
@settings(deadline=None, max_examples=EXAMPLES)
def test_plain_values_are_msgspecs_bytes(session):
    value = msgspec.msgpack.encode(session)
    assert _core.encode(session) == value
    assert_same(msgspec.msgpack.decode(value), _core.decode(value))
    assert _core.decode_checked(value, "msgpack")[1]


@given(session=json_sessions)
@settings(deadline=None, max_examples=EXAMPLES)
def test_plain_json_is_msgspecs_bytes(session):
    value = msgspec.json.encode(session)
    assert _core.encode_json(session) == value
    assert_same(session, _core.decode(value))
    assert_same(msgspec.json.decode(value), _core.decode(value))
    assert _core.decode_checked(value, "json")[1]


@given(session=json_sessions, indent=st.sampled_from([None, 2]), ascii=st.booleans())
@settings(deadline=None, max_examples=EXAMPLES)
def test_any_valid_json_is_read(session, indent, ascii):
    value = " \r\n\t" + json.dumps(session, indent=indent, ensure_ascii=ascii) + "\n"
    assert_same(_core.decode(value.encode()), session)
    assert not _core.decode_checked(value.encode(), "json")[1]


@given(seconds=st.floats(-62135596800, 253402300799 - 1))
@settings(deadline=None, max_examples=EXAMPLES)
def test_timestamps_of_the_predecessor_are_read(seconds):
    whole = math.floor(seconds)
    nanoseconds = int((seconds - whole) * 1e9) % 10**9
    for payload in (
        struct.pack(">Iq", nanoseconds, whole),
        struct.pack(">Q", (nanoseconds << 34) | (whole % 2**34)),
        struct.pack(">I", whole % 2**32),
    ):
        value = b"\x81\xa1t\xc7" + bytes([len(payload)]) + b"\xff" + payload
        assert_same(_core.decode(value), msgspec.msgpack.decode(value))


def test_arrays_as_keys_are_tuples_as_the_predecessor_has_them():
    value = msgspec.msgpack.encode({((1, (2,)), "x"): [(3,)]})
    decoded, canonical = _core.decode_checked(value, "msgpack")
    assert decoded == {((1, (2,)), "x"): [[3]]} == msgspec.msgpack.decode(value)
    assert not canonical


# ---- what is not canonical is known as such -----------------------------------------------------


@given(session=sessions, data=st.data())
@settings(deadline=None, max_examples=EXAMPLES)
@pytest.mark.parametrize("format", FORMATS)
def test_changed_bytes_never_pass_as_canonical(format, session, data):
    value = bytearray(ENCODE[format](session))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                value[at] = data.draw(st.integers(0, 255))
            case 1:
                value[at] ^= 1 << data.draw(st.integers(0, 7))
            case _:
                del value[at]
        assume(value)
    check_any_bytes(bytes(value))


def check_any_bytes(value: bytes) -> None:
    """No session, or one whose canonical form is what encoding it gives."""
    for format in FORMATS:
        found = decode_checked(value, format)
        if found is None:
            with pytest.raises(ValueError):
                _core.canonical(value, format)
            continue
        decoded, canonical = found
        if canonical:
            assert ENCODE[format](decoded) == value
        try:
            again = _core.canonical(value, format)
        except ValueError:
            assert not canonical
            continue
        if canonical:
            assert again == value
        assert_same(_core.decode(again), decoded)
        entries = _core.view(again, format)
        assert _core.compose(entries, format) == again


@given(value=st.binary(max_size=60))
@settings(deadline=None, max_examples=5 * EXAMPLES)
def test_random_bytes_are_harmless(value):
    check_any_bytes(value)
    check_any_bytes(b"\x81\xa1x" + value)
    check_any_bytes(b"\x81" + value + b"\x01")
    for extension in range(-1, 16):
        head = struct.pack(">BBb", 0xC7, len(value), extension)
        check_any_bytes(b"\x81\xa1x" + head + value)
        check_any_bytes(b"\x81" + head + value + b"\xc0")


json_pieces = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'"a"', b'"__cession__', b'tuple":',
         b'set":', b'odict":', b'int":"0x', b':1"', b"1", b"-0", b"1e5", b"0.1", b"null", b"true",
         b"\\u00", b"\\ud83d", b"\\ude00", b" ", b"\n", b"\x00", b"\xc3\xa9",
         b"\xff", b'"__cession__float":"nan"',
         b'{"__cession__tuple":[', b'"__cession__:', b'datetime":"2024-02-29T13:05:00']
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


@given(value=json_pieces)
@settings(deadline=None, max_examples=5 * EXAMPLES)
def test_random_json_is_harmless(value):
    check_any_bytes(value)
    check_any_bytes(b'{"a":' + value + b"}")
    check_any_bytes(b"{" + value + b"}")
    check_any_bytes(b'{"a":{"__cession__' + value + b"}}")


@pytest.mark.parametrize("format", FORMATS)
@given(session=sessions)
@settings(deadline=None, max_examples=30)
def test_no_truncation_is_a_session(format, session):
    value = ENCODE[format](session)
    for cut in range(len(value)):
        assert refused(value[:cut])
    assert refused(value + b"\x00")
    assert refused(value + value)


FOREIGN = [
    b"\xde\x00\x01\xa1a\x01",  # longer headers
    b"\xdf\x00\x00\x00\x01\xa1a\x01",
    b"\x81\xd9\x01a\x01",
    b"\x81\xda\x00\x01a\x01",
    b"\x81\xa1a\xcc\x01",
    b"\x81\xa1a\xd0\x01",
    b"\x81\xa1a\xd3" + bytes(7) + b"\x01",
    b"\x81\xa1a\xdc\x00\x00",
    b"\x81\xa1a\xc5\x00\x00",
    b"\x81\xa1a\xca\x00\x00\x00\x00",  # float 32
    b"\x81\xa1a\xc7\x02\x01\x91\x01",  # ext 8 where fixext 2 does
    b"\x81\xa1a\xd6\x01\xdc\x00\x01\x01",  # within a tuple
    b"\x82\xa1a\x01\xa1a\x02",  # keys twice
    b"\x82\x01\x01\xc3\x02",  # 1 and True
    b"\x81\xa1a\xc7\x03\x02\x92\x02\x01",  # unsorted set
    b"\x81\xa1a\xc7\x03\x02\x92\x01\x01",
    b"\x81\xa1a\xc7\x06\x03\x92\xa2aa\xa1b",
    b"\x81\x91\x01\x02",  # array as a key
    b"\x81\xa1a\xd7\xff" + struct.pack(">Q", 1),  # a timestamp that fits 4 bytes
    b"\x81\xa1a\xc7\x0c\xff" + struct.pack(">Iq", 0, 1),
    b"\x81\xa1a\xd7\xff" + struct.pack(">Q", 1 << 34 | 1),  # a nanosecond
    b"\x81\xa1a\xc7\x14\x0b" + struct.pack(">HBBBBBBIiI", 2024, 1, 1, 0, 0, 0, 0, 0, 0, 0),
    b' {"a":1}',
    b'{"a":1}\n',
    b'{"a": 1}',
    b'{"a":-0}',
    b'{"a":1.50}',
    b'{"a":0.00}',
    b'{"a":0.000001}',
    b'{"a":0.10000000000000000001}',
    b'{"a":1e5}',
    b'{"a":10000000000000000.0}',
    b'{"a":1E16}',
    b'{"a":"\\u0041"}',
    b'{"a":"\\/"}',
    b'{"a":"\\u000A"}',
    b'{"a":"\\u001F"}',
    b'{"a":1,"a":2}',
    b'{"__cession__:\\"a\\"":1}',
    b'{"__cession__: 1":1}',
    b'{"a":{"__cession__set":[2,1]}}',
    b'{"a":{"__cession__set":[1,1]}}',
    b'{"a":' + b"9" * 700 + b"}",
]


@pytest.mark.parametrize("value", FOREIGN)
def test_foreign_forms_are_read_and_made_canonical(value):
    for format in FORMATS:
        decoded, canonical = _core.decode_checked(value, format)
        assert not canonical
        made = _core.canonical(value, format)
        assert made != value
        assert _core.decode_checked(made, format)[1]
        assert_same(_core.decode(made), decoded)


def ext(number: int, payload: bytes) -> bytes:
    return b"\x81\xa1a" + struct.pack(">BBb", 0xC7, len(payload), number) + payload


def deep(head: bytes, count: int) -> bytes:
    return b"\x81\xa1a" + head * count + b"\x01"


def deep_tuple(count: int) -> bytes:
    payload = b"\x01"
    for _ in range(count):
        payload = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\x91" + payload))
    return b"\x81\xa1a" + payload


NO_SESSION = [
    b"",
    b"\x00",
    b"\x01",
    b"\xc0",
    b"\x90",
    b"\x91\x80",
    b"\xa2{}",
    b"\x80\x80",
    b"\x81",
    b"\x81\xc1\x01",
    b"\x81\xa1\xff\x01",  # not UTF-8
    b"\x81\xa3\xed\xa0\x80\x01",  # a surrogate
    b"\x81\xa1a\xc1",
    b"\x81\x80\x01",  # unhashable keys
    b"\x81\xd4\x05x\x01",
    b"\x81\xd5\x02\x90\x01",
    b"\x81\x91\x80\x01",
    ext(0, b""),
    ext(15, b""),
    ext(-2, b""),
    ext(-1, b"\x00" * 3),
    ext(-1, struct.pack(">Iq", 10**9, 0)),
    ext(-1, struct.pack(">Iq", 0, 253402300800)),
    ext(-1, struct.pack(">Iq", 999_999_500, 253402300799)),
    ext(-1, struct.pack(">Iq", 0, -62135596801)),
    ext(-1, struct.pack(">Iq", 999_999_999, 2**63 - 1)),
    ext(1, b""),
    ext(1, b"\x01"),
    ext(1, b"\x80"),
    ext(1, b"\x90\x00"),
    ext(1, b"\x91"),
    ext(2, b"\x91\x90"),  # a list in a set
    ext(2, b"\x91\x80"),
    ext(2, b"\x91\xd5\x02\x90\xc0"),
    ext(3, b"\x91\xd4\x05x"),
    ext(4, b"\x90"),
    ext(4, b"\x81\x01"),
    ext(6, b"\x00" * 15),
    ext(7, b""),
    ext(7, b"\x00"),
    ext(7, b"\x00\x01"),
    ext(7, b"\x00\x00" + b"\xff" * 8),
    ext(7, b"\x00" + b"\xff" * 8),  # fits 64 bits
    ext(7, b"\x01\x80" + b"\x00" * 7),
    ext(7, b"\x02\x01" + b"\x00" * 8),
    ext(8, b""),
    ext(8, b"x"),
    ext(8, b" 1"),
    ext(8, b"1_0"),
    ext(8, b"1e3"),
    ext(8, b"01"),
    ext(8, b"nan"),
    ext(8, b"\xd9\xa1"),
    ext(8, b"1E+99999999999999999999"),
    ext(9, b"\x00" * 15),
    ext(10, b"\xff"),
    ext(11, struct.pack(">HBBBBBBI", 2023, 2, 29, 0, 0, 0, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 0, 1, 1, 0, 0, 0, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 10000, 1, 1, 0, 0, 0, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 13, 1, 0, 0, 0, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 1, 1, 24, 0, 0, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 1, 1, 0, 60, 0, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 1, 1, 0, 0, 60, 0, 0)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 1, 1, 0, 0, 0, 2, 0)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 1, 1, 0, 0, 0, 0, 10**6)),
    ext(11, struct.pack(">HBBBBBBI", 2023, 1, 1, 0, 0, 0, 0, 2**32 - 1)),
    ext(11, struct.pack(">HBBBBBBIiI", 2023, 1, 1, 0, 0, 0, 0, 0, 86400, 0)),
    ext(11, struct.pack(">HBBBBBBIiI", 2023, 1, 1, 0, 0, 0, 0, 0, -86400, 0)),
    ext(11, struct.pack(">HBBBBBBIiI", 2023, 1, 1, 0, 0, 0, 0, 0, 0, 10**6)),
    ext(11, struct.pack(">HBB", 2023, 1, 1)),
    ext(11, b""),
    ext(12, struct.pack(">HBB", 2023, 4, 31)),
    ext(12, struct.pack(">HBBB", 2023, 4, 30, 0)),
    ext(13, b"\x00" * 7),
    ext(13, b"\x00" * 12),
    ext(14, struct.pack(">iII", 0, 86400, 0)),
    ext(14, struct.pack(">iII", 0, 0, 10**6)),
    ext(14, struct.pack(">iII", 10**9, 0, 0)),
    ext(14, struct.pack(">iII", -(10**9), 0, 0)),
    deep(b"\x91", 128),
    deep(b"\x81\xa1a", 128),
    deep_tuple(128),
    b"[]",
    b"{",
    b"{}x",
    b"{}{}",
    b'{"a"}',
    b'{"a":}',
    b'{"a":1,}',
    b'{,"a":1}',
    b'{"a":1 "b":2}',
    b"{'a':1}",
    b"{1:2}",
    b'{"a":01}',
    b'{"a":1.}',
    b'{"a":.5}',
    b'{"a":+1}',
    b'{"a":1e}',
    b'{"a":-}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":1e999}',
    b'{"a":' + b"1" * 4301 + b"}",
    b'{"a":tru}',
    b'{"a":[1,]}',
    b'{"a":[,1]}',
    b'{"a":[1',
    b'{"a":"',
    b'{"a":"\\',
    b'{"a":"\\x"}',
    b'{"a":"\\u12"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00"}',
    b'{"a":"\\ud800\\u0041"}',
    b'{"a":"\n"}',
    b'{"a":"\x00"}',
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"a":1}',
    b'{"__cession__tuple":[1]}',  # the session itself is never tagged
    b'{"__cession__x":1}',
    b'{"__cession__:":1}',
    b'{"__cession__:1 2":1}',
    b'{"__cession__:1\\u0000":1}',
    b'{"__cession__:[]":1}',
    b'{"__cession__:{}":1}',
    b'{"__cession__:\\"__cession__\\"":1}',
    b'{"a":{"__cession__":1}}',
    b'{"a":{"__cession__nothing":1}}',
    b'{"a":{"__cession__tuple":[1],"b":1}}',
    b'{"a":{"b":1,"__cession__tuple":[1]}}',
    b'{"a":{"__cession__tuple":{}}}',
    b'{"a":{"__cession__set":[[]]}}',
    b'{"a":{"__cession__set":[{}]}}',
    b'{"a":{"__cession__set":[{"__cession__bytearray":""}]}}',
    b'{"a":{"__cession__odict":[]}}',
    b'{"a":{"__cession__odict":{"__cession__tuple":[1]}}}',
    b'{"a":{"__cession__bytes":"A"}}',
    b'{"a":{"__cession__bytes":"A==="}}',
    b'{"a":{"__cession__bytes":"AB=="}}',
    b'{"a":{"__cession__bytes":"AA-_"}}',
    b'{"a":{"__cession__bytes":"A=AA"}}',
    b'{"a":{"__cession__float":"NaN"}}',
    b'{"a":{"__cession__complex":[1,2]}}',
    b'{"a":{"__cession__complex":[1.0]}}',
    b'{"a":{"__cession__complex":[[1.0],1.0]}}',
    b'{"a":{"__cession__int":"0x1"}}',
    b'{"a":{"__cession__int":"0x0' + b"f" * 600 + b'"}}',
    b'{"a":{"__cession__int":"0x' + b"F" * 600 + b'"}}',
    b'{"a":{"__cession__int":"' + b"1" * 600 + b'"}}',
    b'{"a":{"__cession__decimal":"1e3"}}',
    b'{"a":{"__cession__uuid":"00000000000000000000000000000000"}}',
    b'{"a":{"__cession__uuid":"00000000-0000-0000-0000-00000000000G"}}',
    b'{"a":{"__cession__uuid":"00000000-0000-0000-0000-00000000000A"}}',
    b'{"a":{"__cession__datetime":"2024-02-30T00:00:00"}}',
    b'{"a":{"__cession__datetime":"2024-02-03 00:00:00"}}',
    b'{"a":{"__cession__datetime":"2024-02-03T00:00:00.000000"}}',
    b'{"a":{"__cession__datetime":"2024-02-03T00:00:00-00:00"}}',
    b'{"a":{"__cession__datetime":"2024-02-03T00:00:00+24:00"}}',
    b'{"a":{"__cession__datetime":"2024-02-03T00:00:00+01:60"}}',
    b'{"a":{"__cession__datetime":"2024-02-03T00:00:00Z"}}',
    b'{"a":{"__cession__datetime":["2024-02-03T00:00:00",0]}}',
    b'{"a":{"__cession__datetime":["2024-02-03T00:00:00"]}}',
    b'{"a":{"__cession__date":"2024-2-3"}}',
    b'{"a":{"__cession__date":["2024-02-03",1]}}',
    b'{"a":{"__cession__time":"00:00"}}',
    b'{"a":{"__cession__time":"24:00:00"}}',
    b'{"a":{"__cession__timedelta":[0,0]}}',
    b'{"a":{"__cession__timedelta":[0,-1,0]}}',
    b'{"a":{"__cession__timedelta":[0,0,0.0]}}',
    b'{"a":{"__cession__timedelta":[18446744073709551616,0,0]}}',
    b'{"a":' + b"[" * 128 + b"]" * 128 + b"}",
    b'{"a":' + b'{"a":' * 128 + b"1" + b"}" * 129,
    b'{"a":' + b"[" * 100_000,
    b'{"a":' * 100_000,
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
]


@pytest.mark.parametrize("value", NO_SESSION, ids=range(len(NO_SESSION)))
def test_no_session(value):
    assert refused(value)
    for format in FORMATS:
        with pytest.raises(ValueError):
            _core.canonical(value, format)
        with pytest.raises(ValueError):
            _core.view(value, format)


def test_the_deepest_session_that_is_read_can_be_stored():
    for format in FORMATS:
        for wrap in (lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: frozenset([v]),
                     lambda v: collections.OrderedDict(a=v)):  # fmt: skip
            inner = 1 + 2j
            for _ in range(127):
                inner = wrap(inner)
            value = ENCODE[format]({"a": inner})
            assert_same(_core.decode(value), {"a": inner})
            with pytest.raises(ValueError, match=r"session\['a'\].*nested more than 128 deep"):
                ENCODE[format]({"a": wrap(inner)})


# ---- no byte outside is read --------------------------------------------------------------------


class Guarded:
    """Memory that ends where the process may not read."""

    def __init__(self) -> None:
        page = mmap.PAGESIZE
        self.map = mmap.mmap(-1, 3 * page)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.end = self.start + 2 * page
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(self.end), ctypes.c_size_t(page), 0) == 0

    def place(self, value: bytes):
        at = self.end - len(value)
        ctypes.memmove(at, value, len(value))
        return (ctypes.c_char * len(value)).from_address(at)


def test_nothing_past_the_end_is_read():
    guarded = Guarded()
    generator = random.Random(1)
    rich = {
        "a": [1, 2.5, "text", b"bytes", None, True, 2**70, -5, 300, 70000],
        "b": {"t": (1, 2), "s": {1, 2}, "d": dt.datetime(2024, 1, 1), "n": decimal.Decimal("1.5")},
        (1, 2): {"u": uuid.UUID(int=5), "m": Markup("x"), "c": 1j, "i": "\u00e9" * 40},
    }
    for format in FORMATS:
        value = ENCODE[format](rich)
        for cut in range(1, len(value) + 1):
            assert refused(guarded.place(value[:cut])) == (cut < len(value))
        for _ in range(5000):
            changed = bytearray(value[: generator.randint(1, len(value))])
            for _ in range(generator.randint(1, 4)):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            refused(guarded.place(bytes(changed)))


# ---- what cannot be stored ----------------------------------------------------------------------


class Foo:
    def __repr__(self):
        raise AssertionError("nobody may ask")


class Color(enum.Enum):
    RED = 1
    PAIR = (1, 2)
    FOO = Foo()


def cyclic_list():
    made = [0]
    made.append({"again": made})
    return made


def cyclic_dict():
    made = {}
    made["x"] = {"y": [made]}
    return made


@dataclasses.dataclass
class Node:
    next: object = None


def cyclic_dataclass():
    node = Node()
    node.next = [node]
    return node


REFUSED = [
    ({"cart": [1, Foo()]}, TypeError,
     r"^session\['cart'\]\[1\]: objects of type Foo cannot be stored$"),
    ({"a": {"b": (1, {2: Foo()})}}, TypeError, r"^session\['a'\]\['b'\]\[1\]\[2\]: .*Foo"),
    ({"a": {Foo()}}, TypeError, r"^session\['a'\] \(an item of the set\): .*Foo"),
    ({"a": {Foo(): 1}}, TypeError, r"^session\['a'\] \(the key \[<Foo>\]\): .*Foo"),
    ({Foo(): 1}, TypeError, r"^session \(the key"),
    ({(1, Foo()): 1}, TypeError, r"^session \(the key \[<tuple>\]\)\[1\]: .*Foo"),
    ({"a": Color.FOO}, TypeError, r"^session\['a'\]\.value: .*Foo"),
    ({"a": Node(Node(Foo()))}, TypeError, r"^session\['a'\]\['next'\]\['next'\]: .*Foo"),
    ({"f": print}, TypeError, "builtin_function_or_method"),
    ({"g": (i for i in ())}, TypeError, "generator"),
    ({"t": Foo}, TypeError, "objects of type type cannot"),
    ({"t": Color}, TypeError, r"EnumMeta|EnumType"),
    ({"t": Node}, TypeError, "objects of type type cannot"),
    ({"q": collections.deque()}, TypeError, "collections.deque"),
    ({"q": types.MappingProxyType({})}, TypeError, "mappingproxy"),
    ({"z": dt.timezone.utc}, TypeError, "datetime.timezone"),
    ({"s": "a\ud800"}, ValueError, r"^session\['s'\]: .*surrogate"),
    ({"s": ["ok", {"x": "\udfff"}]}, ValueError, r"^session\['s'\]\[1\]\['x'\]: .*surrogate"),
    ({"s": {"\ud800": 1}}, ValueError, r"^session\['s'\] \(the key \['\\ud800'\]\): .*surrogate"),
    ({"s": Markup("\ud800")}, ValueError, r"^session\['s'\]: .*surrogate"),
    ({"a": cyclic_list()}, ValueError, r"^session\['a'\]\[1\]\['again'\]: list contains itself"),
    ({"a": cyclic_dict()}, ValueError, r"^session\['a'\]\['x'\]\['y'\]\[0\]: dict contains itself"),
    ({"a": cyclic_dataclass()}, ValueError, r"^session\['a'\]\['next'\]\[0\]: Node contains itse"),
    ({META: 1}, ValueError, "reserved"),
    ({"a": {Color.RED: 1, 1: 2}}, ValueError, r"^session\['a'\]: two keys would be stored alike"),
    ({float("nan"): 1, float("-nan") * 1: 2, math.nan: 3}, ValueError, "stored alike"),
]  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", REFUSED, ids=range(len(REFUSED)))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_refused_values_name_the_place(format, case):
    session, error, message = case
    with pytest.raises(error, match=message):
        ENCODE[format](session)


@pytest.mark.parametrize("format", FORMATS)
def test_a_session_is_a_dict(format):
    for other in ([], None, [("a", 1)], types.MappingProxyType({})):
        with pytest.raises(TypeError):
            ENCODE[format](other)


@pytest.mark.parametrize("format", FORMATS)
def test_long_places_and_keys_are_cut(format):
    inner = Foo()
    for _ in range(60):
        inner = [inner]
    with pytest.raises(TypeError) as caught:
        ENCODE[format]({"k" * 1000: inner})
    assert len(str(caught.value)) < 300
    with pytest.raises(TypeError, match=r"\[<int>\]"):
        ENCODE[format]({10**10000: Foo()})


@pytest.mark.parametrize("format", FORMATS)
def test_too_many_keys(format):
    session = dict.fromkeys(map(str, range(65536)))
    assert len(_core.view(ENCODE[format](session), format)) == 65536
    session["one more"] = None
    with pytest.raises(OverflowError):
        ENCODE[format](session)


@pytest.mark.parametrize("format", FORMATS)
def test_too_many_bytes(format):
    part = b"x" * (16 << 20)
    with pytest.raises(OverflowError):
        ENCODE[format]({"a": [part] * 5})


# ---- flattening ---------------------------------------------------------------------------------


class Str(str):
    pass


class Int(int):
    pass


class Float(float):
    pass


class Bytes(bytes):
    pass


class Bytearray(bytearray):
    pass


class Complex(complex):
    pass


class List(list):
    def __iter__(self):
        raise AssertionError("the storage counts")


class Dict(dict):
    def items(self):
        raise AssertionError("the storage counts")


class Tuple(tuple):
    pass


class Set(set):
    __hash__ = object.__hash__


class Frozenset(frozenset):
    pass


class Date(dt.date):
    pass


class Datetime(dt.datetime):
    pass


class Time(dt.time):
    pass


class Timedelta(dt.timedelta):
    pass


class Decimal(decimal.Decimal):
    pass


class Uuid(uuid.UUID):
    pass


class Mark(Markup):
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, when):
        return dt.timedelta(minutes=90)


class NoZone(dt.tzinfo):
    def utcoffset(self, when):
        return None


class Number(enum.IntEnum):
    ONE = 1


class Name(str, enum.Enum):
    X = "x"


class Flag(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    kind: dataclasses.InitVar[int] = 0
    x: int = 1
    _y: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int = 1


class Attrs:
    """As attrs makes them."""

    __attrs_attrs__ = (types.SimpleNamespace(name="x"), types.SimpleNamespace(name="_y"))

    def __init__(self):
        self.x = 1
        self._y = 2


class Record(msgspec.Struct, tag="record", rename="camel"):
    some_value: int
    when: dt.date


class Pair(msgspec.Struct, array_like=True):
    x: int
    y: bytes


Named = collections.namedtuple("Named", "x y")
NOW = dt.datetime(2024, 7, 1, 12, 0, 0, 5)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
FLATTENED = [
    (Color.RED, 1),
    (Color.PAIR, (1, 2)),
    (Number.ONE, 1),
    (Name.X, "x"),
    (Flag.A | Flag.B, 3),
    (Point(), {"x": 1, "_y": []}),
    (Slotted(), {"x": 1}),
    (Attrs(), {"x": 1}),  # without the attrs package: msgspec stores null
    (Record(1, dt.date(2024, 1, 1)),
     {"type": "record", "someValue": 1, "when": dt.date(2024, 1, 1)}),
    (Pair(1, b"x"), [1, b"x"]),
    (Named(1, [2]), [1, [2]]),
    (Tuple((1, 2)), [1, 2]),
    (List([1, (2,)]), [1, (2,)]),
    (Dict(a=1), {"a": 1}),
    (collections.defaultdict(int, a=1), {"a": 1}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (Set([3, 1, 2]), [1, 2, 3]),
    (Frozenset(["b", "a"]), ["a", "b"]),
    (memoryview(b"abcd")[1:3], b"bc"),
    (Str("s"), "s"),
    (Int(5), 5),
    (Int(2**80), 2**80),
    (Float(1.5), 1.5),
    (Bytes(b"x"), b"x"),
    (Bytearray(b"x"), bytearray(b"x")),
    (Complex(1, 2), 1 + 2j),
    (Mark("<b>"), Markup("<b>")),
    (Decimal("1.50"), decimal.Decimal("1.50")),
    (Uuid(int=7), uuid.UUID(int=7)),
    (Date(2024, 1, 2), dt.date(2024, 1, 2)),
    (Datetime(2024, 1, 2, 3, fold=1), dt.datetime(2024, 1, 2, 3, fold=1)),
    (Datetime(2024, 1, 2, tzinfo=BERLIN),
     dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1)))),
    (Time(1, 2), dt.time(1, 2)),
    (Timedelta(1, 2, 3), dt.timedelta(1, 2, 3)),
    (NOW.replace(tzinfo=BERLIN), NOW.replace(tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    (NOW.replace(tzinfo=zoneinfo.ZoneInfo("UTC")), NOW.replace(tzinfo=dt.timezone.utc)),
    (NOW.replace(tzinfo=Zone()), NOW.replace(tzinfo=dt.timezone(dt.timedelta(minutes=90)))),
    (NOW.replace(tzinfo=NoZone()), NOW),
    (dt.time(1, 2, tzinfo=Zone()), dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(minutes=90)))),
    (dt.time(1, 2, tzinfo=BERLIN), dt.time(1, 2)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_warned_yet():
    """Types that were warned about are remembered by the module, 256 of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(300):
            _core.encode({"a": type(f"Fresh{number}", (int,), {})(1)})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", FLATTENED, ids=lambda case: type(case[0]).__name__)
def test_flattened_with_one_warning_that_names_the_place(format, case):
    value, simple = case
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stored = ENCODE[format]({"a": [value]})
        again = ENCODE[format]({"a": [value]})
    assert [warning.category for warning in caught] == [UserWarning]
    assert str(caught[0].message).startswith("session['a'][0]: ")
    assert stored == again == ENCODE[format]({"a": [simple]})
    assert_same(_core.decode(stored)["a"], [simple])
    with pytest.raises(TypeError, match=r"^session\['a'\]\[0\]: "):
        ENCODE[format]({"a": [value]}, strict=True)


@pytest.mark.parametrize("case", FLATTENED, ids=lambda case: type(case[0]).__name__)
def test_flattened_as_the_predecessors_library_does(case):
    """To msgspec the value and what we make of it are the same, unless it refuses the value."""
    value, simple = case
    try:
        theirs = msgspec.msgpack.encode({"a": value})
    except TypeError:
        assert isinstance(value, (str, int, float, bytes, bytearray, complex, dt.date, dt.time,
                                  dt.timedelta, decimal.Decimal, Attrs))  # fmt: skip
        return
    if isinstance(value, (Set, Frozenset)):
        theirs = msgspec.msgpack.encode({"a": sorted(value)})
    if isinstance(value, dt.datetime) and value.utcoffset() is None:
        simple = simple.replace(tzinfo=dt.timezone.utc)  # msgspec takes no offset for UTC
    assert theirs == msgspec.msgpack.encode({"a": simple})


def test_a_memoryview_need_not_be_contiguous():
    with pytest.warns(UserWarning, match="stored as bytes"):
        assert _core.decode(_core.encode({"a": memoryview(b"abcd")[::2]})) == {"a": b"ac"}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flattened_keys_and_items_of_sets_stay_hashable(format):
    session = {
        Named(1, 2): "named",
        Color.PAIR: "enum",
        Str("s"): "str",
        "d": {Frozenset([1]): 1, Number.ONE: 2, memoryview(b"m"): 3, NOW.replace(tzinfo=Zone()): 4},
        "s": {Named(3, 4), Color.RED, 7, Set([5])},
    }
    del session[Color.PAIR]
    decoded = _core.decode(ENCODE[format](session))
    zoned = NOW.replace(tzinfo=dt.timezone(dt.timedelta(minutes=90)))
    expected = {
        (1, 2): "named",
        "s": {(3, 4), 1, 7, frozenset([5])},
        "d": {frozenset([1]): 1, 1: 2, b"m": 3, zoned: 4},
    }
    assert decoded == expected
    types_of = {type(key) for key in decoded["d"]} | {type(item) for item in decoded["s"]}
    assert types_of == {frozenset, int, bytes, dt.datetime, tuple}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_a_key_is_refused_as_one(format):
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        x: int = 1

    class HashableList(list):
        __hash__ = object.__hash__

    for key in (Frozen(), HashableList()):
        with pytest.raises(TypeError, match=r"^session\['a'\] \(the key .*as a key"):
            ENCODE[format]({"a": {key: 1}})
        with pytest.raises(TypeError, match=r"^session\['a'\] \(an item of the set\): .*as a key"):
            ENCODE[format]({"a": {key}})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_items_of_a_set_may_become_one():
    value = _core.encode({"s": {Color.RED, 1, 2}})
    assert _core.decode_checked(value, "msgpack") == ({"s": {1, 2}}, True)


def test_a_warning_may_be_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"session\['a'\]"):
            _core.encode({"a": Named(1, 2)})


def test_types_warned_about_are_not_kept_for_ever():
    def make():
        local = type("Local", (int,), {})
        with pytest.warns(UserWarning, match="type Local"):
            _core.encode({"a": local(1)})
        return weakref.ref(local)

    kept = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(300):
            _core.encode({"a": type(f"T{number}", (int,), {})(1)})
    gc.collect()
    assert kept() is None


# ---- the application's own code while encoding --------------------------------------------------


class Boom(Exception):
    pass


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exceptions_of_the_application_come_through(format):
    class Raises(dt.tzinfo):
        def utcoffset(self, when):
            raise Boom

    class Odd(dt.tzinfo):
        def utcoffset(self, when):
            return dt.timedelta(days=3)

    class Loud(enum.Enum):
        A = 1

        @property
        def value(self):
            raise Boom

    class Session(dict):
        def items(self):
            raise Boom

    @dataclasses.dataclass
    class Lazy:
        x: int

        @property
        def x(self):
            raise Boom

        @x.setter
        def x(self, value):
            pass

    for value in (NOW.replace(tzinfo=Raises()), Loud.A, Lazy(1)):
        with pytest.raises(Boom):
            ENCODE[format]({"a": value})
    with pytest.raises(Boom):
        ENCODE[format](Session(a=1))
    with pytest.raises(ValueError):
        ENCODE[format]({"a": NOW.replace(tzinfo=Odd())})


@pytest.mark.parametrize("format", FORMATS)
def test_an_overridden_items_is_what_is_stored(format):
    class Session(dict):
        def items(self):
            for key, value in super().items():
                yield key, ["wrapped", value]

    class Pairs(dict):
        pairs: object = ()

        def items(self):
            return self.pairs

    class Plain(dict):
        def update_cart(self):
            pass

    class Getter(dict):
        def __getitem__(self, key):
            raise AssertionError("items() is asked")

    assert _core.decode(ENCODE[format](Session(a=1))) == {"a": ["wrapped", 1]}
    assert _core.decode(ENCODE[format](Plain(a=1))) == {"a": 1}
    assert _core.decode(ENCODE[format](Getter(a=1))) == {"a": 1}
    odd = Pairs()
    for pairs, error in (
        ([[1]], ValueError),
        ([(1, 2, 3)], ValueError),
        (5, TypeError),
        ([5], TypeError),
    ):
        odd.pairs = pairs
        with pytest.raises(error):
            ENCODE[format](odd)
    odd.pairs = [["a", 1], ("a", 2)]
    with pytest.raises(ValueError, match="alike"):
        ENCODE[format](odd)
    odd.pairs = [(META, 1)]
    with pytest.raises(ValueError, match="reserved"):
        ENCODE[format](odd)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_containers_that_change_while_they_are_stored(format):
    """Code that runs in the middle empties and fills everything in reach."""
    for kind in (dict, collections.OrderedDict, list, set):
        inner = kind({0: 0}) if kind in (dict, collections.OrderedDict) else kind([0])

        reach = []

        class Vandal(enum.Enum):
            A = 1

            @property
            def value(self, inner=inner, reach=reach):
                reach[0].clear()
                inner.clear()
                for number in range(50):
                    reach[0][str(number)] = object()
                    if isinstance(inner, dict):
                        inner[number] = object()
                    elif isinstance(inner, list):
                        inner.append(object())
                    else:
                        inner.add(object())
                return "value"

        outer = {"a": [1, 2], "v": inner, "z": {"y": [3]}}
        reach.append(outer)
        if isinstance(inner, dict):
            inner["v"] = Vandal.A
            expected = kind({0: 0, "v": "value"})
        elif isinstance(inner, list):
            inner.append(Vandal.A)
            expected = [0, "value"]
        else:
            inner.add(Vandal.A)
            expected = {0, "value"}
        assert _core.decode(ENCODE[format](outer)) == {"a": [1, 2], "v": expected, "z": {"y": [3]}}


@pytest.mark.parametrize("format", FORMATS)
def test_threads_may_write_meanwhile(format):
    session = {str(number): {"n": [number, (number,), {number}]} for number in range(50)}
    stop = threading.Event()
    failures = []

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            session[str(number % 70)] = {"n": [number, (number,), {number}]}
            session.pop(str((number * 7) % 70), None)

    def read():
        try:
            for _ in range(300):
                for value in _core.decode(ENCODE[format](session)).values():
                    number = value["n"][0]
                    assert value == {"n": [number, (number,), {number}]}
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read) for _ in range(2)]
    writer.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    stop.set()
    writer.join()
    assert not failures


# ---- the reserved key, views, composition -------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_the_reserved_key_is_kept_from_the_application(format):
    library = {"msgpack": msgspec.msgpack, "json": msgspec.json}[format]
    value = library.encode({"a": 1, META: {"t": True}, "b": 2})
    assert _core.decode_checked(value, format) == ({"a": 1, "b": 2}, False)
    assert _core.canonical(value, format) == value
    assert dict(_core.view(value, format))[library.encode(META)] == library.encode({"t": True})
    assert _core.decode(TOMBSTONE[format]) == {}
    other = "json" if format == "msgpack" else "msgpack"
    assert _core.canonical(TOMBSTONE[other], format) == TOMBSTONE[format]
    # deeper down it is a key like any other
    assert _core.decode(ENCODE[format]({"a": {META: 1}})) == {"a": {META: 1}}


@pytest.mark.parametrize("format", FORMATS)
@given(session=sessions)
@settings(deadline=None, max_examples=EXAMPLES)
def test_views_take_apart_and_composition_puts_together(format, session):
    value = ENCODE[format](session)
    entries = _core.view(value, format)
    assert len(entries) == len(session)
    assert _core.compose(entries, format) == value
    for entry, (key, item) in zip(entries, session.items(), strict=True):
        assert _core.compose([entry], format) == ENCODE[format]({key: item})
    backwards = dict(reversed(session.items()))
    assert _core.compose(entries[::-1], format) == ENCODE[format](backwards)
    other = "json" if format == "msgpack" else "msgpack"
    with pytest.raises(ValueError):
        _core.view(value, other)


@pytest.mark.parametrize("value", FOREIGN)
def test_views_of_foreign_values_are_canonical(value):
    format = "msgpack" if value[0] >= 0x80 else "json"
    entries = _core.view(value, format)
    assert _core.compose(entries, format) == _core.canonical(value, format)


def test_a_key_that_came_twice_counts_once_with_its_last_value():
    assert _core.view(b"\x82\xa1a\x01\xa1a\x02", "msgpack") == [(b"\xa1a", b"\x02")]
    assert _core.view(b'{"a":1,"a":2}', "json") == [(b'"a"', b"2")]


# ---- tagged JSON, by example --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((1, "a"), '{"__cession__tuple":[1,"a"]}'),
        ({2, 1}, '{"__cession__set":[1,2]}'),
        (frozenset(), '{"__cession__frozenset":[]}'),
        (collections.OrderedDict(a=1), '{"__cession__odict":{"a":1}}'),
        (b"\xff\x00", '{"__cession__bytes":"/wA="}'),
        (bytearray(b"abc"), '{"__cession__bytearray":"YWJj"}'),
        (complex(1.5, math.inf), '{"__cession__complex":[1.5,{"__cession__float":"inf"}]}'),
        (complex(1, -0.0), '{"__cession__complex":[1.0,-0.0]}'),
        (math.inf, '{"__cession__float":"inf"}'),
        (-math.inf, '{"__cession__float":"-inf"}'),
        (math.nan, '{"__cession__float":"nan"}'),
        (-(2**2048), '{"__cession__int":"-0x1' + "0" * 512 + '"}'),
        (2**2048 - 1, str(2**2048 - 1)),
        (decimal.Decimal("1.50"), '{"__cession__decimal":"1.50"}'),
        (uuid.UUID(int=1), '{"__cession__uuid":"00000000-0000-0000-0000-000000000001"}'),
        (Markup("<b>"), '{"__cession__markup":"<b>"}'),
        (dt.datetime(2024, 2, 29, 13, 5), '{"__cession__datetime":"2024-02-29T13:05:00"}'),
        (dt.datetime(2024, 2, 29, 13, 5, 0, 9, dt.timezone.utc, fold=1),
         '{"__cession__datetime":["2024-02-29T13:05:00.000009+00:00",1]}'),
        (dt.time(1, 2, 3, tzinfo=dt.timezone(dt.timedelta(seconds=-1.5))),
         '{"__cession__time":"01:02:03-00:00:01.500000"}'),
        (dt.date(24, 2, 29), '{"__cession__date":"0024-02-29"}'),
        (dt.timedelta(microseconds=-1), '{"__cession__timedelta":[-1,86399,999999]}'),
        ({1: 2}, '{"__cession__:1":2}'),
        ({"__cession__x": 2}, '{"__cession__:\\"__cession__x\\"":2}'),
        ({(1, "a"): 2}, '{"__cession__:{\\"__cession__tuple\\":[1,\\"a\\"]}":2}'),
        ("\x00\x1f\x7f\u2028\U0001f600", '"\\u0000\\u001f\x7f\u2028\U0001f600"'),
        ("\b\t\n\f\r\"\\/", '"\\b\\t\\n\\f\\r\\"\\\\/"'),
        (1e-5, "0.00001"),
        (-1.5e-5, "-0.000015"),
        (9.99e-6, "9.99e-6"),
        (1e16, "1e16"),
        (1e15, "1000000000000000.0"),
        (1.5e300, "1.5e300"),
    ],
)  # fmt: skip
def test_tagged_json_is_written_as_documented(value, written):
    assert _core.encode_json({"v": value}) == f'{{"v":{written}}}'.encode()


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@example(value=1e-5)
@example(value=9.999999999999999e-05)
@example(value=5e-324)
@example(value=-0.0)
@example(value=0.00012345678901234)
@example(value=123456789012345.0)
@example(value=999999999999999.9)
@settings(deadline=None, max_examples=20 * EXAMPLES)
def test_floats_are_written_as_msgspec_writes_them(value):
    written = _core.encode_json({"v": value})
    assert written == msgspec.json.encode({"v": value})
    assert _core.decode_checked(written, "json")[1]


# ---- memory -------------------------------------------------------------------------------------


def test_nothing_is_leaked():
    session = {
        "t": (1, [2, {"x": {1, 2}}]),
        "o": collections.OrderedDict(a=uuid.uuid4(), b=decimal.Decimal("1.5")),
        "d": [NOW, NOW.replace(tzinfo=dt.timezone(dt.timedelta(1.0 / 24))), dt.timedelta(5)],
        (1, 2): {frozenset([1]): Markup("x"), 2**100: bytearray(b"x")},
        "n": Named(1, 2),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed, tagged = _core.encode(session), _core.encode_json(session)

        def round_trip():
            for value in (packed, tagged, packed[:-3], tagged[:-3] + b"}}}", b"\x81\xa1a\xd4\x05"):
                refused(value)
            for encode in ENCODE.values():
                encode(session)
                for bad in (
                    {"a": [Foo()]},
                    {"a": {Foo(): 1}},
                    {"s": {"\ud800"}},
                    {"n": {1: cyclic_list()}},
                ):
                    with pytest.raises((TypeError, ValueError)):
                        encode(bad)
            for format in FORMATS:
                _core.compose(_core.view(_core.canonical(tagged, format), format), format)

        def blocks():
            gc.collect()
            return sys.getallocatedblocks()

        for _ in range(50):
            round_trip()
        before = blocks()
        for _ in range(300):
            round_trip()
        assert blocks() - before < 150


# ---- pickles, which earlier releases of the predecessors wrote -----------------------------------

# Types whose pickles the reader knows; a complex and a dict subclass are not among them.
pickled_keys = st.recursive(
    st.none() | st.booleans() | ints | st.floats(allow_nan=False) | text | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=3,
)
pickled_values = st.recursive(
    pickled_keys
    | text.map(Markup)
    | st.binary(max_size=40).map(bytearray)
    | st.uuids()
    | st.decimals(allow_nan=False)
    | datetimes
    | st.dates()
    | times
    | st.timedeltas(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(pickled_keys, inner, max_size=4)
        | st.dictionaries(pickled_keys, inner, max_size=4).map(collections.OrderedDict)
        | st.sets(pickled_keys, max_size=4)
    ),
    max_leaves=10,
)


@given(
    session=st.dictionaries(text.filter(lambda key: key != META), pickled_values, max_size=5),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
)
@settings(deadline=None, max_examples=EXAMPLES)
def test_pickles_of_plain_data_are_read(session, protocol):
    value = pickle.dumps(session, protocol)
    for format in FORMATS:
        decoded, canonical = _core.decode_checked(value, format)
        assert_same(pickle.loads(value), decoded)  # older protocols lose a time's fold
        assert not canonical
        assert _core.canonical(value, format) == ENCODE[format](decoded)
        with pytest.raises(ValueError):
            _core.view(value, format)


def test_pickles_that_want_code_are_no_session():
    class Evil:
        def __reduce__(self):
            return exec, ("raise AssertionError('executed')",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert refused(pickle.dumps({"a": Evil()}, protocol))
        assert refused(pickle.dumps({"a": Foo}, protocol))
        assert refused(pickle.dumps(["not a dict"], protocol))
        assert refused(pickle.dumps({"a": 1}, protocol)[:-1])
