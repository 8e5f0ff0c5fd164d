"""A session is loaded late only where nobody can notice: whoever gets hold of it, in whatever way
and with whatever code, sees what is stored.

Two questions, over and over: does a session that was reached like this hold its data (HOLDERS,
PLACES), and does code that looks at it like that see them (LOOKS)? The file needs nothing but the
package, Flask and pytest, and runs on every Flask that the package supports; the last test runs it
on the older ones.
"""

from __future__ import annotations

import collections
import copy
import functools
import json
import operator
import pickle
import re
import sqlite3
import string
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flask
import flask_session
import msgspec
import orjson
import pytest
from flask import session
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionInterface, SessionMixin
from flask_session import Session, SessionStoreError, _core
from flask_session.base import MsgSpecSerializer, ServerSideSession
from flask_session.memory import MemorySession, MemorySessionInterface
from werkzeug.routing import BaseConverter

from tests.python.flask_version import LATE

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000

STORED = {
    "user": "ann",
    "count": 3,
    "cart": {"items": [1, 2, {"deep": True}]},
    "none": None,
    "_permanent": True,
}
BYTES = _core.encode(STORED)


# ---- looking at a session -----------------------------------------------------------------------


def match_statement(s):
    match s:
        case {"user": user, **rest}:
            return {"user": user, **rest}
        case _:
            return {}


def merged(s):
    other = {"user": "somebody", "own": 1}
    other |= s
    assert other.pop("own") == 1
    return other


def updated(s):
    other = {"user": "somebody"}
    other.update(s)
    return other


def in_place(s):
    s |= {"count": 3}
    return dict(s)


def by_sqlite(s):
    connection = sqlite3.connect(":memory:")
    try:
        row = connection.execute("select :user, :count", s).fetchone()
    finally:
        connection.close()
    return {**STORED, "user": row[0], "count": row[1]}


def in_template(s):
    text = flask.render_template_string(
        "{{ s.user }},{{ s['count'] }},{{ s.get('none') }},{{ s|length }},"
        "{% for key in s %}{{ key }};{% endfor %},{{ 'user' in s }},{{ s.absent is defined }}",
        s=s,
    )
    return STORED if text == f"ann,3,None,5,{';'.join(STORED)};,True,False" else {"saw": text}


def whole(given):
    """STORED when given is true, else what it was."""
    return STORED if given is True else {"saw": given}


def popped(s):
    return {**{key: s.pop(key) for key in list(STORED)}, **s}


def popped_items(s):
    return dict([s.popitem() for _ in range(len(STORED))])


def by_globals(s):
    try:
        return {**STORED, "user": eval("user", s), "count": eval("count", s)}
    finally:
        dict.pop(s, "__builtins__", None)


def keywords(**given):
    return given


# name -> what looks at a session and gives what it saw, which must be STORED. These work by what a
# session overrides, so they are right even if nothing was loaded before.
LOOKS = {
    "dict()": dict,
    "dict() and keyword": lambda s: dict(s, count=3),
    "{**s}": lambda s: {**s},
    "f(**s)": lambda s: keywords(**s),
    "format": lambda s: {**STORED, "user": "{user}".format(**s)},
    "format_map": lambda s: {**STORED, "user": "{user}".format_map(s)},
    "%": lambda s: {**STORED, "user": operator.mod("%(user)s", s)},
    "string.Template": lambda s: {**STORED, "user": string.Template("$user").substitute(s)},
    "|": lambda s: s | {},
    "right |": lambda s: {"user": "x"} | s,
    "|= into another": merged,
    "|=": in_place,
    "update of another": updated,
    "==": lambda s: whole(s == STORED),
    "== from the right": lambda s: whole(operator.eq(STORED, s)),
    "!=": lambda s: whole((s != STORED) is False),
    "!= empty": lambda s: whole(s != {}),
    "truth": lambda s: whole(bool(s)),
    "len": lambda s: whole(len(s) == len(STORED)),
    "in": lambda s: whole("user" in s and "absent" not in s),
    "iteration": lambda s: {key: STORED[key] for key in s},
    "[*s]": lambda s: {key: STORED[key] for key in [*s]},
    "comprehension": lambda s: {key: s[key] for key in s},
    "sorted": lambda s: whole(sorted(s) == sorted(STORED)),
    "reversed": lambda s: whole(list(reversed(s)) == list(reversed(STORED))),
    "reversed items": lambda s: dict(reversed(list(reversed(s.items())))),
    "[]": lambda s: {key: s[key] for key in STORED},
    "get": lambda s: {key: s.get(key) for key in STORED},
    "get with default": lambda s: {key: s.get(key, "default") for key in STORED},
    "setdefault": lambda s: {key: s.setdefault(key, "default") for key in STORED},
    "pop": popped,
    "popitem": popped_items,
    "items": lambda s: dict(s.items()),
    "keys": lambda s: {key: STORED[key] for key in s.keys()},  # noqa: SIM118
    "values": lambda s: dict(zip(STORED, s.values(), strict=True)),
    "keys as a set": lambda s: whole(s.keys() & {"user", "x"} == {"user"}),
    "items as a set": lambda s: whole(("user", "ann") in s.items()),
    "copy method": lambda s: s.copy(),
    "copy.copy": lambda s: dict(copy.copy(s)),
    "copy.deepcopy": lambda s: dict(copy.deepcopy(s)),
    "ChainMap": lambda s: dict(collections.ChainMap(s)),
    "ChainMap behind": lambda s: {key: collections.ChainMap({}, s)[key] for key in STORED},
    "OrderedDict": lambda s: dict(collections.OrderedDict(s)),
    "UserDict": lambda s: dict(collections.UserDict(s)),
    "fromkeys": lambda s: {key: STORED[key] for key in dict.fromkeys(s)},
    "MappingProxyType": lambda s: dict(types.MappingProxyType(s)),
    "SimpleNamespace": lambda s: vars(types.SimpleNamespace(**s)),
    "partial": lambda s: functools.partial(keywords, **s)(),
    "json, Python encoder": lambda s: json.loads(json.dumps(dict(s), indent=1)),
    "TaggedJSON": lambda s: TaggedJSONSerializer().loads(TaggedJSONSerializer().dumps(dict(s))),
    "jinja": in_template,
    "isinstance": lambda s: whole(isinstance(s, dict) and isinstance(s, SessionMixin)),
    "permanent": lambda s: whole(s.permanent is True),
    "new": lambda s: whole(s.new is False),
    "available": lambda s: whole(s.available is True),
    "sid": lambda s: whole(len(s.sid) == 43),
}

