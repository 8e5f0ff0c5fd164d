"""app.extensions, the commands, the null session, custom interfaces, predecessors beside us."""

from __future__ import annotations

import importlib.metadata
import time
from datetime import timedelta

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface
from flask_session import Extension, NullSessionInterface, Session, _core
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.memory import MemorySessionInterface

from tests.python.apps.views import add_views


def make_app(**settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="memory")
    app.config.update(settings)
    Session(app)
    return add_views(app)


# ---- the extension ------------------------------------------------------------------------------


def test_stats_count_operations_and_events():
    app = make_app()
    client = app.test_client()
    client.get("/set/1")
    client.get("/get")
    client.get("/set/2")
    stats = app.extensions["flask_session"].stats()
    assert stats["store"] == "memory"
    operations = {name: stats[name] for name in ("load", "create", "replace", "touch", "remove")}
    assert operations == {"load": 2, "create": 1, "replace": 1, "touch": 0, "remove": 0}
    assert stats["events"]["created"] == 1
    assert stats["events"]["loaded"] == 2


class Heap(ServerSideSessionInterface):
    """Its store holds nothing but expired records, and remembers how many it was to delete."""

    def __init__(self, expired, capabilities=0):
        self.name, self.capabilities, self.expired, self.limits = "test", capabilities, expired, []
        super().__init__()

    def _open_store(self, key_prefix):
        return _core.Store.wrap(self)

    def load(self, key, timeout):
        return None

    create = replace = touch = remove = load

    def purge(self, limit, timeout):
        self.limits.append(limit)
        count = min(limit, self.expired)
        self.expired -= count
        return count


def test_purge_goes_on_in_batches_until_nothing_is_left():
    interface = Heap(expired=2500)
    extension = Extension(interface)
    assert extension.purge(limit=1100) == 1100
    assert extension.purge() == 1400
    assert extension.purge() == 0
    assert interface.limits == [1000, 100, 1000, 1000, 1000]


def test_purge_spares_the_living():
    app = make_app()
    extension = app.extensions["flask_session"]
    for number in range(5):
        extension.store.create(f"expired-{number:016}", b"\x80", 1)
        extension.store.create(f"live-{number:016}", b"\x80", 3_600_000)
    time.sleep(0.02)
    extension.purge()  # the driver may have deleted some by itself
    assert extension.store.purge() == 0
    assert all(extension.store.load(f"live-{number:016}") for number in range(5))


def test_purge_calls_an_override():
    called = []

    class Own(MemorySessionInterface):
        def _delete_expired_sessions(self):
            called.append(True)

    app = flask.Flask(__name__)
    assert Extension(Own(app)).purge() == 0
    assert called == [True]


def test_purge_of_a_store_that_expires_by_itself():
    interface = Heap(expired=5, capabilities=_core.CAP_NATIVE_TTL)
    assert interface.ttl is True
    assert Extension(interface).purge() == 0
    assert interface.limits == []


# ---- commands -----------------------------------------------------------------------------------


@pytest.fixture
def heap_app():
    app = flask.Flask(__name__)
    app.config["SESSION_TYPE"] = "custom"
    app.session_interface = Heap(expired=1500)
    Session(app)
    return app


def test_purge_command(heap_app):
    answer = heap_app.test_cli_runner().invoke(args=["session", "purge"])
    assert (answer.exit_code, answer.output) == (0, "1500 expired sessions deleted\n")
    assert heap_app.session_interface.expired == 0


def test_stats_command(heap_app):
    assert heap_app.session_interface._store.load("k") is None
    answer = heap_app.test_cli_runner().invoke(args=["session", "stats"])
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert {"store: test", "load: 1", "create: 0", "not_found: 1"} <= set(lines)
    assert any(line.startswith("events: created 0, loaded 0") for line in lines)


def test_session_cleanup_command(heap_app):
    answer = heap_app.test_cli_runner().invoke(args=["session_cleanup"])
    assert (answer.exit_code, answer.output) == (0, "")
    assert heap_app.session_interface.expired == 0


def test_session_cleanup_of_an_interface_without_session():
    app = flask.Flask(__name__)
    app.session_interface = interface = MemorySessionInterface(app)
    interface._store.create("k" * 16, b"\x80", 1)
    time.sleep(0.02)
    answer = app.test_cli_runner().invoke(args=["session_cleanup"])
    assert (answer.exit_code, answer.output) == (0, "")
    assert interface._store.counts()["purge"] > 0
    assert interface._store.purge() == 0


def test_no_session_cleanup_where_the_store_expires_by_itself():
    pytest.importorskip("redis")
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS="redis://127.0.0.1:1/0")
    Session(app)
    assert "session" in app.cli.commands
    assert "session_cleanup" not in app.cli.commands


