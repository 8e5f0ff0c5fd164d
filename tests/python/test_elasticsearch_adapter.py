"""What is special to Elasticsearch and OpenSearch: test_row_contract.py has the contract."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import time
import warnings
from pathlib import Path

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.elasticsearch import ElasticsearchSessionInterface, ElasticsearchStore
from flask_session.elasticsearch_clients import own_client

from tests.rows import ROWS, new_prefix
from tests.rows.elasticsearch import elasticsearch_client, opensearch_client
from tests.services import Services

elasticsearch = pytest.importorskip("elasticsearch")
opensearchpy = pytest.importorskip("opensearchpy")

pytestmark = [pytest.mark.client]
server = [pytest.mark.server, pytest.mark.slow]

HOUR = 3_600_000
# The server's row: (client object, its URL's scheme for one that is made by the package)
PAIRS = {
    "elasticsearch": (elasticsearch_client, "elasticsearch"),
    "elasticsearch-8-host": (None, "elasticsearch"),
    "elasticsearch-opensearch": (opensearch_client, "opensearch"),
}
MARKS = {name: ROWS[name].marks for name in PAIRS}


class Requests:
    """What a client sends: [method, path, body] each, and what `before` does beforehand."""

    def __init__(self, client):
        self.sent = []
        self.before = lambda path, body: None
        self._perform = client.transport.perform_request
        client.transport.perform_request = self._record

    def _record(self, method, target, *args, **kwargs):
        params = kwargs.get("params") or {}
        values = {k: v.decode() if isinstance(v, bytes) else v for k, v in params.items()}
        pairs = "&".join(f"{name}={value}" for name, value in values.items())
        body = kwargs.get("body")
        if isinstance(body, str | bytes):  # a bulk of opensearch-py
            body = [json.loads(line) for line in body.splitlines()]
        self.sent.append([method, target + (f"?{pairs}" if pairs else ""), body])
        self.before(target, body)
        return self._perform(method, target, *args, **kwargs)

    def clear(self):
        self.sent.clear()


class World:
    """An index of one test alone, on the server of a row."""

    def __init__(self, row):
        self.row = row
        self.url = row.where[row.variable]
        connect, self.scheme = PAIRS[row.name]
        self.client = connect(self.url, 20) if connect else self.own()
        self.requests = Requests(self.client)
        # Elasticsearch takes documents of any client from this one.
        self.plain = opensearch_client(self.url, 20)
        self.name = f"index-{new_prefix()[:-1]}"
        self.store = self.open()

    def own(self):
        return own_client("HOST", [f"{self.scheme}+{self.url}"], 20)

    def open(self, client=None, prefix=""):
        client = client or self.client
        return _core.Store.wrap(ElasticsearchStore(lambda: client, self.name, prefix))

    def put(self, key, **source):
        self.plain.index(index=self.name, id=key, body=source)

    def source(self, key):
        return self.plain.get(index=self.name, id=key)["_source"]

    def mappings(self):
        return self.plain.indices.get_mapping(index=self.name)[self.name]["mappings"]

    def close(self):
        self.plain.indices.delete(index=self.name, ignore_unavailable=True)
        self.plain.close()
        self.client.close()


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, marks in MARKS.items()])
def world(request, start_row):
    made = World(start_row(request.param))
    yield made
    made.close()


def moment(seconds, ending="+00:00"):
    """As Flask-Session2 writes it, so many seconds from now."""
    stamp = time.gmtime(time.time() + seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S.000001", stamp) + ending


# ---- the documents ------------------------------------------------------------------------------


def test_document(world):
    before = time.time() * 1000
    assert world.store.create("k", b"\x80\x00one", HOUR)
    source = world.source("k")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", source.pop("expiration"))
    data = base64.b64encode(b"\x80\x00one").decode()
    assert source == {"id": "k", "val": {}, "data": data}
    assert before + HOUR <= world.store.load("k")[2] + 1 <= time.time() * 1000 + HOUR + 1
    mappings = world.mappings()
    assert mappings["dynamic"] == "false"
    assert {name: field["type"] for name, field in mappings["properties"].items()} == {
        "id": "keyword",
        "val": "object",
        "expiration": "date",
        "data": "binary",
    }


def test_an_index_of_flask_session2(world):
    """It made fields of whatever it stored; ours is added, and nothing is made of its content."""
    world.plain.indices.create(index=world.name)
    value = {"_permanent": True, "user": "ann", "list": [1, 2, None], "big": 2**40}
    world.put("live", id="live", val=value, expiration=moment(3600))
    world.put("dead", id="dead", val=value, expiration=moment(-5))
    held, version, expires = world.store.load("live")
    assert _core.decode(held) == value
    assert abs(expires - time.time() * 1000 - HOUR) < 60_000
    assert world.store.load("dead") is None
    assert world.store.create("live", b"one", HOUR) is False
    # A touch leaves what it reads, the value.
    assert world.store.touch("live", held, version, 2 * HOUR) == _core.OK
    source = world.source("live")
    assert (source["val"], sorted(source)) == (value, ["expiration", "id", "val"])
    assert world.store.load("live")[0] == held
    assert world.store.replace("live", held, version, b"one", HOUR) == _core.OK
    assert world.source("live")["val"] == {}
    assert world.store.load("live")[0] == b"one"
    assert world.store.create("dead", b"two", HOUR) is True
    assert world.store.load("dead")[0] == b"two"
    world.put("swept", id="swept", val=value, expiration=moment(-5))
    world.put("theirs", id="theirs", val=value, expiration=moment(3600))
    assert world.store.purge() == 1
    rows = {key: content for key, content, _ in world.store.scan(b"", 10)[1]}
    assert rows == {b"live": b"one", b"dead": b"two", b"theirs": _core.encode(value)}
    properties = world.mappings()["properties"]
    assert properties["data"]["type"] == "binary"
    assert properties["val"]["properties"]["user"]["type"] == "text"


@pytest.mark.parametrize("ending", ["", "Z", "+09:00"])
def test_moments(world, ending):
    seconds = 9 * 3600 if ending == "+09:00" else 0
    for key, left in (("live", 3600), ("dead", -5)):
        world.put(key, id=key, val={"a": 1}, expiration=moment(seconds + left, ending))
    assert abs(world.store.load("live")[2] - time.time() * 1000 - HOUR) < 60_000
    assert world.store.load("dead") is None


def test_without_expiration(world):
    """As Flask-Session2 stores a session that is not permanent."""
    world.put("k", id="k", val={"a": 1}, expiration=None)
    held, version, expires = world.store.load("k")
    assert expires == _core.EXPIRES_NEVER
    assert world.store.create("k", b"two", HOUR) is False
    assert world.store.purge() == 0
    assert world.store.touch("k", held, version, HOUR) == _core.OK
    assert world.store.load("k")[2] > time.time() * 1000
    world.put("k", id="k", val={"a": 1}, expiration=None)
    held, version, _ = world.store.load("k")
    assert world.store.replace("k", held, version, b"two", HOUR) == _core.OK
    assert world.store.load("k")[2] > time.time() * 1000


OTHERS = [
    {"id": "k", "val": "text", "expiration": "2099-01-01T00:00:00+00:00"},
    {"id": "k", "val": [1], "expiration": "2099-01-01T00:00:00+00:00"},
    {"id": "k", "expiration": "2099-01-01T00:00:00+00:00"},
    {"id": "k", "val": {"a": 1}},
    {"id": "k", "val": {"a": 1}, "expiration": "2001"},
    {"id": "k", "val": {}, "expiration": "2099-01-01T00:00:00+00:00", "data": "no base64!"},
    {"id": "k", "val": {}, "expiration": "2099-01-01T00:00:00+00:00", "data": 5},
    {"something": "else"},
]


def test_other_documents_are_no_session_and_left_alone(world):
    world.store.create("other", b"x", HOUR)
    for document in OTHERS:
        world.put("k", **document)
        assert world.store.load("k")[0] == b""
        assert world.store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
        assert world.store.touch("k", b"one", b"", HOUR) == _core.GONE
        assert world.store.create("k", b"two", HOUR) is False
        assert [key for key, _, _ in world.store.scan(b"", 10)[1]] == [b"other"]
        assert world.source("k") == document


def test_keys(world):
    """What is too long is refused, and never sent."""
    longest = "\N{SNOWMAN}" * 170 + "xx"
    assert len(longest.encode()) == 512
    assert world.store.create(longest, b"one", HOUR)
    assert world.store.load(longest)[0] == b"one"
    world.requests.clear()
    for key in ("x" * 513, "\N{SNOWMAN}" * 171, "a\0b"):
        with pytest.raises(SessionStoreError) as caught:
            world.store.create(key, b"one", HOUR)
        assert "at most 512 bytes without NUL" in str(caught.value.__cause__)
        assert world.store.load(key) is None
        assert world.store.touch(key, b"one", b"", HOUR) == _core.GONE
        world.store.remove(key)
    assert world.requests.sent == []


# ---- what is sent -------------------------------------------------------------------------------


def test_what_is_sent(world):
    """Every read is by the id and in real time; no search, no refresh; every write of an existing
    document names its version; no key is in a URL, where it would be logged."""
    store, requests = world.store, world.requests
    store.create("the-key", b"one", HOUR)
    index = f"/{world.name}"
    paths = [path for _, path, _ in requests.sent]
    assert paths == [f"{index}/_mapping", index, f"{index}/_bulk"]
    held, version, _ = store.load("the-key")
    read, write = f"{index}/_mget?realtime=true", f"{index}/_bulk"
    for operation, sent in (
        (lambda: store.load("the-key"), [read]),
        (lambda: store.touch("the-key", held, version, HOUR + 5), [write]),
        (lambda: store.touch("the-key", held, version, HOUR), [write, read, write]),
        (
            lambda: store.replace("the-key", held, store.load("the-key")[1], b"2", HOUR),
            [read, write],
        ),
        (lambda: store.replace("the-key", held, version, b"three", HOUR), [write, read]),
        (lambda: store.replace("the-key", b"2", b"", b"three", HOUR), [read, write]),
        (lambda: store.create("the-key", b"one", HOUR), [write, read]),
        (lambda: store.create("the-other", b"one", HOUR), [write]),
        (lambda: store.remove("the-key"), [write]),
        (lambda: store.load("the-key"), [read]),
    ):
        requests.clear()
        operation()
        assert [path for _, path, _ in requests.sent] == sent
        for method, path, body in requests.sent:
            assert method in ("POST", "PUT")
            if path == read:
                assert body == {"ids": ["the-key"]}
            else:
                [(action, line)] = body[0].items()
                conditional = {"if_seq_no", "if_primary_term"} <= set(line)
                assert action in ("create", "delete") or conditional
                assert "refresh" not in line


def test_a_purge_deletes_what_it_saw_and_nothing_newer(world):
    """A session that is renewed, and one that is made anew, between search and deletion stay."""
    store = world.store
    for key in ("expired", "renewed", "anew"):
        store.create(key, b"one", 1)
    store.create("live", b"one", HOUR)
    time.sleep(0.05)

    def before(path, body):
        if path.endswith("/_bulk") and len(body) == 3:
            world.requests.before = lambda path, body: None
            for action in body:
                assert {"if_seq_no", "if_primary_term"} < set(action["delete"])
            other = world.open(world.own())
            assert other.create("renewed", b"two", HOUR)
            other.remove("anew")
            assert other.create("anew", b"two", HOUR)

    world.requests.before = before
    assert store.purge() == 1
    assert [store.load(key) is None for key in ("expired", "renewed", "anew", "live")] == [
        *(True, False, False, False)
    ]
    paths = {path.partition("?")[0] for _, path, _ in world.requests.sent}
    assert not any("by_query" in path for path in paths)


def test_scan_in_several_shards(world):
    """Sequence numbers are counted in each shard: none is missed at the end of a page."""
    world.plain.indices.create(
        index=world.name, body={"settings": {"number_of_shards": 5, "number_of_replicas": 0}}
    )
    store = world.open(prefix="p:")
    expected = {f"p:{number}" for number in range(60)}
    for key in expected | {"q:1"}:
        store.create(key, b"x", HOUR)
    for batch in (3, 7, 50):
        seen, cursor = [], b""
        while True:
            cursor, rows = store.scan(cursor, batch)
            seen += [key.decode() for key, _, _ in rows]
            if not cursor:
                break
        assert set(seen) == expected
        assert len(seen) == len(expected)


# ---- strong consistency -------------------------------------------------------------------------


def test_a_session_is_never_stale(world, long_run):
    """Written and read back at once, from another connection."""
    writer, reader = world.store, world.open(world.own())
    writer.create("k", b"0", HOUR)
    held, version, _ = reader.load("k")
    for number in range(1, 10_001 if long_run else 201):
        value = b"%d" % number
        assert writer.replace("k", held, version, value, HOUR) == _core.OK
        held, version, _ = reader.load("k")
        assert held == value


# ---- the index ----------------------------------------------------------------------------------


def test_an_index_that_is_deleted_is_made_again(world):
    world.store.create("k", b"one", HOUR)
    world.plain.indices.delete(index=world.name)
    assert world.store.load("k") is None
    assert world.store.purge() == 0
    assert world.store.scan(b"", 10) == (b"", [])
    assert world.store.touch("k", b"one", b"", HOUR) == _core.GONE
    world.store.remove("k")
    assert world.store.create("k", b"one", HOUR)
    assert world.mappings()["dynamic"] == "false"


def test_an_alias(world):
    world.plain.indices.create(index=f"{world.name}-1")
    try:
        world.plain.indices.put_alias(index=f"{world.name}-1", name=world.name)
        assert world.store.create("k", b"one", HOUR)
        assert world.store.load("k")[0] == b"one"
    finally:
        world.plain.indices.delete(index=f"{world.name}-1")


def test_an_alias_of_two_indexes(world):
    names = [f"{world.name}-{number}" for number in (1, 2)]
    for name in names:
        world.plain.indices.create(index=name, body={"aliases": {world.name: {}}})
    try:
        for operation in (
            lambda: world.store.load("the-secret-id"),
            lambda: world.store.create("the-secret-id", b"one", HOUR),
        ):
            with pytest.raises(SessionStoreError) as caught:
                operation()
            assert "the-secret" not in str(caught.value) + str(caught.value.__cause__)
    finally:
        world.plain.indices.delete(index=names)


def test_a_server_that_makes_no_index_by_itself(world):
    setting = {"action.auto_create_index": f"-{world.name},+*"}
    world.plain.cluster.put_settings(body={"persistent": setting})
    try:
        refusing(world, 403, "security_exception")
        for _ in range(2):
            with pytest.raises(SessionStoreError) as caught:
                world.store.create("k", b"one", HOUR)
            assert "there is no index for the sessions" in str(caught.value.__cause__)
        assert world.store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
        world.requests.before = lambda path, body: None
        assert world.store.create("k", b"one", HOUR)
    finally:
        world.plain.cluster.put_settings(body={"persistent": dict.fromkeys(setting)})


def refusing(world, status, kind):
    """A client whose server refuses to show and to make an index."""

    def refuse(path, body):
        if path.endswith("/_mapping") or path == f"/{world.name}":
            if world.row.name == "elasticsearch-opensearch":
                raise opensearchpy.AuthorizationException(status, kind, {})
            transport = pytest.importorskip("elastic_transport")
            meta = transport.ApiResponseMeta(status, "1.1", transport.HttpHeaders(), 0.0, None)
            error = elasticsearch.AuthorizationException(kind, meta, {"error": {"type": kind}})
            raise error

    world.requests.before = refuse


def test_a_role_that_may_not_make_an_index(world, caplog):
    refusing(world, 403, "security_exception")
    with caplog.at_level(logging.WARNING, "flask_session"):
        assert world.store.create("k", b"one", HOUR)
        assert world.store.create("l", b"one", HOUR)
    told = [record.getMessage() for record in caplog.records if record.name == "flask_session"]
    assert len(told) == 1
    assert "could not be made (403, security_exception)" in told[0]
    assert world.store.load("k")[0] == b"one"


def test_a_server_that_fails_is_no_refusal(world):
    refusing(world, 503, "unavailable")
    with pytest.raises(SessionStoreError):
        world.store.create("k", b"one", HOUR)
    world.requests.before = lambda path, body: None
    assert world.store.create("k", b"one", HOUR)
    assert world.mappings()["dynamic"] == "false"


def test_errors_show_neither_keys_nor_data(world, caplog, monkeypatch):
    """Servers quote what they refuse, and clients log URLs."""
    # Writes bodies, to handlers of its own only; pytest gives it one.
    monkeypatch.setattr(logging.getLogger("opensearchpy.trace"), "disabled", True)
    fields = {"data": {"type": "integer"}}
    world.plain.indices.create(index=world.name, body={"mappings": {"properties": fields}})
    with caplog.at_level("DEBUG", "flask_session"), caplog.at_level("INFO"):
        with pytest.raises(SessionStoreError) as caught:
            world.store.create("the-secret-id", b"the-secret-data", HOUR)
        assert world.store.load("the-secret-id") is None
    shown, error = caplog.text, caught.value
    while error is not None:
        shown += str(error) + repr(error)
        error = error.__cause__ or error.__context__
    assert "the-secret" not in shown
    assert "the server refuses the request (400, " in shown
    assert base64.b64encode(b"the-secret-data").decode()[:12] not in shown


# ---- clients -------------------------------------------------------------------------------------


def interface(client=None, **settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="elasticsearch", SESSION_ELASTICSEARCH=client, **settings)
    Session(app)
    return app.session_interface


class Methods:
    def mget(self): ...
    def bulk(self): ...
    def search(self): ...


class Older(Methods):
    """elasticsearch-py 7."""

    __module__ = "elasticsearch.client"


class Asynchronous(Methods):
    """Its methods are plain functions, which return coroutines."""

    def __init__(self):
        transport = pytest.importorskip("elastic_transport").AsyncTransport
        self.transport = object.__new__(transport)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Asynchronous, "is an asyncio client"),
        (object, "must be a synchronous client object"),
        (Methods, "must be a synchronous client object.*, not a value of type Methods$"),
        (Older, "must be a synchronous client object"),
        (lambda: 5, "not 5"),
    ],
    ids=["asyncio", "object", "methods", "older", "number"],
)
def test_refused_clients(make, text):
    with pytest.raises(SessionConfigError, match=text):
        interface(make())


@pytest.mark.parametrize(
    "url",
    [
        "elasticsearch+https://app:secret-word@",
        "opensearch+https://app:secret-word@host:x/",
        "elasticsearch+https://app:secret-word@host:99999/",
        "redis://app:secret-word@host/",
        "host:9200",
    ],
)
@pytest.mark.parametrize("key", ["SESSION_ELASTICSEARCH", "SESSION_ELASTICSEARCH_HOST"])
def test_wrong_urls_do_not_show_the_password(key, url):
    with pytest.raises(SessionConfigError) as caught:
        interface(**{key: url}) if key.endswith("HOST") else interface(url)
    assert str(caught.value).startswith(f"{key} must be a URL such as https://")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SESSION_ELASTICSEARCH_INDEX", "Sessions"),
        ("SESSION_ELASTICSEARCH_INDEX", "a,b"),
        ("SESSION_ELASTICSEARCH_INDEX", "a*"),
        ("SESSION_ELASTICSEARCH_INDEX", "_all"),
        ("SESSION_ELASTICSEARCH_INDEX", ""),
        ("SESSION_ELASTICSEARCH_INDEX", ".."),
        ("SESSION_ELASTICSEARCH_INDEX", 7),
        ("SESSION_ELASTICSEARCH_HOST", None),
        ("SESSION_ELASTICSEARCH_HOST", []),
        ("SESSION_ELASTICSEARCH_HOST", ["http://127.0.0.1:1", 7]),
    ],
)
def test_wrong_settings(key, value):
    with pytest.raises(SessionConfigError, match=f"^{key} must be"):
        interface(**{key: value})


@pytest.mark.parametrize(
    ("missing", "place", "extra"),
    [
        (("elasticsearch", "opensearchpy"), None, "elasticsearch"),
        (("elasticsearch",), "elasticsearch+http://127.0.0.1:1", "elasticsearch"),
        (("opensearchpy",), "opensearch+http://127.0.0.1:1", "opensearch"),
    ],
)
def test_a_missing_library(monkeypatch, missing, place, extra):
    for name in missing:
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(SessionConfigError, match=rf"cession\[{extra}\]") as caught:
        interface(place)
    assert 'SESSION_TYPE = "elasticsearch"' in str(caught.value)


def test_the_library_that_is_there(monkeypatch):
    assert type(interface().client) is elasticsearch.Elasticsearch
    monkeypatch.setitem(__import__("sys").modules, "elasticsearch", None)
    assert type(interface().client) is opensearchpy.OpenSearch


def connections(client):
    transport = client.transport
    pool = getattr(transport, "node_pool", None)
    return list(pool.all()) if pool else transport.connection_pool.connections


def retries_of(client):
    """How often it repeats, and whether it does so when there was no answer in time."""
    names = ("max_retries", "retry_on_timeout")
    return tuple(getattr(client, f"_{n}", getattr(client.transport, n, None)) for n in names)


@pytest.mark.parametrize("library", ["elasticsearch", "opensearch"])
def test_our_own_client_has_our_timeout(library):
    made = interface(f"{library}+http://127.0.0.1:1", SESSION_STORE_TIMEOUT=0.7)
    [one] = connections(made.client)
    settings = made.client if library == "elasticsearch" else one
    assert (getattr(settings, "_request_timeout", None) or settings.timeout) == 0.7
    assert retries_of(made.client) == (0, False)
    assert made.client is made.client


def test_several_hosts():
    """When one cannot be reached the next is tried."""
    hosts = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]
    made = interface(SESSION_ELASTICSEARCH_HOST=hosts)
    assert sorted(node.base_url for node in connections(made.client)) == hosts
    assert retries_of(made.client) == (2, False)


@pytest.mark.parametrize("kind", ["elasticsearch", "opensearch"])
def test_slow_clients_are_warned_about(kind):
    def make(timeout, **options):
        if kind == "elasticsearch":
            return elasticsearch.Elasticsearch(
                "http://127.0.0.1:1", request_timeout=timeout, **options
            )
        return opensearchpy.OpenSearch("http://127.0.0.1:1", timeout=timeout, **options)

    for client in (make(30), make(3, retry_on_timeout=True, max_retries=5)):
        with pytest.warns(UserWarning, match="SESSION_ELASTICSEARCH"):
            interface(client)
    if kind == "elasticsearch":
        with pytest.warns(UserWarning, match="SESSION_ELASTICSEARCH has no timeout"):
            interface(make(2).options(request_timeout=None))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            interface(make(30).options(request_timeout=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interface(make(2))
        interface(make(2, max_retries=5))  # not after a timeout


def test_a_factory():
    client = opensearchpy.OpenSearch("http://127.0.0.1:1")
    assert interface(lambda: client).client is client
    client.close()


def sockets(client):
    """The idle connections of urllib3, also below requests."""
    pools = []
    for one in connections(client):
        for adapter in one.session.adapters.values() if hasattr(one, "session") else ():
            known = adapter.poolmanager.pools
            pools += [known[key] for key in known.keys()]  # noqa: SIM118 - it refuses to iterate
        pools += [one.pool] if hasattr(one, "pool") else []
    idle = [one for pool in pools for one in pool.pool.queue if one is not None]
    return {os.fstat(one.sock.fileno()).st_ino for one in idle if one.sock is not None}


def given(world):
    return own_client("HOST", [f"{world.scheme}+{world.url}"], 5)


def own(world):
    return f"{world.scheme}+{world.url}"


def over_requests(world):
    if world.scheme == "opensearch":
        connection = opensearchpy.RequestsHttpConnection
        return opensearch_client(world.url, 5, connection_class=connection)
    return elasticsearch_client(world.url, 5, node_class="requests")


@pytest.mark.parametrize("make", [given, own, over_requests])
def test_a_fork_shares_no_connection(world, forked, make):
    """Two processes that use one connection read each other's answers."""
    if make is over_requests and world.row.name == "elasticsearch-8-host":
        return  # its client is made by the package
    made = ElasticsearchSessionInterface(client=make(world), key_prefix=new_prefix())
    store, parent = made._store, made.client
    store.create("k", b"one", HOUR)
    before = sockets(parent)
    assert before

    def child(pipe):
        value = store.load("k")[0]
        pipe.send((value, made.client is parent, sorted(sockets(made.client))))

    value, same, used = forked(child).recv()
    assert (value, same) == (b"one", make is not own)
    assert used
    assert not before & set(used)
    assert sockets(parent) == before
    assert store.load("k")[0] == b"one"
    store.remove("k")
    parent.close()


