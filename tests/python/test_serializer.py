"""An application's own serializer in place of the stored format."""

from __future__ import annotations

import enum
import gc
import json
import pickle
import secrets
import weakref
from datetime import timedelta

import flask
import orjson
import pytest
from flask_session import Session, SessionStoreError, _core
from flask_session.base import MsgSpecSerializer, Serializer, ServerSideSession
from flask_session.memory import MemorySessionInterface


class Reversed(Serializer):
    """As applications wrote it for Flask-Session: encode and decode. Nothing in its bytes can be
    recognized from outside."""

    def encode(self, session):
        return json.dumps(session).encode()[::-1].hex().encode()

    def decode(self, serialized_data):
        return json.loads(bytes.fromhex(serialized_data.decode())[::-1])


class Sealed:
    """As applications encrypt sessions: two dumps of one value differ."""

    def dumps(self, session):
        return secrets.token_bytes(8) + pickle.dumps(session)

    def loads(self, value):
        return pickle.loads(value[8:])


SERIALIZERS = {
    "orjson": orjson,
    "json": json,
    "pickle": pickle,
    "encode": Reversed(),
    "sealed": Sealed(),
}
EQUAL_BYTES = [name for name in SERIALIZERS if name != "sealed"]


@pytest.fixture(params=SERIALIZERS)
def serializer(request):
    return SERIALIZERS[request.param]


def make_app(serializer=None, **settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="memory", **settings)
    app.testing = True
    Session(app)
    if serializer is not None:
        app.session_interface.serializer = serializer

    @app.get("/set/<key>/<value>")
    def put(key, value):
        flask.session[key] = value
        return "set"

    @app.get("/get")
    def get():
        return dict(flask.session)

    @app.get("/delete/<key>")
    def delete(key):
        del flask.session[key]
        return "deleted"

    @app.get("/clear")
    def clear():
        flask.session.clear()
        return "cleared"

    @app.get("/nested/<value>")
    def nested(value):
        flask.session["nested"]["value"] = value
        return "changed"

    app.add_url_rule("/race", "race")

    @app.get("/regenerate")
    def regenerate():
        flask.session.regenerate()
        return "new"

    return app


def stats(app):
    return app.extensions["flask_session"].stats()


def sid_of(client):
    return client.get_cookie("session").value


def loads(serializer):
    return getattr(serializer, "loads", None) or serializer.decode


def twin(app, client):
    """Another browser with the same cookie."""
    other = app.test_client()
    other.set_cookie("session", sid_of(client))
    return other


def race(app, client, inner, outer):
    """`inner` is done by another request while `outer`, which came first, is under way."""
    other = twin(app, client)

    def view():
        outer(flask.session)
        return other.get(inner).text

    app.view_functions["race"] = view
    return client.get("/race")


# ---- round trips --------------------------------------------------------------------------------


