"""What the extension refuses: wrong arguments, wrong answers of adapters, of an application's own
methods and of its values. Each ends in the exception that is said here, and what was there before
stays as it was."""

from __future__ import annotations

import dataclasses
import decimal
import gc
import uuid
import weakref
from typing import Any, ClassVar

import flask
import pytest
from flask_session import Session, SessionStoreError, _core
from flask_session.base import MsgSpecSerializer, ServerSideSession
from flask_session.memory import MemorySession, MemorySessionInterface

HOUR = 3_600_000


class Untrue:
    """Has no truth."""

    def __bool__(self):
        raise ArithmeticError("neither")


def memory() -> _core.Store:
    return _core.Store.open("memory")


def make_app(**settings: Any) -> flask.Flask:
    app = flask.Flask("refusals", static_folder=None)
    app.config.update({"SECRET_KEY": "k", "SESSION_TYPE": "memory", **settings})
    Session(app)
    return app


# ---- the module's functions ----------------------------------------------------------------------


def test_arguments_of_the_codec():
    for refused in (
        lambda: _core.encode(),
        lambda: _core.encode({}, other=1),
        lambda: _core.encode(5),
        lambda: _core.decode(5),
        lambda: _core.decode_checked(b"\x80"),
        lambda: _core.decode_checked(b"\x80", 5),
        lambda: _core.canonical(b"\x80", 5),
        lambda: _core.view(b"\x80", 5),
        lambda: _core.compose((), "json"),
        lambda: _core.compose([5], "msgpack"),
        lambda: _core.compose([(5, 5)], "msgpack"),
    ):
        with pytest.raises(TypeError):
            refused()
    for refused in (
        lambda: _core.decode_checked(b"\x80", "xml"),
        lambda: _core.canonical(b"\x80", "xml"),
        lambda: _core.view(b"\x80", "xml"),
        lambda: _core.compose([], "xml"),
        lambda: _core.decode(b"\xc1"),
    ):
        with pytest.raises(ValueError, match=r"format is|no session"):
            refused()


def test_long_forms_of_messagepack():
    """Other writers use a longer form than is needed; it is read, and is not canonical."""
    number = _core.encode({"a": 1 + 2j})
    assert number[3] == 0xD8  # 16 bytes of an extension
    for value, expected in (
        (b"\xc6\0\0\0\x01x", b"x"),
        (b"\xc9\0\0\0\x10" + number[4:], 1 + 2j),
        (b"\xdb\0\0\0\x01x", "x"),
        (b"\xdd\0\0\0\x01\x05", [5]),
        (b"\xde\0\x01\xa1b\x05", {"b": 5}),
        (b"\xdf\0\0\0\x01\xa1b\x05", {"b": 5}),
    ):
        assert _core.decode_checked(b"\x81\xa1a" + value, "msgpack") == ({"a": expected}, False)
    with pytest.raises(ValueError, match="no session"):
        _core.decode(b"\x81\xa1a\xc1")


@pytest.mark.parametrize("format", ["msgpack", "json"])
def test_a_key_that_is_no_number_is_not_canonical(format):
    """It differs from itself: there may be two of it."""
    encode = {"msgpack": _core.encode, "json": _core.encode_json}[format]
    key = decimal.Decimal("NaN")
    found, canonical = _core.decode_checked(encode({key: 1}), format)
    assert next(iter(found)).is_nan()
    assert not canonical


def test_values_that_cannot_be_stored():
    deep: Any = 1
    for _ in range(300):
        deep = (deep,)
    for refused in ({deep: 1}, {"a": deep}, {"a": {deep: 1}}):
        for encode in (_core.encode, _core.encode_json):
            with pytest.raises(ValueError, match="nested"):
                encode(refused)
    spoiled = uuid.UUID(int=5)
    object.__setattr__(spoiled, "int", 1 << 200)
    for encode in (_core.encode, _core.encode_json):
        with pytest.raises((ValueError, OverflowError)):
            encode({"a": spoiled})
        object.__setattr__(spoiled, "int", "text")
        with pytest.raises((ValueError, TypeError)):
            encode({"a": spoiled})
        object.__setattr__(spoiled, "int", 1 << 200)


def test_fields_that_are_gone():
    @dataclasses.dataclass
    class Point:
        x: int
        y: int

    point = Point(1, 2)
    del point.y
    with pytest.warns(UserWarning, match="Point"):
        assert _core.decode(_core.encode({"a": point})) == {"a": {"x": 1}}