# ---- clients and servers that do not go together -------------------------------------------------


@pytest.mark.parametrize("row", [pytest.param(name, marks=marks) for name, marks in MARKS.items()])
@pytest.mark.parametrize("operation", ["create", "load"])
def test_wrong_pairs(start_row, row, operation):
    """Elasticsearch's client knows its own kind of server, and none that is older."""
    row = start_row(row)
    with elasticsearch_client(row.where[row.variable], 20) as client:
        index = new_prefix()[:-1]
        store = _core.Store.wrap(ElasticsearchStore(lambda: client, index))
        run = (lambda: store.create("k", b"x", HOUR)) if operation == "create" else (
            lambda: store.load("k")
        )  # fmt: skip
        major = elasticsearch.__versionstr__.partition(".")[0]
        if row.name == "elasticsearch" or (row.name == "elasticsearch-8-host" and major == "8"):
            run()
            with contextlib.suppress(elasticsearch.NotFoundError):
                client.indices.delete(index=index)
            return
        other = {"elasticsearch-opensearch": "opensearch 2.", "elasticsearch-8-host": "Elastic.* 8"}
        expected = rf"client elasticsearch {major}\.\S+ cannot be used with {other[row.name]}"
        with pytest.raises(SessionStoreError, match=expected) as caught:
            run()
        assert "secret" not in str(caught.value)