# The same for a session object, not the proxy: the proxy is no dict to these.
OBJECT_LOOKS = {
    "match": match_statement,
    "codec": lambda s: _core.decode(_core.encode(s)),
    "JSON codec": lambda s: _core.decode(_core.encode_json(s)),
    "serializer": lambda s: MsgSpecSerializer().decode(MsgSpecSerializer().encode(s)),
    "json with indent": lambda s: json.loads(json.dumps(s, indent=1)),
    "TaggedJSON of it": lambda s: TaggedJSONSerializer().loads(TaggedJSONSerializer().dumps(s)),
    "sqlite3 parameters": by_sqlite,
    **{
        f"pickle {protocol}": lambda s, p=protocol: dict(pickle.loads(pickle.dumps(s, p)))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}

# These read a dict's storage and pass by everything that a session overrides.
STORAGE_LOOKS = {
    "json": lambda s: json.loads(json.dumps(s)),
    "json, sorted": lambda s: json.loads(json.dumps(s, sort_keys=True)),
    "json, nested": lambda s: json.loads(json.dumps({"a": [s]}))["a"][0],
    "flask.json": lambda s: json.loads(flask.json.dumps(s)),
    "jsonify": lambda s: flask.jsonify({"a": s}).get_json()["a"],
    "tojson": lambda s: json.loads(flask.render_template_string("{{ s|tojson }}", s=s)),
    "orjson": lambda s: orjson.loads(orjson.dumps(s)),
    "orjson, nested": lambda s: orjson.loads(orjson.dumps([s]))[0],
    "msgspec.json": lambda s: msgspec.json.decode(msgspec.json.encode(s)),
    "msgspec.msgpack": lambda s: msgspec.msgpack.decode(msgspec.msgpack.encode(s)),
    "msgspec.to_builtins": lambda s: msgspec.to_builtins(s),
}
# The same for single items, or without a look at what they are.
DICT_LOOKS = {
    "msgspec.convert": lambda s: msgspec.convert(s, dict),
    "dict.items": lambda s: dict(dict.items(s)),
    "dict.keys": lambda s: {key: STORED[key] for key in dict.keys(s)},
    "dict.get": lambda s: {key: dict.get(s, key, "absent") for key in STORED},
    "dict.__getitem__": lambda s: {key: dict.__getitem__(s, key) for key in STORED},
    "dict.__contains__": lambda s: whole(dict.__contains__(s, "user")),
    "dict.__len__": lambda s: whole(dict.__len__(s) == len(STORED)),
    "dict.__iter__": lambda s: {key: STORED[key] for key in dict.__iter__(s)},
    "dict.__eq__": lambda s: whole(dict.__eq__(s, STORED)),
    "dict.copy": lambda s: dict.copy(s),
    "globals": by_globals,
    "class body": lambda s: {key: vars(type("C", (), s)).get(key, "absent") for key in STORED},
}

ALL_LOOKS = {**LOOKS, **OBJECT_LOOKS, **STORAGE_LOOKS, **DICT_LOOKS}


# ---- applications -------------------------------------------------------------------------------


class Site:
    """An application with sessions in memory, and a browser whose session holds STORED."""

    def __init__(self, interface=None, **settings):
        self.app = app = flask.Flask(__name__)
        app.config.update(settings)
        if interface is None:
            app.config["SESSION_TYPE"] = "memory"
            Session(app)
        else:
            app.session_interface = interface
        app.testing = True
        self.look = None
        self.seen = []

        @app.get("/untouched")
        def untouched():
            return "no session in sight"

        @app.get("/look")
        def view():
            self.seen.append(self.look())
            return "looked"

    @property
    def store(self):
        interface = self.app.session_interface
        return getattr(interface, "inner", interface)._store

    def client(self):
        """A browser with a session of its own."""
        sid = _core.generate_sid(32)
        assert self.store.create(sid, BYTES, HOUR)
        client = self.app.test_client()
        client.set_cookie("session", sid)
        return client

    def stored(self, client):
        cookie = client.get_cookie("session")
        record = cookie and self.store.load(cookie.value)
        return record and _core.decode(record[0])

    def operations(self):
        counts = self.store.counts()
        return {name: counts[name] for name in ("load", "create", "replace", "touch", "remove")}

    def in_view(self, look):
        """What look() gives in the view of a request that did not use its session before."""
        self.look, self.seen = look, []
        answer = self.client().get("/look")
        assert answer.status_code == 200, answer.text
        [seen] = self.seen
        return seen


@pytest.fixture
def site():
    return Site()


def raw_session():
    """The session object, passing by Flask's own notice that it is used."""
    context = flask.globals.request_ctx
    return context._session if hasattr(context, "_session") else context.session


def the_object():
    return session._get_current_object()


def assert_all_see(looks, try_look):
    wrong = {}
    for name, look in looks.items():
        try:
            seen = try_look(look)
        except Exception as error:
            seen = error
        if type(seen) is not dict or seen != STORED:
            wrong[name] = seen
    assert not wrong


# ---- every look, at a session reached in the usual ways -----------------------------------------


def test_through_the_proxy(site):
    assert_all_see(LOOKS, lambda look: site.in_view(lambda: look(session)))


def test_the_object(site):
    assert_all_see(ALL_LOOKS, lambda look: site.in_view(lambda: look(the_object())))


def test_the_object_behind_flask(site):
    """Taken out of the request context's private attribute: nobody was told of it."""
    looks = {**LOOKS, **OBJECT_LOOKS} if LATE else ALL_LOOKS
    assert_all_see(looks, lambda look: site.in_view(lambda: look(raw_session())))


def storage_is_loud(try_look):
    """What storage looks see of a session that is not loaded: it, or an error; never nothing."""
    seen = {}
    for name, look in STORAGE_LOOKS.items():
        try:
            seen[name] = try_look(look)
        except Exception as error:
            seen[name] = error
    return {
        name: what
        for name, what in seen.items()
        if not isinstance(what, Exception) and what != STORED
    }


def test_the_storage_behind_flask_is_never_empty(site):
    assert storage_is_loud(lambda look: site.in_view(lambda: look(raw_session()))) == {}
    if LATE:
        # Serializers that go by the methods see it all, as json's does for a dict subclass.
        assert site.in_view(lambda: STORAGE_LOOKS["json"](raw_session())) == STORED
        assert site.in_view(lambda: dict.__len__(raw_session())) > 0


def test_two_objects_of_the_same_session(site):
    def look():
        one = raw_session()
        two = site.app.session_interface.open_session(site.app, flask.request)
        assert one is not two
        return whole(one == two and two == one and operator.ne(one, two) is False)

    assert site.in_view(look) == STORED


def test_what_is_written_first_is_kept(site):
    writes = {
        "[]=": lambda s: s.__setitem__("new", 1),
        "update": lambda s: s.update(new=1),
        "setdefault": lambda s: s.setdefault("new", 1),
        "|=": lambda s: s.__ior__({"new": 1}),
    }
    for raw in (False, True):
        for write in writes.values():
            client = site.client()
            site.look = lambda raw=raw, write=write: write(raw_session() if raw else session)
            client.get("/look")
            assert site.stored(client) == {**STORED, "new": 1}
        client = site.client()
        site.look = lambda raw=raw: (raw_session() if raw else session).__delitem__("count")
        client.get("/look")
        assert site.stored(client) == {k: v for k, v in STORED.items() if k != "count"}


def test_nothing_that_is_shown_is_content(site):
    texts = []

    def look():
        texts.append(repr(raw_session()))
        texts.append(str(the_object()))
        return STORED

    site.in_view(look)
    assert texts == (
        ["<MemorySession, not loaded>", "<MemorySession with 5 keys>"]
        if LATE
        else ["<MemorySession with 5 keys>"] * 2
    )


# ---- what late loading is for -------------------------------------------------------------------


def test_loading_is_late_where_flask_allows_it(site):
    before = site.operations()
    client = site.client()
    answer = client.get("/untouched")
    after = site.operations()
    assert after["load"] - before["load"] == (0 if LATE else 1)
    assert "Vary" not in answer.headers
    assert "Set-Cookie" not in answer.headers


def test_one_load_however_often_it_is_used(site):
    before = site.operations()["load"]
    site.in_view(lambda: [session["user"], dict(session), the_object(), raw_session()])
    assert site.operations()["load"] - before == 1


def test_vary_says_that_it_was_used(site):
    site.look = lambda: raw_session().get("user")
    assert site.client().get("/look").headers["Vary"] == "Cookie"
    site.look = lambda: repr(raw_session()) and None
    assert "Vary" not in site.client().get("/look").headers


# ---- interfaces and session classes of an application's own -------------------------------------


class Holder:
    """What an override does with the session that it gets."""

    look = None
    seen: list = []  # noqa: RUF012

    @classmethod
    def take(cls, given):
        if cls.look is not None:
            look, cls.look = cls.look, None  # the first time only
            cls.seen.append(look(given))


class OpensItself(MemorySessionInterface):
    def open_session(self, app, request):
        opened = super().open_session(app, request)
        Holder.take(opened)
        return opened


class SavesItself(MemorySessionInterface):
    def save_session(self, app, session, response):
        Holder.take(session)
        super().save_session(app, session, response)


class AsksForNull(MemorySessionInterface):
    def is_null_session(self, obj):
        Holder.take(obj)
        return super().is_null_session(obj)


class AsksForStorage(MemorySessionInterface):
    def should_set_storage(self, app, session):
        Holder.take(session)
        return super().should_set_storage(app, session)


class AsksForCookie(MemorySessionInterface):
    def should_set_cookie(self, app, session):
        Holder.take(session)
        return super().should_set_cookie(app, session)


class AsksForExpiry(MemorySessionInterface):
    def get_expiration_time(self, app, session):
        Holder.take(session)
        return super().get_expiration_time(app, session)


class Wrapper(SessionInterface):
    def __init__(self, inner):
        self.inner = inner

    def open_session(self, app, request):
        opened = self.inner.open_session(app, request)
        Holder.take(opened)
        return opened

    def is_null_session(self, obj):
        return self.inner.is_null_session(obj)

    def save_session(self, app, session, response):
        self.inner.save_session(app, session, response)


class LateWrapper(Wrapper):
    """Looks at the session when the request ends."""

    def open_session(self, app, request):
        return self.inner.open_session(app, request)

    def save_session(self, app, session, response):
        Holder.take(session)
        self.inner.save_session(app, session, response)


def patched_instance():
    interface = MemorySessionInterface()
    original = interface.open_session

    def open_session(app, request):
        opened = original(app, request)
        Holder.take(opened)
        return opened

    interface.open_session = open_session
    return interface


def patched_class():
    """The method is put into the class after requests were served with the class as it was."""

    class Own(MemorySessionInterface):
        pass

    interface = Own()
    Site(interface).client().get("/untouched")

    def open_session(self, app, request):
        opened = super(Own, self).open_session(app, request)
        Holder.take(opened)
        return opened

    Own.open_session = open_session
    return interface


HOLDERS = {
    "open_session": OpensItself,
    "save_session": SavesItself,
    "is_null_session": AsksForNull,
    "should_set_storage": AsksForStorage,
    "should_set_cookie": AsksForCookie,
    "a wrapper": lambda: Wrapper(MemorySessionInterface()),
    "a wrapper that waits": lambda: LateWrapper(MemorySessionInterface()),
    "a method on the instance": patched_instance,
    "a method put into the class": patched_class,
}


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)
def test_override_gets_a_session_that_is_loaded(make):
    """In a request whose view uses the session or does not: the override sees all of it."""
    site = Site(make())

    def try_look(path, look):
        site.look = lambda: session.get("user")
        Holder.look, Holder.seen = look, []
        answer = site.client().get(path)
        assert answer.status_code == 200
        return Holder.seen

    asked = [path for path in ("/untouched", "/look") if try_look(path, dict)]
    assert "/look" in asked or make in (AsksForCookie, AsksForStorage)
    for path in asked:
        assert_all_see(ALL_LOOKS, lambda look, path=path: try_look(path, look)[0])