# ---- sessions ------------------------------------------------------------------------------------


def test_arguments_of_a_session():
    made = MemorySession({"a": 1}, sid="s" * 20)
    for refused in (
        lambda: made.get(),
        lambda: made.get(1, 2, 3),
        lambda: made.get([]),
        lambda: made.update(5),
        lambda: MemorySession(5),
        lambda: MemorySession(unknown=1),
    ):
        with pytest.raises(TypeError):
            refused()
    for name in ("accessed", "modified", "permanent"):
        with pytest.raises(ArithmeticError):
            setattr(made, name, Untrue())
    with pytest.raises(ArithmeticError):
        MemorySession(permanent=Untrue())
    for method in ("regenerate", "save", "destroy", "reload"):
        with pytest.raises(RuntimeError, match="belongs to no store"):
            getattr(made, method)()
    assert made == {"a": 1}
    assert made.accessed


def test_many_arguments_at_once():
    made = MemorySession()
    made.update({"a": 1}, b=2, c=3, d=4, e=5)
    assert made == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def test_the_id_of_a_session_made_by_hand():
    made = MemorySession(sid="s" * 20)
    made.sid = "t" * 20
    assert made.sid == "t" * 20
    del made.sid
    assert made.sid is None
    app = make_app()
    with app.test_request_context() as context:
        opened = app.session_interface.open_session(app, context.request)
        before = opened.sid
        with pytest.raises(AttributeError, match="cannot be set"):
            opened.sid = "t" * 20
        assert opened.sid == before


def test_a_reference_to_a_session_ends_with_it():
    made = MemorySession()
    seen = weakref.ref(made)
    assert seen() is made
    del made
    gc.collect()
    assert seen() is None


class Down:
    """An adapter whose answers are wrong, or which fails."""

    name = "down"
    capabilities = _core.CAP_ATOMIC | _core.CAP_LISTABLE

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def _give(self, *args: Any) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    load = create = replace = touch = remove = purge = scan = _give


class DownInterface(MemorySessionInterface):
    def __init__(self, app: flask.Flask, adapter: Any) -> None:
        self.adapter = adapter
        super().__init__(app)

    def _open_store(self, key_prefix):
        return _core.Store.wrap(self.adapter)


def down(answer: Any, **settings: Any) -> tuple[flask.Flask, Any]:
    app = flask.Flask("refusals", static_folder=None)
    app.config.update({"SECRET_KEY": "k", **settings})
    app.session_interface = DownInterface(app, Down(answer))
    return app, app.session_interface


COOKIE = {"Cookie": "session=" + "s" * 43}


def test_a_session_that_could_not_be_read():
    app, interface = down(OSError("away"))
    with app.test_request_context(headers=COOKIE) as context:
        session = interface.open_session(app, context.request)
        assert not session.available
        assert "not available" in repr(session)
        other = MemorySession({"a": 1})
        for use in (
            lambda: session.get("a"),
            lambda: other.update(session),
            lambda: session.clear(),
            lambda: session.regenerate(),
            lambda: session.reload(),
            lambda: session.save(),
            lambda: session.destroy(),
            lambda: session.new,
            lambda: session.sid,
            lambda: session.permanent,
            lambda: interface._encode(session),
            lambda: _core.encode(session),
            lambda: interface.regenerate(session),
        ):
            with pytest.raises(SessionStoreError):
                use()
        for name in ("accessed", "modified", "permanent"):
            with pytest.raises(SessionStoreError):
                setattr(session, name, True)
        assert other == {"a": 1}


def test_a_session_that_is_empty_for_want_of_a_store():
    app, interface = down(OSError("away"), SESSION_ON_STORE_ERROR="empty")
    with app.test_request_context(headers=COOKIE) as context:
        session = interface.open_session(app, context.request)
        assert not session.available
        assert not session
        session.regenerate()
        session["a"] = 1
        response = app.response_class()
        interface.save_session(app, session, response)
        assert "Set-Cookie" not in response.headers


def test_an_interrupt_is_no_failure_of_the_store():
    app, interface = down(KeyboardInterrupt())
    with (
        app.test_request_context(headers=COOKIE) as context,
        pytest.raises(KeyboardInterrupt),
    ):
        interface.open_session(app, context.request).available  # noqa: B018


# ---- interfaces ----------------------------------------------------------------------------------