@pytest.mark.full
@pytest.mark.server
@pytest.mark.slow
def test_one_setting_for_servers_of_two_major_versions(start_row):
    """Of the client that is made here the requests name no version."""
    for name in ("elasticsearch", "elasticsearch-8-host"):
        row = start_row(name)
        made = interface(
            SESSION_ELASTICSEARCH_HOST=row.where[row.variable],
            SESSION_KEY_PREFIX=new_prefix(),
            SESSION_STORE_TIMEOUT=20,
        )
        seen = []
        [node] = connections(made.client)
        perform = node.perform_request

        def record(*args, perform=perform, seen=seen, **kwargs):
            seen.append(dict(kwargs["headers"]))
            return perform(*args, **kwargs)

        node.perform_request = record
        store = made._store
        assert store.create("k", b"one", HOUR)
        held, version, _ = store.load("k")
        assert store.replace("k", held, version, b"two", HOUR) == _core.OK
        assert store.load("k")[0] == b"two"
        store.remove("k")
        assert len(seen) > 4
        assert {headers["accept"] for headers in seen} == {"application/json"}
        assert not any("compatible-with" in str(headers) for headers in seen)


@pytest.mark.full
@pytest.mark.server
@pytest.mark.slow
def test_a_wrong_password(start_row):
    row = start_row("elasticsearch-8-host")
    url = row.where[row.variable].replace("sessions-secret", "another-secret")
    made = interface(SESSION_ELASTICSEARCH_HOST=url, SESSION_STORE_TIMEOUT=20)
    with pytest.raises(SessionStoreError) as caught:
        made._store.load("k")
    shown = f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__cause__}"
    assert "401" in shown
    assert "another-secret" not in shown


def test_nobody_listens(free_port):
    made = interface(SESSION_ELASTICSEARCH_HOST=f"http://app:a-secret@127.0.0.1:{free_port()}")
    with pytest.raises(SessionStoreError) as caught:
        made._store.load("k")
    assert "a-secret" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__cause__}"


# ---- other versions -----------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.process
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_elasticsearch_py_8(start_row, services, run_tests):
    """With both servers, by a client object and by a host."""
    for name in ("elasticsearch", "elasticsearch-8-host"):
        start_row(name)
    # The servers of this run.
    shared = {Services.OFFER: os.environ.get(Services.OFFER, str(services.folder))}
    here = Path(__file__).parent
    names = ("test_wrong_pairs", "test_refused_clients", "test_our_own_client_has_our_timeout")
    tests = [f"{__file__}::{name}" for name in names]
    chosen = ["-k", "elasticsearch and not opensearch", str(here / "test_row_contract.py"), *tests]
    run_tests("elasticsearch8", "elasticsearch", "8.", *chosen, env=shared, timeout=800)