def test_what_is_stored_is_what_the_serializer_writes(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/name/ann")
    stored = app.extensions["flask_session"].store.load(sid_of(client))[0]
    assert loads(serializer)(stored) == {"_permanent": True, "name": "ann"}
    assert client.get("/get").json == {"_permanent": True, "name": "ann"}
    client.get("/set/name/bob")
    assert client.get("/get").json["name"] == "bob"
    sid = sid_of(client)
    client.get("/clear")
    assert client.get_cookie("session") is None
    assert app.extensions["flask_session"].store.load(sid) is None


@pytest.mark.parametrize("name", EQUAL_BYTES)
def test_a_read_does_not_write(name):
    app = make_app(SERIALIZERS[name])
    client = app.test_client()
    client.get("/set/name/ann")
    before = stats(app)
    client.get("/get")
    after = stats(app)
    assert {key: after[key] - before[key] for key in ("load", "replace", "touch", "create")} == {
        "load": 1,
        "replace": 0,
        "touch": 0,
        "create": 0,
    }


def test_unequal_bytes_write_whenever_the_session_is_used():
    app = make_app(Sealed())
    client = app.test_client()
    client.get("/set/name/ann")
    client.get("/get")
    assert stats(app)["replace"] == 1


def test_nested_changes_are_stored(serializer):
    app = make_app(serializer)
    client = app.test_client()
    with client.session_transaction() as session:
        session["nested"] = {"value": 1}
    client.get("/nested/2")
    assert client.get("/get").json["nested"] == {"value": "2"}


class Colour(enum.Enum):
    RED = 1


def test_any_type_that_the_serializer_takes():
    app = make_app(pickle)
    client = app.test_client()
    value = {"colour": Colour.RED, 5: {1, 2}, "deep": [("a", b"b")]}
    with client.session_transaction() as session:
        session.update(value)
    with client.session_transaction() as session:
        assert dict(session) == {**value, "_permanent": True}


def test_a_class_attribute_counts():
    class Own(MemorySessionInterface):
        serializer = json

    app = flask.Flask(__name__)
    interface = Own(app)
    assert interface.serializer is json
    assert interface._encode({"a": 1}) == b'{"a": 1}'


def test_ours_can_be_put_back():
    interface = MemorySessionInterface()
    interface.serializer = json
    interface.serializer = MsgSpecSerializer(None, "json")
    assert interface._encode({"a": (1,)}) == _core.encode_json({"a": (1,)})
    interface.serializer = MsgSpecSerializer()
    assert interface._encode({"a": (1,)}) == _core.encode({"a": (1,)})


def test_one_around_ours():
    interface = MemorySessionInterface()
    inner = interface.serializer

    class Around(MsgSpecSerializer):
        def encode(self, session):
            return b"!" + inner.dumps(session)

        def decode(self, serialized_data):
            return inner.loads(serialized_data[1:])

    interface.serializer = Around()
    assert interface._encode({"a": (1,)}) == b"!" + _core.encode({"a": (1,)})
    assert interface._decode(b"!" + _core.encode({"a": (1,)})) == {"a": (1,)}


def test_the_methods_of_the_interface_use_it(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/name/ann")
    interface = app.session_interface
    key = "session:" + sid_of(client)
    assert interface._retrieve_session_data(key) == {"_permanent": True, "name": "ann"}
    interface._upsert_session(timedelta(hours=1), ServerSideSession({"name": "bob"}), key)
    assert client.get("/get").json == {"name": "bob"}


def test_a_session_class_that_decides_about_its_items():
    class Quiet(ServerSideSession):
        def items(self):
            return [(key, value) for key, value in super().items() if not key.startswith("tmp")]

    class Own(MemorySessionInterface):
        session_class = Quiet

    interface = Own()
    interface.serializer = json
    assert interface._encode(Quiet({"a": 1, "tmp": 2})) == b'{"a": 1}'


# ---- two requests -------------------------------------------------------------------------------


def put(key, value):
    return lambda session: session.__setitem__(key, value)


@pytest.mark.parametrize("name", EQUAL_BYTES)
def test_different_keys_are_merged(name):
    app = make_app(SERIALIZERS[name])
    client = app.test_client()
    client.get("/set/a/old")
    race(app, client, "/set/b/theirs", put("a", "mine"))
    assert client.get("/get").json == {"_permanent": True, "a": "mine", "b": "theirs"}
    assert stats(app)["events"]["conflict"] == 0


@pytest.mark.parametrize("name", EQUAL_BYTES)
def test_deletion_and_write_of_different_keys(name):
    app = make_app(SERIALIZERS[name])
    client = app.test_client()
    client.get("/set/a/old")
    client.get("/set/b/old")
    race(app, client, "/delete/a", put("b", "mine"))
    assert client.get("/get").json == {"_permanent": True, "b": "mine"}


def test_the_later_one_wins_a_key(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/a/old")
    race(app, client, "/set/a/theirs", put("a", "mine"))
    assert client.get("/get").json["a"] == "mine"
    assert stats(app)["events"]["conflict"] == 1


def test_unequal_bytes_the_later_one_wins_with_all_its_keys():
    app = make_app(Sealed())
    client = app.test_client()
    client.get("/set/a/old")
    client.get("/set/b/old")
    race(app, client, "/set/b/theirs", put("a", "mine"))
    assert client.get("/get").json == {"_permanent": True, "a": "mine", "b": "old"}


def test_emptying_wins(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/a/old")
    other = twin(app, client)
    race(app, client, "/set/b/theirs", lambda session: session.clear())
    assert other.get("/get").json == {"_permanent": True}


def test_a_logout_is_final(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/a/old")
    other = twin(app, client)
    race(app, client, "/clear", put("a", "mine"))
    assert other.get("/get").json == {"_permanent": True}
    assert stats(app)["events"]["lost"] == 1


def test_regenerate_refuses_the_old_id(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/a/1")
    old = twin(app, client)
    client.get("/regenerate")
    assert sid_of(client) != sid_of(old)
    assert client.get("/get").json == {"_permanent": True, "a": "1"}
    assert old.get("/get").json == {}
    old.get("/set/a/stolen")
    assert stats(app)["events"]["lost"] == 1
    assert client.get("/get").json == {"_permanent": True, "a": "1"}


def test_regenerate_meets_a_slow_writer(serializer):
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/a/1")
    race(app, client, "/regenerate", put("a", "slow"))
    assert stats(app)["events"]["lost"] == 1
    assert stats(app)["events"]["regenerated"] == 1


def test_regenerate_takes_over_what_was_written_meanwhile():
    app = make_app(orjson)
    client = app.test_client()
    client.get("/set/a/1")
    race(app, client, "/set/b/theirs", lambda session: session.regenerate())
    assert client.get("/get").json == {"_permanent": True, "a": "1", "b": "theirs"}


# ---- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"\xc1", b"[1]", b"{", b"garbage", pickle.dumps([1])])
def test_what_it_cannot_read_is_no_session(serializer, value):
    app = make_app(serializer)
    client = app.test_client()
    store = app.extensions["flask_session"].store
    store.create("s" * 20, value, 60_000)
    client.set_cookie("session", "s" * 20)
    assert client.get("/get").json == {"_permanent": True}
    assert stats(app)["events"]["rejected"] == 1


@pytest.mark.parametrize(
    "value",
    [_core.encode({"a": 1}), _core.encode_json({"a": 1}), pickle.dumps({"a": 1})],
    ids=["msgpack", "json", "pickle"],
)
def test_nothing_goes_round_a_serializer_that_authenticates(value):
    class Strict:
        def dumps(self, session):
            return b"mac:" + json.dumps(session).encode()

        def loads(self, value):
            if not value.startswith(b"mac:"):
                raise ValueError("forged")
            return json.loads(value[4:])

    interface = MemorySessionInterface()
    interface.serializer = Strict()
    assert interface._decode(interface._encode({"a": 1})) == {"a": 1}
    with pytest.raises(ValueError, match="no session"):
        interface._decode(value)


def test_what_it_cannot_write_is_the_view_s_error():
    app = make_app(orjson)
    client = app.test_client()

    @app.get("/object")
    def view():
        flask.session["object"] = object()
        return "set"

    with pytest.raises(orjson.JSONEncodeError):
        client.get("/object")
    assert stats(app)["create"] == 0


def test_the_reserved_key(serializer):
    app = make_app(serializer)
    with pytest.raises(ValueError, match="'__cession__' is reserved"):
        app.test_client().get("/set/__cession__/x")
    assert stats(app)["create"] == 0


@pytest.mark.parametrize("made", [5, None, {}, ["x"]])
def test_it_must_give_bytes(made):
    class Odd:
        def dumps(self, session):
            return made

        loads = json.loads

    interface = MemorySessionInterface()
    interface.serializer = Odd()
    with pytest.raises(TypeError, match="the serializer must give bytes or str, not"):
        interface._encode({"a": 1})


@pytest.mark.parametrize("made", [b"{}", bytearray(b"{}"), memoryview(b"{}"), "{}"])
def test_kinds_of_bytes(made):
    class Fixed:
        def dumps(self, session):
            return made

        loads = json.loads

    interface = MemorySessionInterface()
    interface.serializer = Fixed()
    assert interface._encode({"a": 1}) == b"{}"


class Half:
    def dumps(self, session):
        return b""

    encode = "not a method"


@pytest.mark.parametrize("value", [object(), 5, None, "json", Half()])
def test_neither_pair_of_methods(value):
    interface = MemorySessionInterface()
    before = interface.serializer
    with pytest.raises(TypeError, match="dumps and loads, or encode and decode"):
        interface.serializer = value
    assert interface.serializer is before
    assert interface._encode({"a": (1,)}) == _core.encode({"a": (1,)})


def test_an_interrupt_is_not_a_damaged_value():
    class Interrupted:
        dumps = staticmethod(json.dumps)

        def loads(self, value):
            raise KeyboardInterrupt

    interface = MemorySessionInterface()
    interface.serializer = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        interface._decode(b"{}")


def test_an_error_in_the_middle_of_a_merge_is_a_store_error():
    class Fickle:
        broken = False

        def dumps(self, session):
            if self.broken and len(session) == 1:
                raise ZeroDivisionError
            return json.dumps(session).encode()

        loads = staticmethod(json.loads)

    serializer = Fickle()
    app = make_app(serializer)
    client = app.test_client()
    client.get("/set/a/old")

    def mine(session):
        session["a"] = "mine"
        serializer.broken = True

    with pytest.raises(SessionStoreError) as caught:
        race(app, client, "/set/b/theirs", mine)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    serializer.broken = False
    assert client.get("/get").json == {"_permanent": True, "a": "old", "b": "theirs"}


# ---- life ---------------------------------------------------------------------------------------


def test_a_session_keeps_the_serializer_it_was_opened_with():
    app = make_app(json)
    client = app.test_client()

    @app.get("/swap")
    def swap():
        flask.session["a"] = "2"
        flask.current_app.session_interface.serializer = pickle
        return "swapped"

    client.get("/set/a/1")
    client.get("/swap")
    stored = app.extensions["flask_session"].store.load(sid_of(client))[0]
    assert json.loads(stored) == {"_permanent": True, "a": "2"}


def test_old_serializers_are_freed():
    class Own(Sealed):
        pass

    interface = MemorySessionInterface()
    old = Own()
    gone = weakref.ref(old)
    interface.serializer = old
    interface.serializer = json
    del old
    assert gone() is None


def test_a_serializer_that_knows_its_interface_is_collected():
    class Own(MemorySessionInterface):
        pass

    interface = Own()
    interface.serializer = Sealed()
    interface.serializer.interface = interface
    gone = weakref.ref(interface)
    del interface
    gc.collect()
    assert gone() is None