def test_an_interface_that_is_not_configured():
    bare = _core.Interface()
    app = make_app()
    for refused in (
        lambda: bare.open_session(app, None),
        lambda: bare.save_session(app, MemorySession(), None),
        lambda: bare.regenerate(MemorySession()),
        lambda: bare._encode({}),
        lambda: bare._decode(b"\x80"),
        lambda: bare._read_cookie(app, None),
    ):
        with pytest.raises(RuntimeError, match="not configured"):
            refused()
    with pytest.raises(AttributeError):
        bare.is_null_session({})
    assert set(bare._counts().values()) == {0}


def test_arguments_of_an_interface():
    app = make_app()
    interface = app.session_interface
    for refused in (
        lambda: interface.open_session(app),
        lambda: interface.save_session(app),
        lambda: interface.save_session(app, {}, None),
        lambda: interface._decode(5),
        lambda: interface._read_cookie(app),
    ):
        with pytest.raises(TypeError):
            refused()
    with pytest.raises(ValueError, match="no session"):
        interface._decode(b"\xc1")
    with pytest.raises(TypeError, match="that this interface opened"):
        interface.save_session(app, MemorySession(), None)
    assert interface.is_null_session(flask.sessions.NullSession())
    assert not interface.is_null_session({})


def configure(**arguments: Any) -> Any:
    made = _core.Interface()
    made._configure(**{"store": memory(), "session_class": MemorySession, **arguments})
    return made


def test_arguments_of_a_configuration():
    closed = memory()
    closed.close()

    class Events:
        signals = None

    for arguments, error, words in (
        ({"store": closed}, ValueError, "closed"),
        ({"store": 5}, TypeError, "Store"),
        ({"session_class": dict}, TypeError, "ServerSideSession"),
        ({"touch_interval": "x"}, ValueError, "touch_interval"),
        ({"touch_interval": -1}, ValueError, "touch_interval"),
        ({"timeout": "x"}, ValueError, "timeout"),
        ({"conflict": "x"}, ValueError, "conflict"),
        ({"on_store_error": "x"}, ValueError, "on_store_error"),
        ({"sid_length": 1}, ValueError, "sid_length"),
        ({"serialization_format": "xml"}, ValueError, "serialization_format"),
        ({"serialization_format": 5}, ValueError, "serialization_format"),
        ({"events": object()}, TypeError, "signals"),
        ({"events": Events}, TypeError, "signals"),
        ({"defaults": 5}, TypeError, "defaults"),
    ):
        with pytest.raises(error, match=words):
            configure(**arguments)
    made = configure()
    with pytest.raises(RuntimeError, match="configured already"):
        made._configure(store=memory(), session_class=MemorySession)
    assert made._decode(made._encode({"a": 1})) == {"a": 1}


def test_serializers():
    class Raising:
        def dumps(self, session):
            return b""

        @property
        def loads(self):
            raise ArithmeticError("no")

    app = make_app()
    interface = app.session_interface
    before = interface.serializer
    for serializer, error in ((5, TypeError), (Raising(), ArithmeticError)):
        with pytest.raises(error):
            interface.serializer = serializer
        assert interface.serializer is before
    odd = MsgSpecSerializer.__new__(MsgSpecSerializer)
    with pytest.raises((AttributeError, ValueError)):
        interface.serializer = odd
    odd.__dict__["format"] = "xml"
    with pytest.raises(ValueError, match="serialization_format"):
        interface.serializer = odd
    assert interface._decode(interface._encode({"a": 1})) == {"a": 1}


@pytest.mark.parametrize("sid", ["", "a b", "x" * 300, "\u00e9", 5, None, ArithmeticError("no")])
def test_ids_that_an_application_makes(sid):
    class Own(MemorySessionInterface):
        def _generate_sid(self, session_id_length):
            if isinstance(sid, Exception):
                raise sid
            return sid

    app = flask.Flask("refusals", static_folder=None)
    interface = Own(app)
    with (
        app.test_request_context() as context,
        pytest.raises(SessionStoreError, match="_generate_sid failed") as caught,
    ):
        interface.open_session(app, context.request)
    assert isinstance(caught.value.__cause__, (ValueError, TypeError, ArithmeticError))