@pytest.mark.parametrize("name", ["should_set_storage", "should_set_cookie", "is_null_session"])
def test_overrides_that_are_asked_when_saving_are_asked(name):
    """The counterpart: these overrides do get the session in a request that changes it."""
    site = Site(HOLDERS[name]())
    site.look = lambda: session.update(more=1)
    Holder.look, Holder.seen = dict, []
    site.client().get("/look")
    assert Holder.seen == [{**STORED, "more": 1}]


def test_expiration_override_sees_what_is_saved():
    site = Site(AsksForExpiry())
    site.look = lambda: session.update(more=1)
    Holder.look, Holder.seen = dict, []
    site.client().get("/look")
    assert Holder.seen == [{**STORED, "more": 1}]


def test_session_class_that_counts_its_own_accesses():
    """Nobody tells such a session that Flask hands it out, so it is not loaded late."""
    for session_class in (AccessedPlain, AccessedMixed, AccessedProperty, AccessedSetter):

        class Own(MemorySessionInterface):
            pass

        Own.session_class = session_class
        site = Site(Own())
        assert_all_see(ALL_LOOKS, lambda look, site=site: site.in_view(lambda: look(the_object())))
        assert type(site.in_view(the_object)) is session_class


class AccessedPlain(MemorySession):
    accessed = False


