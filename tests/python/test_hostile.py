"""Values and cookies that are not what they should be: corrupt, truncated, foreign, hostile.

Whatever lies in the store and whatever a browser sends, the visitor gets a new session and an
answer, the operator gets one event, and nothing is executed.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import random
import socket
import struct
import uuid
import zlib
from urllib.parse import urlsplit

import flask
import msgspec
import pytest
from flask import session
from flask_session import Session, _core, session_loaded, session_rejected
from flask_session.memory import MemorySessionInterface
from itsdangerous import Signer
from werkzeug.http import parse_cookie
from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Request

HOUR = 3_600_000
META = "__cession__"


#: (signal, receiver) of the test that is running.
listening = []


@pytest.fixture(autouse=True)
def deaf_afterwards():
    """Who listens costs the requests of other tests."""
    yield
    for signal, receive in listening:
        signal.disconnect(receive)
    listening.clear()


class Site:
    def __init__(self, kind, folder, client=None, interface=None, **settings):
        self.app = app = flask.Flask(__name__, instance_path=str(folder))
        app.config.update(SECRET_KEY="the key", SESSION_TYPE=kind, **settings)
        self.prefix = app.config.get("SESSION_KEY_PREFIX", "session:")
        self.client = client
        if client is not None:
            app.config["SESSION_REDIS"] = client
        if interface is None:
            Session(app)
        else:
            app.session_interface = interface
        self.store = app.session_interface._store
        self.events = []
        for name, signal in (("rejected", session_rejected), ("loaded", session_loaded)):

            def receive(sender, name=name, **details):
                self.events.append(name)

            signal.connect(receive, app)
            listening.append((signal, receive))

        @app.get("/untouched")
        def untouched():
            return "no session in sight"

        @app.get("/read")
        def read():
            return flask.jsonify({str(key): repr(value) for key, value in session.items()})

        @app.get("/write")
        def write():
            session["written"] = True
            return "written"

    def put(self, value):
        """A sid whose record is these bytes."""
        sid = _core.generate_sid(32)
        if self.client is not None:
            self.client.set(self.prefix + sid, value, px=HOUR)
        else:
            assert self.store.create(sid, value, HOUR)
        return sid

    def raw(self, sid):
        if self.client is not None:
            return self.client.get(self.prefix + sid)
        return self.store.load(sid)[0]

    def ask(self, path, cookie=None):
        """The answer to a request with this Cookie header, and the operations it took."""
        environ = EnvironBuilder(path=path).get_environ()
        if cookie is not None:
            environ["HTTP_COOKIE"] = cookie
        before = self.store.counts()
        self.events.clear()
        body, status, headers = run_wsgi_app(self.app, environ)
        text = b"".join(body).decode()
        after = self.store.counts()
        made = {name: after[name] - before[name] for name in ("load", "create", "replace")}
        made |= {name: after[name] - before[name] for name in ("touch", "remove")}
        return Reply(status, headers, text, {name: n for name, n in made.items() if n})


class Reply:
    def __init__(self, status, headers, text, operations):
        self.status, self.headers, self.text = status, headers, text
        self.operations = operations
        self.cookies = headers.getlist("Set-Cookie")

    @property
    def sid(self):
        """The value of the cookie that is set."""
        [cookie] = self.cookies
        return cookie.partition("=")[2].partition(";")[0]


@pytest.fixture
def redis_client(redis_server):
    redis = pytest.importorskip("redis")
    client = redis.Redis.from_url(redis_server.url, socket_timeout=10)
    yield client
    client.close()


@pytest.fixture(
    params=["sqlite", "filesystem", "memory", pytest.param("redis", marks=pytest.mark.server)]
)
def make_site(request, tmp_path):
    def make(**settings):
        if request.param == "redis":
            client = request.getfixturevalue("redis_client")
            settings.setdefault("SESSION_KEY_PREFIX", f"hostile-{uuid.uuid4()}:")
            return Site("redis", tmp_path, client, **settings)
        if request.param == "filesystem":
            settings.setdefault("SESSION_FILE_DIR", str(tmp_path / "sessions"))
        return Site(request.param, tmp_path, **settings)

    return make


@pytest.fixture(params=["msgpack", "json"])
def site(request, make_site):
    return make_site(SESSION_SERIALIZATION_FORMAT=request.param)


@contextlib.contextmanager
def named(name):
    """Says in which of many cases an assertion failed."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error