def test_session_classes_that_give_something_else():
    class Odd(MemorySession):
        def __new__(cls, *args, **kwargs):
            return {}

    class OddInterface(MemorySessionInterface):
        session_class = Odd

    app = flask.Flask("refusals", static_folder=None)
    interface = OddInterface(app)
    with (
        app.test_request_context() as context,
        pytest.raises(TypeError, match="did not give a session"),
    ):
        interface.open_session(app, context.request)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"SECRET_KEY": 5}, TypeError),
        ({"SECRET_KEY": "\ud800"}, ValueError),
        ({"SECRET_KEY_FALLBACKS": 5}, TypeError),
        ({"SECRET_KEY_FALLBACKS": ["a", 5]}, TypeError),
        ({"SECRET_KEY_FALLBACKS": ["a"] * 64}, ValueError),
    ],
    ids=str,
)
def test_keys_that_cannot_sign(settings, error):
    app = make_app(SESSION_USE_SIGNER=True)
    interface = app.session_interface
    good = dict(app.config)

    def request():
        with app.test_request_context(headers=COOKIE) as context:
            session = interface.open_session(app, context.request)
            session["a"] = 1
            response = app.response_class()
            interface.save_session(app, session, response)
            return response.headers["Set-Cookie"]

    assert "." in request()
    app.config.update(settings)
    with pytest.raises(error):
        request()
    app.config.update({name: good.get(name) for name in settings})
    assert "." in request()


def test_keys_of_later_flasks_are_not_needed():
    app = make_app(SESSION_USE_SIGNER=True)
    for name in ("SECRET_KEY_FALLBACKS", "SESSION_COOKIE_PARTITIONED"):
        app.config.pop(name, None)
    interface = app.session_interface
    with app.test_request_context() as context:
        session = interface.open_session(app, context.request)
        session["a"] = 1
        response = app.response_class()
        interface.save_session(app, session, response)
    assert "." in response.headers["Set-Cookie"]


@pytest.mark.parametrize("lifetime", ["x", 0, -5])
def test_lifetimes(lifetime):
    app = make_app()
    interface = app.session_interface
    with app.test_request_context() as context:
        session = interface.open_session(app, context.request)
        session["a"] = 1
        app.config["PERMANENT_SESSION_LIFETIME"] = lifetime
        with pytest.raises((TypeError, ValueError, AttributeError)):
            interface.save_session(app, session, app.response_class())


def test_events_of_other_shapes():
    """Nobody is told where there is nobody to tell."""

    class Events:
        signals: ClassVar[dict[str, Any]] = {}

    class Odd:
        signals: ClassVar[dict[str, Any]] = {"created": object(), "saved": object()}

        def emit(self, *args):
            pass

    app = flask.Flask("refusals", static_folder=None)

    def request(events: Any) -> Any:
        interface = configure(events=events, defaults=None)
        with app.test_request_context() as context:
            session = interface.open_session(app, context.request)
            session["a"] = 1
            session.save()
            return interface._counts()

    assert request(None)["created"] == 1
    assert request(Events)["created"] == 1
    with pytest.raises(AttributeError):
        request(Odd())


# ---- stores --------------------------------------------------------------------------------------


def test_arguments_of_stores():
    for refused in (
        lambda: _core.Store.open(),
        lambda: _core.Store.open("memory", 5),
        lambda: _core.Store.open("memory", {"a": 5}),
        lambda: _core.Store.open_url(5),
        lambda: _core.Store.wrap(object()),
        lambda: memory().prefixed(5),
        lambda: memory().load(),
        lambda: memory().create("k"),
        lambda: memory().replace("k"),
        lambda: memory().touch("k"),
        lambda: memory().remove(),
        lambda: memory().purge("x"),
        lambda: memory().scan(5),
        lambda: memory().maintain(1, 2),
        lambda: memory().maintain("x"),
        lambda: memory().load("k", "x"),
    ):
        with pytest.raises((TypeError, ValueError)):
            refused()
    for refused in (
        lambda: _core.Store.open("memory", {str(i): "x" for i in range(1000)}),
        lambda: _core.Store.open("sqlite", {"path": "a\0b"}),
        lambda: _core.Store.open("sqlite", {"path": "\ud800"}),
        lambda: memory().prefixed("p" * 10_000),
        lambda: memory().purge(0),
        lambda: memory().scan(batch=0),
        lambda: memory().load("k", -1),
        lambda: memory().load("k", float("nan")),
        lambda: memory().load("k" * 10_000),
    ):
        with pytest.raises((ValueError, SessionStoreError)):
            refused()