class Mixin:
    accessed = True


class AccessedMixed(Mixin, MemorySession):
    pass


class AccessedProperty(MemorySession):
    @property
    def accessed(self):
        return True

    @accessed.setter
    def accessed(self, value):
        pass


class AccessedSetter(MemorySession):
    def __setattr__(self, name, value):
        pass


def test_session_class_with_methods_of_its_own():
    class Shouting(MemorySession):
        def __getitem__(self, key):
            value = super().__getitem__(key)
            return value.upper() if isinstance(value, str) else value

    class Own(MemorySessionInterface):
        session_class = Shouting

    site = Site(Own())
    assert site.in_view(lambda: session["user"]) == "ANN"
    assert site.in_view(lambda: raw_session()["user"]) == "ANN"
    plain = {**LOOKS, **STORAGE_LOOKS}
    for name in ("json", "orjson", "msgspec.msgpack", "len", "in", "items"):
        assert site.in_view(lambda name=name: plain[name](the_object())) == STORED


def test_interface_of_another_application():
    """One interface object serves two applications."""
    interface = MemorySessionInterface()
    one, two = Site(interface), Site(interface)
    for site in (one, two):
        assert_all_see(
            STORAGE_LOOKS, lambda look, site=site: site.in_view(lambda: look(the_object()))
        )


# ---- explicit open ------------------------------------------------------------------------------


def test_explicit_open_session(site):
    def opened(look):
        return site.in_view(
            lambda: look(site.app.session_interface.open_session(site.app, flask.request))
        )

    assert_all_see(ALL_LOOKS, opened)


