"""Writes pickle_vectors.h: what CPython pickles, and the MessagePack it has to become.

    python tests/c/pickle_vectors.py > tests/c/pickle_vectors.h     (needs markupsafe)

The MessagePack side is written here from docs/format.md, independently of the C.
"""

import datetime as dt
import decimal
import io
import pickle
import pickletools
import struct
import sys
import uuid
from collections import OrderedDict

from markupsafe import Markup


def head(n, fix, fix_max, *forms):
    if n < fix_max:
        return bytes([fix | n])
    for code, size in forms:
        if n < 256**size:
            return bytes([code]) + n.to_bytes(size, "big")
    raise OverflowError


def ext(kind, data):
    n = len(data)
    if n in (1, 2, 4, 8, 16):
        start = bytes([0xD4 + (1, 2, 4, 8, 16).index(n)])
    else:
        start = head(n, 0, 0, (0xC7, 1), (0xC8, 2), (0xC9, 4))
    return start + struct.pack("b", kind) + data


def integer(v):
    if -32 <= v < 128:
        return struct.pack("b", v) if v < 0 else bytes([v])
    if 0 <= v < 2**64:
        return head(v, 0, 0, (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8))
    for code, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if -(2 ** (8 * size - 1)) <= v < 0:
            return bytes([code]) + v.to_bytes(size, "big", signed=True)
    magnitude = abs(v)
    return ext(7, bytes([v < 0]) + magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big"))


def array(items):
    return head(len(items), 0x90, 16, (0xDC, 2), (0xDD, 4)) + b"".join(items)


def mapping(pairs):
    body = b"".join(encode(k) + encode(v) for k, v in pairs)
    return head(len(pairs), 0x80, 16, (0xDE, 2), (0xDF, 4)) + body


def delta(v):
    return struct.pack(">iII", v.days, v.seconds, v.microseconds)


def offset(v):
    return struct.pack(">iI", v.days * 86400 + v.seconds, v.microseconds)


def moment(v):
    zone = v.utcoffset()
    if zone == dt.timedelta(0) and v.fold == 0:
        since = v.replace(tzinfo=None) - dt.datetime(1970, 1, 1)
        seconds, nanoseconds = since.days * 86400 + since.seconds, since.microseconds * 1000
        if nanoseconds == 0 and 0 <= seconds < 2**32:
            return ext(-1, struct.pack(">I", seconds))
        if 0 <= seconds < 2**34:
            return ext(-1, struct.pack(">Q", nanoseconds << 34 | seconds))
        return ext(-1, struct.pack(">Iq", nanoseconds, seconds))
    fields = (v.year, v.month, v.day, v.hour, v.minute, v.second, v.fold, v.microsecond)
    return ext(11, struct.pack(">H6BI", *fields) + (b"" if zone is None else offset(zone)))


def encode(v):
    kind = type(v)
    if v is None:
        return b"\xc0"
    if kind is bool:
        return b"\xc3" if v else b"\xc2"
    if kind is int:
        return integer(v)
    if kind is float:
        return b"\xcb" + struct.pack(">d", v)
    if kind is str:
        data = v.encode()
        return head(len(data), 0xA0, 32, (0xD9, 1), (0xDA, 2), (0xDB, 4)) + data
    if kind is bytes:
        return head(len(v), 0, 0, (0xC4, 1), (0xC5, 2), (0xC6, 4)) + v
    if kind is list:
        return array([encode(item) for item in v])
    if kind is dict:
        return mapping(v.items())
    if kind is tuple:
        return ext(1, array([encode(item) for item in v]))
    if kind in (set, frozenset):
        return ext(2 if kind is set else 3, array(sorted(encode(item) for item in v)))
    if kind is OrderedDict:
        return ext(4, mapping(v.items()))
    if kind is bytearray:
        return ext(5, bytes(v))
    if kind is decimal.Decimal:
        return ext(8, str(v).encode())
    if kind is uuid.UUID:
        return ext(9, v.bytes)
    if kind is Markup:
        return ext(10, v.encode())
    if kind is dt.datetime:
        return moment(v)
    if kind is dt.date:
        return ext(12, struct.pack(">HBB", v.year, v.month, v.day))
    if kind is dt.time:
        zone = v.utcoffset()
        data = struct.pack(">4BI", v.hour, v.minute, v.second, v.fold, v.microsecond)
        return ext(13, data + (b"" if zone is None else offset(zone)))
    if kind is dt.timedelta:
        return ext(14, delta(v))
    raise TypeError(kind)


UTC = dt.timezone.utc
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30), "IST")
WEST = dt.timezone(dt.timedelta(hours=-5))
ODD = dt.timezone(-dt.timedelta(microseconds=500000))
SAFE = uuid.UUID(int=0x18412592127425411654500281998730, is_safe=uuid.SafeUUID.unsafe)
SHARED = ["shared", {"x": 1}]