def test_a_closed_store():
    store = memory()
    store.close()
    for refused in (
        lambda: store.load("k"),
        lambda: store.create("k", b"v", HOUR),
        lambda: store.replace("k", b"v", b"", b"w", HOUR),
        lambda: store.touch("k", b"v", b"", HOUR),
        lambda: store.remove("k"),
        lambda: store.purge(),
        lambda: store.scan(),
        lambda: store.maintain(),
        lambda: store.counts(),
        lambda: store.prefixed("p"),
        lambda: store.capabilities,
        lambda: store.name,
    ):
        with pytest.raises(ValueError, match="closed"):
            refused()


def test_maintenance(tmp_path):
    for store in (
        memory(),
        _core.Store.open("sqlite", {"path": str(tmp_path / "file")}),
        _core.Store.open("filesystem", {"path": str(tmp_path / "folder")}),
    ):
        kept = store.prefixed("p:")
        assert kept.create("k", b"v", HOUR)
        kept.maintain()
        kept.maintain(timeout=1.0)
        assert kept.load("k")[0] == b"v"
        assert kept.counts()["maintain"] == 2


def test_adapters_that_are_none():
    class Incomplete(Down):
        capabilities = None

    class Negative(Down):
        capabilities = -1

    class Without(Down):
        touch = None

    for adapter in (Incomplete(), Without()):
        with pytest.raises(TypeError):
            _core.Store.wrap(adapter)
    with pytest.raises(OverflowError):
        _core.Store.wrap(Negative())
    plain = Down()
    with pytest.raises(AttributeError):
        _core.Store.wrap(type("Bare", (), {n: plain._give for n in dir(plain) if n[0] != "_"
                                           and n not in ("capabilities", "answer")})())  # fmt: skip


GOOD = (b"v", b"", None)


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        *(
            (operation, answer)
            for operation in ("load", "replace")
            for answer in (
                5,
                "x",
                (b"v",),
                ("v", b"", None),
                (b"v", "", None),
                (b"v", b"x" * 100, None),
                (b"v", b"", "x"),
                (b"v", b"", 1 << 70),
            )
        ),
        ("replace", None),
        ("replace", -1),
        ("replace", 1 << 70),
        ("create", None),
        ("create", 1),
        ("touch", None),
        ("touch", 1 << 70),
        ("touch", 99),
        ("purge", "x"),
        ("purge", -1),
        ("scan", None),
        ("scan", (b"",)),
        ("scan", ("", [])),
        ("scan", (b"", ())),
        ("scan", (b"", [5])),
        ("scan", (b"", [(b"k", b"v", None)])),
        ("scan", (b"", [("k", "v", None)])),
        ("scan", (b"", [("k", b"v", "x")])),
        ("scan", (b"", [("k", b"v", 1 << 70)])),
        ("scan", (b"", [("\ud800", b"v", None)])),
        ("scan", (b"x" * 100_000, [])),
        *((name, OSError("away")) for name in (
            "load", "create", "replace", "touch", "remove", "purge", "scan")),
    ],
)  # fmt: skip
def test_answers_of_adapters(operation, answer):
    store = _core.Store.wrap(Down(answer))
    arguments: dict[str, tuple[Any, ...]] = {
        "load": ("k",),
        "create": ("k", b"v", HOUR),
        "replace": ("k", b"v", b"", b"w", HOUR),
        "touch": ("k", b"v", b"", HOUR),
        "remove": ("k",),
        "purge": (5,),
        "scan": (b"", 5),
    }
    with pytest.raises(SessionStoreError):
        getattr(store, operation)(*arguments[operation])


def test_optional_operations_of_adapters():
    class Odd(Down):
        @property
        def purge(self):
            raise ArithmeticError("no")

    class Without(Down):
        capabilities = _core.CAP_ATOMIC
        purge = None

    with pytest.raises(SessionStoreError):
        _core.Store.wrap(Odd()).purge()
    with pytest.raises(ValueError, match="cannot list"):
        _core.Store.wrap(Without()).scan()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_adapter_that_cannot_close():
    closed = []

    class Odd(Down):
        def close(self):
            closed.append(self)
            raise ArithmeticError("no")

    store = _core.Store.wrap(Odd())
    store.close()
    assert len(closed) == 1


def test_a_value_beyond_every_session():
    """Such a record is none of ours: as good as an empty one, which no session has."""
    app, interface = down((bytes(65 * 1024 * 1024), b"", None))
    with app.test_request_context(headers=COOKIE) as context:
        session = interface.open_session(app, context.request)
        assert isinstance(session, ServerSideSession)
        assert not session