def test_an_application_s_own_command_stays():
    app = flask.Flask(__name__)
    app.config["SESSION_TYPE"] = "memory"

    @app.cli.command("session")
    def own():
        print("mine")

    Session(app)
    assert app.test_cli_runner().invoke(args=["session"]).output == "mine\n"


# ---- null ---------------------------------------------------------------------------------------


@pytest.fixture(params=[{}, {"SESSION_TYPE": "null", "SECRET_KEY": "x"}, {"SESSION_TYPE": "NULL"}])
def null_app(request):
    app = flask.Flask(__name__)
    app.config.update(request.param)
    Session(app)
    app.testing = True
    return add_views(app)


def test_null_session_reads_as_empty(null_app):
    assert type(null_app.session_interface) is NullSessionInterface
    answer = null_app.test_client().get("/get")
    assert answer.text == "None"
    assert "Set-Cookie" not in answer.headers
    extension = null_app.extensions["flask_session"]
    assert (extension.store, extension.stats(), extension.purge()) == (None, {}, 0)


def set_permanent(session):
    session.permanent = True


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.__setitem__("a", 1),
        lambda session: session.__delitem__("a"),
        lambda session: session.__ior__({"a": 1}),
        lambda session: session.update(a=1),
        lambda session: session.setdefault("a", 1),
        lambda session: session.pop("a", None),
        lambda session: session.popitem(),
        lambda session: session.clear(),
        set_permanent,
    ],
)
def test_null_session_cannot_be_written(null_app, write):
    with null_app.test_request_context():
        with pytest.raises(RuntimeError, match="the session is unavailable because SESSION_TYPE"):
            write(flask.session)
        assert dict(flask.session) == {}


def test_null_commands(null_app):
    answer = null_app.test_cli_runner().invoke(args=["session", "purge"])
    assert (answer.exit_code, answer.output) == (0, "0 expired sessions deleted\n")


# ---- custom -------------------------------------------------------------------------------------


def test_custom_interface_stays():
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="custom", SECRET_KEY="x")
    own = app.session_interface = SecureCookieSessionInterface()
    Session(app)
    assert app.session_interface is own
    extension = app.extensions["flask_session"]
    assert extension.interface is own
    assert (extension.store, extension.stats(), extension.purge()) == (None, {}, 0)


def test_custom_interface_of_ours_has_its_store():
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="custom")
    app.session_interface = MemorySessionInterface(app)
    Session(app)
    add_views(app).test_client().get("/set/1")
    assert app.extensions["flask_session"].stats()["create"] == 1


class ThreeMethods(ServerSideSessionInterface):
    """As applications wrote it for the predecessor."""

    def __init__(self, app=None, **options):
        self.records = {}
        self.calls = []
        super().__init__(app, **options)

    def _retrieve_session_data(self, store_id):
        self.calls.append("retrieve")
        return self.records.get(store_id)

    def _upsert_session(self, session_lifetime, session, store_id):
        assert isinstance(session_lifetime, timedelta)
        assert isinstance(session, ServerSideSession)
        self.calls.append("upsert")
        self.records[store_id] = dict(session)

    def _delete_session(self, store_id):
        self.calls.append("delete")
        self.records.pop(store_id, None)


def test_interface_of_three_methods():
    app = flask.Flask(__name__)
    app.session_interface = interface = ThreeMethods(app, key_prefix="own:")
    client = add_views(app).test_client()
    client.get("/set/1")
    sid = client.get_cookie("session").value
    assert interface.records == {f"own:{sid}": {"_permanent": True, "value": "1"}}
    assert client.get("/get").text == "1"
    client.get("/set/2")
    assert interface.records[f"own:{sid}"]["value"] == "2"
    client.get("/clear")
    assert interface.records == {}


def test_interface_of_three_methods_regenerates():
    app = flask.Flask(__name__)
    app.session_interface = interface = ThreeMethods(app)
    client = add_views(app).test_client()
    client.get("/set/1")
    before = client.get_cookie("session").value
    client.get("/regenerate")
    after = client.get_cookie("session").value
    assert before != after
    assert list(interface.records) == ["session:" + after]
    assert client.get("/get").text == "1"


def test_store_of_three_methods_looks_before_it_writes():
    interface = ThreeMethods(key_prefix="p:")
    store = interface._store
    one, two, three = (_core.encode({"a": number}) for number in (1, 2, 3))
    assert not store.capabilities & _core.CAP_ATOMIC
    assert store.create("k", one, 1000) is True
    assert store.create("k", two, 1000) is False
    assert store.load("k") == (one, b"", None)
    assert store.replace("k", two, b"", three, 1000) == (one, b"", None)
    assert store.touch("k", two, b"", 1000) == _core.CHANGED
    assert interface.records == {"p:k": {"a": 1}}
    assert store.touch("k", one, b"", 1000) == _core.OK
    assert store.replace("k", one, b"", two, 1000) == _core.OK
    assert interface.records == {"p:k": {"a": 2}}
    store.remove("k")
    assert store.replace("k", two, b"", three, 1000) == _core.GONE
    assert store.touch("k", two, b"", 1000) == _core.GONE
    assert interface.records == {}