def test_explicit_open_session_before_flasks_own():
    """While Flask is opening a request's session, the context has none yet: a second one that is
    opened for the same request looks just like Flask's."""
    opened = []

    class Own(MemorySessionInterface):
        def open_session(self, app, request):
            opened.append(MemorySessionInterface.open_session(self, app, request))
            return super().open_session(app, request)

    site = Site(Own())
    for name, look in ALL_LOOKS.items():
        opened.clear()
        site.client().get("/untouched")
        with site.app.app_context():
            assert look(opened[0]) == STORED, name


def test_explicit_open_session_outside_of_any_request(site):
    client = site.client()
    environ = {"HTTP_COOKIE": f"session={client.get_cookie('session').value}"}
    request = site.app.request_class(
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", **environ}
    )
    opened = site.app.session_interface.open_session(site.app, request)
    assert STORAGE_LOOKS["json"](opened) == STORED
    with site.app.test_request_context("/"):
        opened = site.app.session_interface.open_session(site.app, request)
        assert STORAGE_LOOKS["orjson"](opened) == STORED
        assert dict(session) == {"_permanent": True}


def test_session_transaction(site):
    def look_in(look):
        with site.client().session_transaction() as opened:
            return look(opened)

    with site.app.app_context():
        assert_all_see(ALL_LOOKS, look_in)


def test_session_transaction_saves(site):
    client = site.client()
    with client.session_transaction() as opened:
        assert orjson.loads(orjson.dumps(opened)) == STORED
        opened["more"] = 1
    assert site.stored(client) == {**STORED, "more": 1}
    site.look = lambda: dict(session)
    site.seen = []
    client.get("/look")
    assert site.seen == [{**STORED, "more": 1}]


def test_session_transaction_that_only_looks_changes_nothing(site):
    client = site.client()
    before = site.operations()
    with client.session_transaction():
        pass
    after = site.operations()
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} in (
        {"load": 1},
        {"load": 2},  # Flask before 3.1.3 opens the context's own session at once
    )
    assert site.stored(client) == STORED


def test_session_transaction_of_a_new_visitor(site):
    client = site.app.test_client()
    with client.session_transaction() as opened:
        assert opened.new
        opened["user"] = "bob"
    assert site.stored(client) == {"user": "bob", "_permanent": True}


# ---- every place of a request -------------------------------------------------------------------


def before_request(app, look):
    app.before_request(lambda: look())


def after_request(app, look):
    @app.after_request
    def after(response):
        look()
        return response


def after_this_request(app, look):
    @app.before_request
    def before():
        @flask.after_this_request
        def after(response):
            look()
            return response


def teardown_request(app, look):
    app.teardown_request(lambda error: look())


def url_value_preprocessor(app, look):
    app.url_value_preprocessor(lambda endpoint, values: look())


def url_defaults(app, look):
    app.url_defaults(lambda endpoint, values: look())
    app.before_request(lambda: flask.url_for("place") and None)


def context_processor(app, look):
    app.context_processor(lambda: {"x": look() or 1})
    app.before_request(lambda: flask.render_template_string("{{ x }}") and None)


def template(app, look):
    app.jinja_env.globals["look"] = lambda s: look(s) or ""
    app.before_request(lambda: flask.render_template_string("{{ look(session) }}") and None)


def converter(app, look):
    class Looking(BaseConverter):
        def to_python(self, value):
            look()
            return value

    app.url_map.converters["looking"] = Looking
    app.add_url_rule("/place/<looking:value>", "converted", lambda value: value)


def error_handler(app, look):
    @app.errorhandler(RuntimeError)
    def handle(error):
        look()
        return "handled"

    @app.get("/place/error")
    def fail():
        raise RuntimeError("of the view")


def error_handler_404(app, look):
    @app.errorhandler(404)
    def handle(error):
        look()
        return "handled"


def error_handler_500(app, look):
    @app.errorhandler(500)
    def handle(error):
        look()
        return "handled"

    @app.get("/place/error")
    def fail():
        raise RuntimeError("of the view")


def signal_request_started(app, look):
    app.extensions["keep"] = keep = lambda sender, **_: look()
    flask.request_started.connect(keep, app)


def signal_request_finished(app, look):
    app.extensions["keep"] = keep = lambda sender, **_: look()
    flask.request_finished.connect(keep, app)


def signal_request_tearing_down(app, look):
    app.extensions["keep"] = keep = lambda sender, **_: look()
    flask.request_tearing_down.connect(keep, app)


def streamed(app, look):
    @app.get("/place/stream")
    def stream():
        def generate():
            yield "a"
            look()
            yield "b"

        return flask.stream_with_context(generate())


def call_on_close(app, look):
    @app.get("/place/close")
    def close():
        response = flask.Response("x")
        copied = flask.copy_current_request_context(lambda: look())
        response.call_on_close(copied)
        return response


def copied_context(app, look):
    @app.get("/place/copied")
    def copied():
        run = flask.copy_current_request_context(lambda: look())
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return "x"


def pushed_again(app, look):
    @app.get("/place/pushed")
    def pushed():
        with flask.globals.request_ctx.copy():
            look()
        return "x"