def assert_new_session(site, sid):
    """The record is not a session: read, written past, and left as it is."""
    before = site.raw(sid)
    reply = site.ask("/read", f"session={sid}")
    assert reply.status == "200 OK"
    assert json.loads(reply.text) == {"_permanent": "True"}
    assert site.events == ["rejected"]
    assert reply.operations == {"load": 1}
    assert reply.cookies == []
    reply = site.ask("/untouched", f"session={sid}")
    assert reply.status == "200 OK"
    reply = site.ask("/write", f"session={sid}")
    assert reply.status == "200 OK"
    assert site.events == ["rejected"]
    assert reply.operations == {"load": 1, "create": 1}
    assert reply.sid != sid
    assert site.raw(sid) == before


# ---- values that are no session -----------------------------------------------------------------

GOOD = {
    "user": "ann",
    "count": 3,
    "float": 1.5,
    "bytes": b"\x00\xff",
    "nested": {"list": [1, [2, {"deep": None}]]},
    "tuple": (1, "x"),
    "_permanent": True,
}
PACKED, JSON = _core.encode(GOOD), _core.encode_json(GOOD)


def array_of(depth):
    return b"\x91" * depth + b"\x90"


NO_SESSION = {
    "empty": b"",
    "NUL": b"\x00",
    "text": b"hello",
    "HTML": b"<!doctype html><title>x</title>",
    "XML": b"<?xml version='1.0'?><x/>",
    "PHP session": b'user|s:3:"ann";count|i:3;',
    "UTF-16": '{"user": "ann"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + b'{"user": "ann"}',
    "gzip": gzip.compress(PACKED),
    "zlib": zlib.compress(PACKED),
    "base64": b"gaR1c2VyoTE=",
    "a signed cookie": b"eyJ1c2VyIjoiYW5uIn0.Zm9v.bar",
    "MessagePack nil": b"\xc0",
    "MessagePack integer": b"\x05",
    "MessagePack text": msgspec.msgpack.encode("user"),
    "MessagePack array": msgspec.msgpack.encode([GOOD["nested"]]),
    "MessagePack array of pairs": msgspec.msgpack.encode([["user", "ann"]]),
    "reserved byte": b"\x81\xa1a\xc1",
    "two values": PACKED + PACKED,
    "something behind it": PACKED + b"\x00",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "array of 4 billion": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "text of 4 GB": b"\x81\xa1a\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "extension of 4 GB": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "deep": b"\x81\xa1a" + array_of(100_000),
    "deep maps": b"\x81\xa1a" * 50_000 + b"\xc0",
    "no UTF-8": b"\x81\xa1a\xa2\xff\xfe",
    "no UTF-8 in a key": b"\x81\xa2\xff\xfe\xa1a",
    "a surrogate": b"\x81\xa1a\xa3\xed\xa0\x80",
    "a map as a key": b"\x81\x81\xa1a\xa1b\xc0",
    "unknown extension": b"\x81\xa1a" + msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"x")),
    "timestamp out of range": b"\x81\xa1a\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62),
    "timestamp of a wrong size": b"\x81\xa1a\xc7\x03\xff\x00\x00\x00",
    **{
        f"garbage in extension {code}": msgspec.msgpack.encode(
            {"a": msgspec.msgpack.Ext(code, b"\xff" * 7)}
        )
        for code in (-2, *range(1, 21))
        if code != 5  # any bytes are a bytearray
    },
    "JSON null": b"null",
    "JSON number": b"1",
    "JSON text": b'"user"',
    "JSON array": b'[["user", "ann"]]',
    "JSON cut": b'{"user": "an',
    "JSON with a comma": b'{"user": "ann",}',
    "JSON with comments": b'{"user": "ann" /* x */}',
    "JSON with quotes missing": b'{user: "ann"}',
    "JSON NaN": b'{"a": NaN}',
    "JSON Infinity": b'{"a": -Infinity}',
    "JSON number too large": b'{"a": 1e999}',
    "JSON lone surrogate": b'{"a": "\\ud800"}',
    "JSON control character": b'{"a": "\x01"}',
    "JSON no UTF-8": b'{"a": "\xff"}',
    "JSON deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "JSON unknown tag": b'{"a": {"__cession__nothing": 1}}',
    "JSON twice": b'{"a": 1}{"a": 1}',
    "Python": b"{'user': 'ann'}",
    "SQL": b"'; DROP TABLE session; --",
    "random 1": random.Random(1).randbytes(50),
    "random 2": b"\x8f" + random.Random(2).randbytes(5000),
    "random 3": b"{" + random.Random(3).randbytes(500) + b"}",
    "metadata that is text": b"\x81" + msgspec.msgpack.encode(META)[:5] + b"\xa1x",
}