def test_three_methods_of_a_concrete_class_call_the_store():
    seen = []

    class Watching(MemorySessionInterface):
        def _retrieve_session_data(self, store_id):
            seen.append(("retrieve", store_id))
            return super()._retrieve_session_data(store_id)

        def _upsert_session(self, session_lifetime, session, store_id):
            seen.append(("upsert", store_id))
            super()._upsert_session(session_lifetime, session, store_id)

    app = flask.Flask(__name__)
    app.session_interface = Watching(app)
    client = add_views(app).test_client()
    client.get("/set/1")
    store_id = "session:" + client.get_cookie("session").value
    client.get("/set/2")
    assert client.get("/get").text == "2"
    assert {name for name, _ in seen} == {"retrieve", "upsert"}
    assert store_id in {key for _, key in seen}
    client.get("/clear")
    assert app.session_interface._retrieve_session_data(store_id) is None


@pytest.mark.parametrize("serialization_format", ["msgpack", "json"])
def test_methods_of_a_concrete_class_can_be_called(serialization_format):
    interface = MemorySessionInterface(key_prefix="p:", serialization_format=serialization_format)
    session = ServerSideSession({"a": 1})
    key = interface._get_store_id("s" * 16)
    assert key == "p:" + "s" * 16
    assert interface._retrieve_session_data(key) is None
    for value in (1, 2):
        session["a"] = value
        interface._upsert_session(timedelta(hours=1), session, key)
        assert interface._retrieve_session_data(key) == {"a": value}
    stored = interface._store.load("s" * 16)[0]
    assert stored[:1] == (b"{" if serialization_format == "json" else b"\x81")
    interface._delete_session(key)
    assert interface._retrieve_session_data(key) is None
    assert len(interface._generate_sid(16)) == 22


def test_retired_session_has_no_data():
    app = make_app()
    client = app.test_client()
    client.get("/set/1")
    sid = client.get_cookie("session").value
    with app.test_request_context(headers={"Cookie": f"session={sid}"}):
        flask.session.regenerate()
        flask.session.save()
    assert app.extensions["flask_session"].store.load(sid) is not None
    assert app.session_interface._retrieve_session_data("session:" + sid) is None


def test_own_store_ids():
    class Upper(MemorySessionInterface):
        def _get_store_id(self, sid):
            return "own/" + sid.upper()

    app = flask.Flask(__name__)
    app.session_interface = interface = Upper(app)
    client = add_views(app).test_client()
    client.get("/set/1")
    sid = client.get_cookie("session").value
    assert interface._retrieve_session_data("own/" + sid.upper())["value"] == "1"
    assert client.get("/get").text == "1"
    client.get("/set/2")
    assert client.get("/get").text == "2"
    client.get("/clear")
    assert interface._retrieve_session_data("own/" + sid.upper()) is None


def test_own_ids():
    class Own(MemorySessionInterface):
        def _generate_sid(self, session_id_length):
            return f"user/{super()._generate_sid(session_id_length)}"

    app = flask.Flask(__name__)
    app.session_interface = Own(app)
    client = add_views(app).test_client()
    client.get("/set/1")
    assert client.get_cookie("session").value.startswith("user/")
    assert client.get("/get").text == "1"


def test_missing_methods():
    class Half(ServerSideSessionInterface):
        def _retrieve_session_data(self, store_id):
            return None

    with pytest.raises(TypeError, match="Half must define _retrieve_session_data, _upsert_session"):
        Half()
    with pytest.raises(TypeError, match="must define"):
        ServerSideSessionInterface()


# ---- predecessors -------------------------------------------------------------------------------


def pretend(tmp_path, monkeypatch, name, record):
    folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    if record is not None:
        (folder / "RECORD").write_text(record)
        # Since CPython 3.12 a file counts only where it is.
        installed = tmp_path / record.partition(",")[0]
        installed.parent.mkdir()
        installed.touch()
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", ["Flask-Session", "Flask-Session2"])
@pytest.mark.parametrize("record", ["flask_session/__init__.py,,\n", None])
def test_predecessor_beside_us(tmp_path, monkeypatch, name, record):
    pretend(tmp_path, monkeypatch, name, record)
    with pytest.raises(RuntimeError) as caught:
        make_app()
    assert f"{name} and cession" in str(caught.value)
    assert f"pip uninstall -y {name} cession" in str(caught.value)
    assert "pip install --force-reinstall cession" in str(caught.value)


def test_distribution_of_that_name_without_our_package(tmp_path, monkeypatch):
    pretend(tmp_path, monkeypatch, "Flask-Session", "other/__init__.py,,\n")
    assert importlib.metadata.version("Flask-Session") == "1.0"
    make_app()