# name -> (how look() gets there, what to ask for)
PLACES = {
    "before_request": (before_request, "/untouched"),
    "after_request": (after_request, "/untouched"),
    "after_this_request": (after_this_request, "/untouched"),
    "teardown_request": (teardown_request, "/untouched"),
    "url_value_preprocessor": (url_value_preprocessor, "/untouched"),
    "url_defaults": (url_defaults, "/untouched"),
    "context_processor": (context_processor, "/untouched"),
    "template": (template, "/untouched"),
    "url converter": (converter, "/place/x"),
    "errorhandler of an exception": (error_handler, "/place/error"),
    "errorhandler of 404": (error_handler_404, "/place/404"),
    "errorhandler of 500": (error_handler_500, "/place/error"),
    "request_started": (signal_request_started, "/untouched"),
    "request_finished": (signal_request_finished, "/untouched"),
    "request_tearing_down": (signal_request_tearing_down, "/untouched"),
    "stream_with_context": (streamed, "/place/stream"),
    "call_on_close": (call_on_close, "/place/close"),
    "copy_current_request_context": (copied_context, "/place/copied"),
    "a copy of the context": (pushed_again, "/place/pushed"),
}
# These run after the session was saved.
TOO_LATE_TO_SAVE = {
    "teardown_request",
    "request_finished",
    "request_tearing_down",
    "stream_with_context",
    "call_on_close",
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("earlier", [False, True], ids=["first use", "used before"])
def test_place(name, earlier):
    """Code that runs there sees the stored session, by one load, used before or not."""
    install, path = PLACES[name]
    # The error page of an exception nobody expects is not shown to tests.
    site = Site(PROPAGATE_EXCEPTIONS=False)
    if earlier:
        site.app.before_request(lambda: session.get("user") and None)
    names = ("dict()", "{**s}", "iteration", "truth", "[]", "|", "copy.deepcopy")
    looks = {**{name: LOOKS[name] for name in names}, "json of the object": None}
    current = []

    def look(given=session):
        if not site.seen:
            if current[0] is None:
                site.seen.append(STORAGE_LOOKS["json"](the_object()))
            else:
                site.seen.append(current[0](given))

    install(site.app, look)
    site.app.add_url_rule("/place", "place", lambda: "place")

    def try_look(looks):
        current[:] = [looks]
        site.seen = []
        before = site.operations()
        answer = site.client().get(path)
        answer.get_data()
        answer.close()
        assert answer.status_code in (200, 404), answer.text
        after = site.operations()
        assert after["load"] - before["load"] == 1
        [seen] = site.seen
        return seen

    assert_all_see(looks, try_look)


@pytest.mark.parametrize("name", PLACES)
def test_write_in_a_place(name):
    """What is written there first of all is added to what is stored; once the response was made
    it is too late, and what is stored stays."""
    install, path = PLACES[name]
    site = Site(PROPAGATE_EXCEPTIONS=False)
    install(site.app, lambda given=session: given.__setitem__("more", 1))
    site.app.add_url_rule("/place", "place", lambda: "place")
    client = site.client()
    answer = client.get(path)
    answer.get_data()
    answer.close()
    assert site.stored(client) == ({} if name in TOO_LATE_TO_SAVE else {"more": 1}) | STORED


def test_template_sees_the_session(site):
    site.look = lambda: flask.render_template_string(
        "{{ session.user }},{{ session['count'] }},{{ session|length }},{{ session.get('none') }},"
        "{% if session %}in{% endif %},{% for key in session %}{{ key }};{% endfor %}"
    )
    assert site.in_view(site.look) == f"ann,3,5,None,in,{';'.join(STORED)};"


def test_template_that_only_might_use_it_costs_nothing(site):
    before = site.operations()["load"]
    assert site.in_view(lambda: flask.render_template_string("{{ request.path }}")) == "/look"
    assert site.operations()["load"] - before == (0 if LATE else 1)


def test_client_that_keeps_the_context(site):
    for name, look in {**LOOKS, **OBJECT_LOOKS, **STORAGE_LOOKS}.items():
        with site.client() as client:
            client.get("/untouched")
            before = site.operations()["load"]
            assert look(the_object()) == STORED, name
            assert site.operations()["load"] - before == (1 if LATE else 0)


def test_streaming_goes_on_with_the_session_of_the_request(site):
    @site.app.get("/stream")
    def stream():
        session["user"] = "changed"

        def generate():
            yield json.dumps(the_object())
            yield "|" + session["user"]

        return flask.stream_with_context(generate())

    before = site.operations()
    client = site.client()
    first, second = client.get("/stream").text.split("|")
    after = site.operations()
    assert json.loads(first) == {**STORED, "user": "changed"}
    assert second == "changed"
    assert after["load"] - before["load"] == 1
    assert site.stored(client)["user"] == "changed"


# ---- threads ------------------------------------------------------------------------------------


class SlowStore:
    """A store that answers a load when it is told to."""

    name, capabilities = "slow", 0

    def __init__(self, error=None):
        self.error = error
        self.loading, self.go_on = threading.Semaphore(0), threading.Event()
        self.loads = 0

    def load(self, key, timeout):
        self.loads += 1
        self.loading.release()
        assert self.go_on.wait(20)
        if self.error:
            raise self.error
        return BYTES, b"", None

    def create(self, key, value, ttl_ms, timeout):
        return True

    def replace(self, key, expected, version, value, ttl_ms, timeout):
        return _core.OK

    def touch(self, key, expected, version, ttl_ms, timeout):
        return _core.OK

    def remove(self, key, timeout):
        pass


class SlowInterface(MemorySessionInterface):
    def __init__(self, slow):
        self.slow = slow
        super().__init__()

    def _open_store(self, key_prefix):
        return _core.Store.wrap(self.slow)


def test_many_threads_load_once_and_all_see_it():
    slow = SlowStore()
    site = Site(SlowInterface(slow))
    if not LATE:
        slow.go_on.set()  # the session is loaded before the view begins
    pool = ThreadPoolExecutor(8)
    seen = []

    @site.app.get("/threads")
    def threads():
        ways = [
            lambda: dict(session),
            lambda: json.loads(json.dumps(the_object())),
            lambda: orjson.loads(orjson.dumps(the_object())),
            lambda: {key: raw_session()[key] for key in STORED},
        ] * 2
        waiting = [pool.submit(flask.copy_current_request_context(way)) for way in ways]
        assert slow.loading.acquire(timeout=20)
        slow.go_on.set()
        seen.extend(future.result(20) for future in waiting)
        return "x"

    client = site.app.test_client()
    client.set_cookie("session", "a" * 43)
    with pool:
        assert client.get("/threads").status_code == 200
    assert seen == [STORED] * 8
    assert slow.loads == 1


def test_many_threads_see_the_failure_and_nobody_an_empty_session():
    slow = SlowStore(error=ConnectionError("down"))
    site = Site(SlowInterface(slow))
    if not LATE:
        slow.go_on.set()
    pool = ThreadPoolExecutor(4)
    errors = []

    @site.app.get("/threads")
    def threads():
        waiting = [
            pool.submit(flask.copy_current_request_context(lambda: dict(session))) for _ in range(4)
        ]
        assert slow.loading.acquire(timeout=20)
        slow.go_on.set()
        errors.extend(future.exception(20) for future in waiting)
        return "x"

    client = site.app.test_client()
    client.set_cookie("session", "a" * 43)
    with pool:
        assert client.get("/threads").status_code == 200
    assert [type(error) for error in errors] == [SessionStoreError] * 4
    assert slow.loads == 1


def test_thread_that_outlives_the_request(site):
    go_on = threading.Event()
    pool = ThreadPoolExecutor(1)
    later = []

    @site.app.get("/later")
    def later_view():
        def run():
            assert go_on.wait(20)
            return json.loads(json.dumps(the_object()))

        later.append(pool.submit(flask.copy_current_request_context(run)))
        return "x"

    with pool:
        assert site.client().get("/later").status_code == 200
        go_on.set()
        assert later[0].result(20) == STORED


# ---- a session that could not be loaded ---------------------------------------------------------


class DownStore(SlowStore):
    def __init__(self):
        super().__init__(ConnectionError("down"))
        self.go_on.set()


DOWN_LOOKS = {
    name: look
    for name, look in {**LOOKS, **OBJECT_LOOKS}.items()
    if name not in ("available", "isinstance")
}


def outcome(look):
    try:
        return look()
    except Exception as error:
        return error


@pytest.mark.parametrize("how", ["proxy", "object", "behind flask", "wrapper", "open", "saving"])
def test_failed_session_is_never_empty(how):
    """Everybody gets the error; code that reads a dict's storage gets an error at least."""
    taken = []

    class Own(SlowInterface):
        pass

    class Opens(SlowInterface):
        def open_session(self, app, request):
            opened = super().open_session(app, request)
            taken.append(opened)
            return opened

    class Saves(SlowInterface):
        def save_session(self, app, session, response):
            taken.append(session)
            super().save_session(app, session, response)

    down = DownStore()
    interface = {"wrapper": Own, "open": Opens, "saving": Saves}.get(how, Own)(down)
    site = Site(Wrapper(interface) if how == "wrapper" else interface)

    def try_look(look):
        client = site.app.test_client()
        client.set_cookie("session", "a" * 43)
        site.seen, taken[:] = [], []
        if how == "proxy":
            site.look = lambda: outcome(lambda: look(session))
        elif how == "object":
            site.look = lambda: outcome(lambda: look(the_object()))
        else:
            site.look = lambda: outcome(lambda: look(raw_session()))
        if how in ("proxy", "object", "behind flask", "wrapper"):
            assert client.get("/look").status_code == 200
            return site.seen[0]
        assert client.get("/untouched").status_code == 200
        return outcome(lambda: look(taken[-1]))

    # Where Python looks a method up by itself, it may drop the error of a proxy's look-up: then
    # iteration is a TypeError, and a comparison is one of identity.
    not_for_proxies = {*OBJECT_LOOKS, "==", "== from the right", "!=", "!= empty"}
    expected = (SessionStoreError, TypeError) if how == "proxy" else SessionStoreError
    needs_request = {"tojson", "jsonify", "jinja"}
    for name, look in DOWN_LOOKS.items():
        if how == "proxy" and name in not_for_proxies:
            continue
        if how in ("open", "saving") and name in needs_request:
            continue
        assert isinstance(try_look(look), expected), name
    if how != "proxy":
        for name, look in STORAGE_LOOKS.items():
            assert isinstance(try_look(look), Exception), name
    # The same session again and again, and the store is asked once in each request.
    down.loads = 0
    assert isinstance(
        try_look(lambda s: [outcome(lambda: s["user"]) for _ in range(3)][2]), Exception
    )
    assert down.loads <= 1


# ---- saving twice -------------------------------------------------------------------------------


def test_save_twice_with_another_request_in_between(site):
    client = site.client()

    @site.app.get("/twice")
    def twice():
        session["one"] = 1
        session.save()
        other = site.app.test_client()
        other.set_cookie("session", client.get_cookie("session").value)
        other.get("/other")
        session["two"] = 2
        session.save()
        session["three"] = 3
        return json.dumps(dict(session))

    @site.app.get("/other")
    def other_view():
        assert session["one"] == 1
        session["other"] = True
        session["count"] += 1
        return "x"

    before = site.operations()
    answer = client.get("/twice")
    after = site.operations()
    assert {name: after[name] - before[name] for name in after} == {
        "load": 2, "create": 0, "replace": 5, "touch": 0, "remove": 0,
    }  # fmt: skip
    assert json.loads(answer.text) == {**STORED, "one": 1, "two": 2, "three": 3}
    assert site.stored(client) == {
        **STORED, "count": 4, "one": 1, "two": 2, "three": 3, "other": True,
    }  # fmt: skip


def test_saving_an_unchanged_session_again_does_nothing(site):
    @site.app.get("/again")
    def again():
        session["user"] = "bob"
        session.save()
        session.save()
        site.app.session_interface.save_session(site.app, the_object(), flask.Response())
        return "x"

    client = site.client()
    before = site.operations()
    client.get("/again")
    after = site.operations()
    assert {name: after[name] - before[name] for name in after} == {
        "load": 1, "create": 0, "replace": 1, "touch": 0, "remove": 0,
    }  # fmt: skip
    assert site.stored(client)["user"] == "bob"


@pytest.mark.parametrize("when", ["view", "after_request"])
def test_flask_saves_again_when_an_error_ends_the_request(when):
    """The view's own changes are saved by the error path, once, with what the handler adds."""
    site = Site(PROPAGATE_EXCEPTIONS=False)
    raised = []

    @site.app.get("/fails")
    def fails():
        session["view"] = 1
        if when == "view":
            raise RuntimeError("of the view")
        return "x"

    @site.app.after_request
    def after(response):
        if when == "after_request" and flask.request.path == "/fails" and not raised:
            raised.append(True)
            raise RuntimeError("of the hook")
        return response

    @site.app.errorhandler(500)
    def handle(error):
        session["handler"] = json.loads(json.dumps(the_object()))["user"]
        return "sorry", 500

    client = site.client()
    before = site.operations()
    answer = client.get("/fails")
    after_ = site.operations()
    assert (answer.status_code, answer.text) == (500, "sorry")
    assert site.stored(client) == {**STORED, "view": 1, "handler": "ann"}
    assert after_["replace"] - before["replace"] == 1
    assert len(answer.headers.getlist("Set-Cookie")) == 1


def test_value_that_cannot_be_stored_is_one_error_and_no_write():
    site = Site(PROPAGATE_EXCEPTIONS=False)
    errors = []

    @site.app.get("/bad")
    def bad():
        session["bad"] = object()
        return "x"

    @site.app.errorhandler(500)
    def handle(error):
        errors.append(error.original_exception)
        return "sorry", 500

    client = site.client()
    before = site.operations()
    answer = client.get("/bad")
    after = site.operations()
    assert (answer.status_code, answer.text) == (500, "sorry")
    assert "Set-Cookie" not in answer.headers
    [error] = errors
    assert isinstance(error, TypeError)
    assert "bad" in str(error)
    assert {name: after[name] - before[name] for name in after} == {
        "load": 1, "create": 0, "replace": 0, "touch": 0, "remove": 0,
    }  # fmt: skip
    assert site.stored(client) == STORED


def test_reload_drops_what_was_not_saved(site):
    def look():
        session["user"] = "bob"
        session.reload()
        return json.loads(json.dumps(the_object()))

    assert site.in_view(look) == STORED


# ---- copies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_belong_to_no_store(site, copied):
    def look():
        made = copied(raw_session())
        assert type(made) is MemorySession
        assert made.sid is None
        made["own"] = 1
        with pytest.raises(RuntimeError, match="made by hand"):
            made.save()
        return dict(session)

    assert site.in_view(look) == STORED


def test_kinds(site):
    found = site.in_view(the_object)
    assert isinstance(found, (dict, SessionMixin, ServerSideSession, _core.Session))
    assert type(found) is MemorySession
    assert isinstance(found, SessionMixin)
    assert isinstance(found, dict)


# ---- other Flasks -------------------------------------------------------------------------------

RUN = """
import sys
root, files, *more = sys.argv[1:]
sys.path.insert(0, root)
sys.path += more  # behind the virtualenv's own packages: its Flask is the one that counts
import pytest
sys.exit(pytest.main([
    "-c", root + "/pyproject.toml", "--rootdir", root, "-p", "no:cacheprovider",
    "-m", "not server and not process",
    *(root + "/tests/python/test_" + name + ".py" for name in files.split()),
]))
"""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("venv", "version", "files"),
    [
        ("flask23", "2.3.3", "laziness operations headers"),
        pytest.param("flask30", "3.0.3", "laziness operations headers", marks=pytest.mark.full),
        pytest.param("flask312", "3.1.2", "laziness operations", marks=pytest.mark.full),
    ],
)
def test_on_other_flasks(predecessor, run_python, venv, version, files):
    """This file on the Flasks that load at once (tools/matrix.py runs everything on all)."""
    packages = dict.fromkeys(
        str(Path(module.__file__).resolve().parents[1])
        for module in (flask_session, pytest, msgspec, orjson)
    )
    output = run_python(
        predecessor(venv), RUN, str(ROOT), files, *packages, cession=True, timeout=280
    )
    assert f"Flask {version}," in output
    closing = output.strip().splitlines()[-1].strip("= ")
    count = re.fullmatch(r"(\d+) passed(, \d+ deselected)?(, \d+ warnings?)? in .*", closing)
    assert count, output[-3000:]
    assert int(count[1]) > 200