def test_values_that_are_no_session(site):
    for name, value in NO_SESSION.items():
        with named(name):
            assert_new_session(site, site.put(value))


@pytest.mark.parametrize("value", [PACKED, JSON], ids=["msgpack", "json"])
def test_truncated_at_every_byte(site, value):
    for length in range(len(value)):
        sid = site.put(value[:length])
        reply = site.ask("/read", f"session={sid}")
        assert reply.status == "200 OK", length
        assert json.loads(reply.text) == {"_permanent": "True"}, length
        assert site.events == ["rejected"], length
        assert reply.cookies == []


@pytest.mark.parametrize("value", [PACKED, JSON], ids=["msgpack", "json"])
def test_every_bit_flipped(site, value, long_run):
    """What is still a session is loaded, anything else is refused; each is one event, and writing
    does as with any other. Every bit where the store is memory, else every seventh."""
    step = 1 if long_run or site.store.name == "memory" else 7
    seen = {"loaded": 0, "rejected": 0}
    for at in range(0, len(value) * 8, step):
        flipped = bytearray(value)
        flipped[at // 8] ^= 1 << (at % 8)
        sid = site.put(bytes(flipped))
        reply = site.ask("/read", f"session={sid}")
        assert reply.status == "200 OK", at
        [event] = site.events
        seen[event] += 1
        if event == "rejected":
            assert json.loads(reply.text) == {"_permanent": "True"}, at
            assert reply.cookies == [], at
        if at // step % 16 == 0:
            reply = site.ask("/write", f"session={sid}")
            assert reply.status == "200 OK", at
            assert site.events == [event], at
            assert reply.operations == {"load": 1, "replace" if event == "loaded" else "create": 1}
            if event == "rejected":
                assert reply.sid != sid
                assert site.raw(sid) == flipped
    assert seen["loaded"] > 100 / step
    assert seen["rejected"] > 100 / step


META_VALUES = [
    None, True, 0, "x", b"x", [], [1], {}, {"t": False}, {"t": 1}, {"t": "x"}, {"x": {"t": True}},
]  # fmt: skip


@pytest.mark.parametrize("pack", [msgspec.msgpack.encode, msgspec.json.encode])
def test_metadata_that_is_not_ours(site, pack):
    """The reserved key with anything under it: it is never shown and never an error."""
    for meta in META_VALUES:
        sid = site.put(pack({META: meta, "user": "ann"}))
        with named(meta):
            reply = site.ask("/read", f"session={sid}")
            assert reply.status == "200 OK"
            assert META not in reply.text
            assert len(site.events) == 1
            reply = site.ask("/write", f"session={sid}")
            assert reply.status == "200 OK"
            assert META not in reply.text


def test_a_tombstone_with_data_shows_none(site):
    sid = site.put(msgspec.msgpack.encode({META: {"t": True}, "user": "ann"}))
    reply = site.ask("/read", f"session={sid}")
    assert reply.status == "200 OK"
    assert "ann" not in reply.text
    assert reply.cookies == []
    reply = site.ask("/write", f"session={sid}")
    assert reply.operations == {"load": 1}
    assert reply.cookies == []


def test_value_larger_than_any_session(tmp_path):
    class Huge:
        """A store that holds 65 MB under every id."""

        name, capabilities = "huge", 0
        value = PACKED + bytes(65 << 20)

        def load(self, key, timeout):
            return self.value, b"", None

        def create(self, key, value, ttl_ms, timeout):
            return True

        replace = touch = remove = create

    class Interface(MemorySessionInterface):
        def _open_store(self, key_prefix):
            return _core.Store.wrap(Huge())

    site = Site("memory", tmp_path, interface=Interface())
    for _ in range(7):  # no failure of the store either, which would be given a rest
        reply = site.ask("/write", f"session={SID}")
        assert reply.status == "200 OK"
        assert site.events == ["rejected"]
        assert reply.operations == {"load": 1, "create": 1}
        assert reply.sid != SID


# ---- pickles ------------------------------------------------------------------------------------


class Payload:
    """Its pickle makes a file when it is read by pickle.loads."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


class Setter:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def hostile_pickles(path):
    text = str(path).encode()
    found = {}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found[f"alone {protocol}"] = pickle.dumps(Payload(path), protocol)
        found[f"inside {protocol}"] = pickle.dumps({"user": "ann", "x": Payload(path)}, protocol)
        found[f"nested {protocol}"] = pickle.dumps({"a": [{"b": (Setter(path),)}]}, protocol)
        found[f"key {protocol}"] = pickle.dumps({(Payload(path), 1): 1}, protocol)
    found["GLOBAL, REDUCE"] = b"cposix\nmknod\n(V" + text + b"\ntR."
    found["INST"] = b"(V" + text + b"\niposix\nmknod\n."
    found["OBJ"] = b"(cposix\nmknod\nV" + text + b"\no."
    found["NEWOBJ"] = b"\x80\x02cposix\nmknod\nV" + text + b"\n\x85\x81."
    found["then a dict"] = b"cposix\nmknod\n(V" + text + b"\ntR0}V_\nI1\ns."
    found["before a dict"] = b"}(V_\ncposix\nmknod\n(V" + text + b"\ntRu."
    # Run by the very first opcodes; what follows does not even parse.
    found["then garbage"] = b"cposix\nmknod\n(V" + text + b"\ntR\xff\xff\xff"
    found["extension registry"] = b"\x80\x02\x82\x01."
    found["persistent id"] = b"}V_\nPuser\ns."
    return found


def test_pickles_with_code_do_what_they_should(tmp_path):
    """The counterpart: pickle.loads does run them, so the test below means something."""
    path = tmp_path / "executed"
    harmless = set()
    for name, value in hostile_pickles(path).items():
        with contextlib.suppress(Exception):
            pickle.loads(value)
        if path.exists():
            path.unlink()
        else:
            harmless.add(name)
    # What these ask for is not there; they are refused all the same.
    assert harmless == {"NEWOBJ", "extension registry", "persistent id"}


def test_pickles_with_code_are_not_run(site, tmp_path):
    path = tmp_path / "executed"
    for name, value in hostile_pickles(path).items():
        with named(name):
            assert_new_session(site, site.put(value))
            assert not path.exists()


def test_pickles_of_other_objects(site):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (
            pickle.dumps(uuid.uuid4(), protocol),
            pickle.dumps({"x": flask.Flask}, protocol),
            pickle.dumps({"x": print}, protocol),
            pickle.dumps([("user", "ann")], protocol),
            pickle.dumps("user", protocol),
            pickle.dumps({"user": "ann"}, protocol)[:-1],
            pickle.dumps({"user": "ann"}, protocol)[:-4] + b".",
        ):
            with named(value):
                assert_new_session(site, site.put(value))


# ---- Redis keys of another type -----------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize(
    "make",
    [
        lambda client, name: client.rpush(name, "user", "ann"),
        lambda client, name: client.hset(name, mapping={"user": "ann"}),
        lambda client, name: client.sadd(name, "user"),
        lambda client, name: client.zadd(name, {"user": 1}),
        lambda client, name: client.xadd(name, {"user": "ann"}),
    ],
    ids=["list", "hash", "set", "zset", "stream"],
)
@pytest.mark.parametrize("protocol", [2, 3], ids=["resp2", "resp3"])
def test_redis_key_of_another_type(tmp_path, redis_server, make, protocol):
    redis = pytest.importorskip("redis")
    client = redis.Redis.from_url(redis_server.url, socket_timeout=10, protocol=protocol)
    prefix = f"hostile-{uuid.uuid4()}:"
    site = Site("redis", tmp_path, client, SESSION_KEY_PREFIX=prefix)
    sid = _core.generate_sid(32)
    make(client, prefix + sid)
    before = client.dump(prefix + sid)
    site.raw = lambda sid: client.dump(prefix + sid)
    assert_new_session(site, sid)
    assert client.dump(prefix + sid) == before
    client.delete(prefix + sid)
    client.close()


# ---- cookies ------------------------------------------------------------------------------------


def signed(value, key, salt="flask-session"):
    return Signer(key, salt=salt, key_derivation="hmac").sign(value).decode()


SID = "A" * 43
# Cookie headers that bring something under the name `session` which is no id.
COOKIES = {
    "3,800 characters": "session=" + "a" * 3800,
    "257 characters": "session=" + "a" * 257,
    "60,000 characters": "session=" + "a" * 60_000,
    "15 characters": "session=" + "a" * 15,
    "one character": "session=a",
    "spaces": "session=" + SID + " " + SID,
    "spaces around": "session= " + SID + "! ; other=1",
    "quoted spaces": f'session="{SID} {SID}"',
    "quoted": f'session="{SID}!"',
    "one quote": f'session="{SID}',
    "quote inside": f'session={SID}"',
    "escaped NUL": f'session="{SID}\\000"',
    "NUL": f"session={SID}\x00",
    "NUL first": f"session=\x00{SID}",
    "escaped newline": f'session="{SID}\\012Set-Cookie: x=y"',
    "newline": f"session={SID}\nSet-Cookie: x=y",
    "carriage return": f"session={SID}\r\nX: y",
    "tabulator": f"session={SID}\t{SID}",
    "percent": f"session={SID}%00",
    "percent newline": f"session={SID}%0d%0aX:%20y",
    "latin-1": f"session={SID}\xe9",
    "UTF-8": f"session={SID}" + "é€😀".encode().decode("latin-1"),
    "invalid UTF-8": f"session={SID}\xff\xfe",
    "full-width letters": "session=" + ("\uff21" * 20).encode().decode("latin-1"),
    "escaped UTF-8": f'session="{SID}\\303\\251"',
    "path": "session=../../../../etc/passwd",
    "absolute path": "session=/etc/passwd/////////",
    "backslashes": "session=..\\..\\..\\windows\\system32",
    "key of another": "session=session:" + SID,
    "pattern": "session=*" + "?" * 20 + "[a]",
    "Redis protocol": "session=*1$8FLUSHALL" + SID,
    "SQL": "session='OR'1'='1'--aaaaaaaaaaaa",
    "JSON": 'session={"user":"ann","x":1}',
    "format": "session=%s%s%s%n%n%n%d%d%d%d",
    "template": "session={{config}}{{7*7}}{{x}}",
    "equals": "session=" + "=" * 30,
    "dots": "session=" + "." * 30,
    "a dot": f"session={SID}.x",
    "signed by another key": "session=" + signed(SID, "another key"),
    "signed with another salt": "session=" + signed(SID, "the key", "another salt"),
    "a signed non-id": "session=" + signed("../../etc/passwd", "the key"),
    "signed path of length": "session=" + signed("../" * 20, "the key"),
    "signature only": "session=." + signed(SID, "the key").rpartition(".")[2],
    "a Flask cookie": "session=eyJ1c2VyIjoiYW5uIn0.ZxY3fQ.3qv5mYHh1mQm1V6N8mYd3mHn6V0",
    "DEL": f"session={SID}\x7f",
    "controls": f"session={SID}\x01\x02\x1b[31m",
    "comma": f"session={SID},{SID}",
    "bad first": f"session=bad; session={SID}",
}


def expected_event(header):
    """One event where werkzeug finds a value, none where it finds no such cookie."""
    request = Request(EnvironBuilder().get_environ() | {"HTTP_COOKIE": header})
    return ["rejected"] if request.cookies.get("session") else []


@pytest.mark.parametrize("use_signer", [False, True], ids=["plain", "signer"])
def test_cookies_that_are_no_id(make_site, use_signer):
    site = make_site(SESSION_USE_SIGNER=use_signer)
    for name, header in COOKIES.items():
        with named(name):
            assert_no_id(site, header)


def assert_no_id(site, header):
    expected = expected_event(header)
    for path, operations in (("/untouched", {}), ("/read", {}), ("/write", {"create": 1})):
        reply = site.ask(path, header)
        assert reply.status == "200 OK"
        assert site.events == expected
        assert reply.operations == operations
        if path == "/read":
            assert json.loads(reply.text) == {"_permanent": "True"}
        if path == "/write":
            value = parse_cookie(reply.cookies[0].partition(";")[0])["session"]
            assert value.partition(".")[0] != SID
            assert value not in header
        else:
            assert reply.cookies == []
        shown = "\n".join(f"{key}: {line}" for key, line in reply.headers)
        assert "x=y" not in shown
        assert SID not in shown


def test_most_of_these_cookies_are_events():
    """The counterpart: what werkzeug finds in them is a value."""
    assert sum(bool(expected_event(header)) for header in COOKIES.values()) > 35


@pytest.mark.parametrize(
    "sid",
    [
        SID,
        "a" * 16,
        "a" * 256,
        "-" * 20,
        "_" * 43,
        "0" * 32,
        str(uuid.UUID(int=20)),
        "session-id-session",
    ],
    ids=lambda sid: sid[:20],
)
def test_id_of_the_visitor_s_own_choice(make_site, sid):
    """It looks like an id, so it is looked up, once; it is never taken over."""
    site = make_site()
    assert site.ask("/untouched", f"session={sid}").operations in ({}, {"load": 1})
    reply = site.ask("/read", f"session={sid}")
    assert (reply.status, reply.operations, reply.cookies) == ("200 OK", {"load": 1}, [])
    assert site.events == []
    reply = site.ask("/write", f"session={sid}")
    assert (reply.status, reply.operations) == ("200 OK", {"load": 1, "create": 1})
    assert reply.sid != sid
    assert site.store.load(sid) is None


def test_unsigned_id_of_a_live_session_where_ids_are_signed(make_site):
    site = make_site(SESSION_USE_SIGNER=True)
    sid = site.put(_core.encode({"user": "ann"}))
    for cookie in (
        sid,
        sid + ".",
        signed(sid, "another key"),
        signed(sid, "the key", "another salt"),
        signed(sid, "the key")[:-1],
        signed(sid, "the key") + "A",
        signed(sid, "the key").swapcase(),
    ):
        reply = site.ask("/read", f"session={cookie}")
        assert reply.status == "200 OK"
        assert "ann" not in reply.text
        assert reply.operations == {}
        assert site.events == ["rejected"]
    assert "ann" in site.ask("/read", f"session={signed(sid, 'the key')}").text


def test_every_character_in_a_cookie(make_site):
    """All bytes that a header can hold, at the start, in the middle and at the end of an id."""
    site = make_site()
    valid = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for number in range(256):
        char = chr(number)
        for value in (char + SID, SID[:20] + char + SID[:20], SID + char):
            header = f"session={value}"
            found = Request(EnvironBuilder().get_environ() | {"HTTP_COOKIE": header}).cookies.get(
                "session"
            )
            ours = bool(found) and found.isascii() and all(c in valid for c in found.encode())
            reply = site.ask("/read", header)
            assert reply.status == "200 OK", number
            assert site.events == (["rejected"] if found and not ours else []), number
            assert reply.operations == ({"load": 1} if ours else {}), number


@pytest.mark.process
@pytest.mark.slow
def test_raw_bytes_over_a_socket(gunicorn_app):
    """What no client library would send; the server may refuse it, the application never fails."""
    server = gunicorn_app(
        "app:app",
        source=(
            "import flask, flask_session\n"
            "from flask import session\n"
            "app = flask.Flask(__name__)\n"
            "app.config.update(SESSION_TYPE='sqlite')\n"
            "flask_session.Session(app)\n"
            "@app.get('/')\n"
            "def read():\n"
            "    seen = dict(session)\n"
            "    session['x'] = 1\n"
            "    return flask.jsonify(seen)\n"
        ),
        workers=1,
    )
    site = urlsplit(server.url)
    answered = 0
    for header in COOKIES.values():
        with socket.create_connection((site.hostname, site.port), timeout=20) as connection:
            connection.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: "
                + header.encode("latin-1")
                + b"\r\n\r\n"
            )
            answer = b""
            while data := connection.recv(65536):
                answer += data
        status = int(answer.split()[1])
        assert status in (200, 400, 431), (header[:60], answer[:300])
        if status == 200:
            answered += 1
            assert b'{"_permanent":true}' in answer
            [line] = [line for line in answer.split(b"\r\n") if line.startswith(b"Set-Cookie")]
            assert SID.encode() not in line
    assert answered > 30
    assert "Traceback" not in server.log()


# ---- one store, several applications ------------------------------------------------------------


def test_record_of_another_prefix_cannot_be_read(make_site):
    """Several applications in one store: an id counts only under its own prefix."""
    start = f"hostile-{uuid.uuid4()}:"
    prefixes = [start, start + "admin:", start + "a:", "x" + start]
    sites = [make_site(SESSION_KEY_PREFIX=prefix) for prefix in prefixes]
    for owner in sites:
        sid = owner.put(_core.encode({"user": owner.prefix}))
        for other in sites:
            reply = other.ask("/read", f"session={sid}")
            assert reply.status == "200 OK"
            assert (owner.prefix in reply.text) is (owner is other)
        # Nor by an id that begins with what the other prefix has more.
        for rest in ("admin:" + sid, "a:" + sid, "a" + sid, ":" + sid):
            reply = sites[0].ask("/read", f"session={rest}")
            assert reply.status == "200 OK"
            assert "user" not in reply.text


def test_destroying_another_prefix_s_session_is_impossible(make_site):
    start = f"hostile-{uuid.uuid4()}:"
    one, two = (make_site(SESSION_KEY_PREFIX=start + name) for name in ("one:", "two:"))
    sid = one.put(_core.encode({"user": "ann"}))
    for path in ("/read", "/write"):
        two.ask(path, f"session={sid}")
    assert one.raw(sid) == _core.encode({"user": "ann"})
    assert "ann" in one.ask("/read", f"session={sid}").text