VALUES = {
    "empty": {},
    "constants": {"a": None, "b": True, "c": False},
    "small ints": {"v": [0, 1, -1, 127, 128, 255, 256, -32, -33, -128, -129, 65535, 65536, -32768]},
    "ints": {"v": [2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**63 - 1, -(2**63)]},
    "ints past 63 bits": {"v": [2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, -(10**30)]},
    "long ints": {"v": [2**264, -(2**263), 2**263 - 1, 256**20 + 7, -(256**16)]},
    "floats": {"v": [0.0, -0.0, 1.5, 1e16, 1e-7, 1e308, 5e-324, 0.1, float("inf"), float("-inf")]},
    "nan": {"v": float("nan")},
    "text": {"v": ["", "a", "h\\\n\r\x1a\0\xe4\u20ac\U0001f600", "x" * 31, "x" * 32, "y" * 257]},
    "bytes": {"v": [b"", b"a", b"\0\xff", bytes(range(0, 256, 5)), b"z" * 257]},
    "bytearrays": {"v": [bytearray(), bytearray(b"ab\xff")]},
    "lists": {"v": [[], [[]], [1, [2, [3]]], list(range(20))]},
    "tuples": {"v": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((),)]},
    "sets": {"v": [set(), {1}, {"b", "a", "ccc", "bb"}, {(1, 2), frozenset([3]), None}]},
    "frozensets": {"v": [frozenset(), frozenset([1, 2, 3, 300, -1]), frozenset([frozenset()])]},
    "large set": {"v": set(range(0, 300, 7))},
    "dicts": {"v": [{}, {"a": {}}, {2: 2, None: 3, True: 4, 2.5: 5, b"k": 6, (1, "t"): 7}]},
    "ordered dicts": {"v": [OrderedDict(), OrderedDict([("b", 1)]), OrderedDict([(2, 1), (1, 2)])]},
    "markup": {"v": [Markup(""), Markup("<b>\xe4\u20ac</b>")]},
    "decimals": {
        "v": [
            decimal.Decimal(t)
            for t in ("0", "1.50", "-1E+3", "NaN", "sNaN12", "-Infinity", "1E-400", "-0.00")
        ]
    },
    "uuids": {"v": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=2**63), SAFE]},
    "dates": {"v": [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2024, 2, 29)]},
    "times": {
        "v": [
            dt.time(),
            dt.time(23, 59, 59, 999999),
            dt.time(13, tzinfo=UTC),
            dt.time(1, 2, 3, 4, tzinfo=EAST),
            dt.time(1, tzinfo=ODD),
        ]
    },
    "naive datetimes": {
        "v": [
            dt.datetime(1, 1, 1),
            dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
            dt.datetime(2024, 2, 29, 13, 10, 13, 26),
        ]
    },
    "datetimes in utc": {
        "v": [
            dt.datetime(1970, 1, 1, tzinfo=UTC),
            dt.datetime(1, 1, 1, tzinfo=UTC),
            dt.datetime(2000, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
            dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
            dt.datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC),
            dt.datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
            dt.datetime(2514, 5, 30, 1, 53, 3, tzinfo=UTC),
            dt.datetime(2514, 5, 30, 1, 53, 4, tzinfo=UTC),
            dt.datetime(1900, 3, 1, tzinfo=UTC),
            dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ]
    },
    "datetimes with offsets": {
        "v": [
            dt.datetime(2024, 2, 29, 12, tzinfo=EAST),
            dt.datetime(2024, 2, 29, 12, tzinfo=WEST),
            dt.datetime(2024, 2, 29, 12, tzinfo=ODD),
        ]
    },
    "timedeltas": {
        "v": [dt.timedelta(), dt.timedelta(-1, 2, 3), dt.timedelta.max, dt.timedelta.min]
    },
    "shared": {"a": SHARED, "b": SHARED, "c": (SHARED, SHARED), "d": "shared", "shared": b"x"},
    "a session": {
        "_permanent": True,
        "user": {"id": 7, "name": "J\xf6rg", "roles": ["a", "b"]},
        "_fresh": False,
        "csrf_token": "9f8e7d",
        "since": dt.datetime(2024, 1, 1, 12, 0),
        "_flashes": [("message", "Hello"), ("error", "No")],
        "cart": {1: 2.5, 2: 0.5},
    },
}
# The fold is pickled from protocol 4 on.
FOLDED = {
    "v": [
        dt.datetime(2024, 10, 27, 2, 30, fold=1),
        dt.time(2, 30, fold=1),
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=UTC, fold=1),
    ]
}


def pure(value, protocol):
    out = io.BytesIO()
    pickle._Pickler(out, protocol).dump(value)
    return out.getvalue()


def pickles(value, protocols):
    """The distinct ones of the C pickler, the Python one, and without unused memo codes."""
    found = []
    for protocol in protocols:
        made = [pickle.dumps(value, protocol)]
        if protocol % 2 == 0:
            made.append(pure(value, protocol))
        else:
            made.append(pickletools.optimize(made[0]))
        found += [data for data in made if data not in found]
    return found


def literal(data):
    """As a C string literal; hex escapes swallow digits that follow, octal ones do not."""
    text, line = [], ""
    for byte in data:
        char = chr(byte)
        line += char if 32 <= byte < 127 and char not in '"\\?' else f"\\{byte:03o}"
        if len(line) > 84:
            text.append(line)
            line = ""
    text.append(line)
    return "\n     ".join(f'"{part}"' for part in text)


def main():
    major, minor = sys.version_info[:2]
    print(f"/* Made by pickle_vectors.py with CPython {major}.{minor}; do not edit. */")
    print("/* clang-format off */")
    print("#define BYTES(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}")
    print(
        "static const struct {\n    const char *name;\n    cession_span pickle, msgpack;\n"
        "} vectors[] = {"
    )
    for name, value in [*VALUES.items(), ("folded", FOLDED)]:
        result = literal(encode(value))
        for data in pickles(value, range(4, 6) if name == "folded" else range(6)):
            assert encode(pickle.loads(data)) == encode(value)
            print(f'    {{"{name}",\n     BYTES({literal(data)}),\n     BYTES({result})}},')
    print("};\n#undef BYTES")


main()
