"""What is special to DynamoDB: test_row_contract.py has the contract."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import flask
import pytest
from flask_session import Session, SessionConfigError, SessionStoreError, _core
from flask_session.defaults import Defaults
from flask_session.dynamodb import (
    FLASK_SESSION,
    FLASK_SESSION2,
    DynamoDBSessionInterface,
    DynamoDBStore,
)
from flask_session.dynamodb_clients import is_local, low_level

from tests.rows import new_prefix
from tests.rows.dynamodb import connect, make_table
from tests.services import DynamoDBService, MotoService

boto3 = pytest.importorskip("boto3")
botocore = pytest.importorskip("botocore")

pytestmark = [pytest.mark.server, pytest.mark.client]

HOUR = 3_600_000
LIMIT = 409_600


@pytest.fixture(scope="module")
def url(services):
    return services.start(DynamoDBService).url


@pytest.fixture(scope="module")
def client(url):
    """Looks at the tables beside the store."""
    made = connect(url, 20)
    yield made
    made.close()


@pytest.fixture
def table(client):
    """The name of a table that is not there yet, and is gone afterwards."""
    name = f"t-{uuid.uuid4().hex}"
    yield name
    if name in client.list_tables()["TableNames"]:
        client.delete_table(TableName=name)


class Sent(list):
    """What a client sends: (operation, parameters), each time that it does."""

    def __init__(self, client):
        client.meta.events.register("before-send.dynamodb", self.note)

    def note(self, request, **others):
        operation = request.headers["X-Amz-Target"].decode().partition(".")[2]
        self.append((operation, json.loads(request.body)))

    def operations(self):
        made = [operation for operation, _ in self]
        self.clear()
        return made


def adapter(client, table, layout=FLASK_SESSION, **options):
    return DynamoDBStore(lambda: client, table, layout, makes_table=True, **options)


@pytest.fixture
def store(client, table):
    made = adapter(client, table)
    made.make_local_table()
    return _core.Store.wrap(made)


@pytest.fixture
def their_store(client, table):
    make_table(client, table, "SessionId")
    return _core.Store.wrap(adapter(client, table, FLASK_SESSION2))


def items(client, table):
    return client.scan(TableName=table, ConsistentRead=True)["Items"]


def interface(**settings):
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="dynamodb", **settings)
    Session(app)
    return app.session_interface


# ---- the items ----------------------------------------------------------------------------------


def test_item(store, client, table):
    before = time.time()
    assert store.create("k", b"\x80one", HOUR)
    [item] = items(client, table)
    expiration = item.pop("expiration")["N"]
    assert item == {"id": {"S": "k"}, "val": {"B": b"\x80one"}}
    assert expiration.isdigit()
    assert before + 3600 <= int(expiration) <= time.time() + 3601


def test_item_of_the_other_layout(their_store, client, table):
    """JSON is text, as Flask-Session2 reads it; what is no JSON is not."""
    for key, value, stored in (
        ("json", '{"a": "Zo\u00eb"}'.encode(), {"S": '{"a": "Zo\u00eb"}'}),
        ("msgpack", b"\x81\xa1a\x01", {"B": b"\x81\xa1a\x01"}),
        ("neither", b"{\xff", {"B": b"{\xff"}),
    ):
        assert their_store.create(key, value, HOUR)
        [item] = items(client, table)
        assert item.pop("expiration")["N"].isdigit()
        assert item == {"SessionId": {"S": key}, "Session": stored}
        assert their_store.load(key)[0] == value
        assert their_store.touch(key, value, b"", HOUR) == _core.OK
        assert their_store.replace(key, value, b"", b'{"b":1}', HOUR) == _core.OK
        assert their_store.replace(key, value, b"", b"x", HOUR)[0] == b'{"b":1}'
        their_store.remove(key)


def test_items_of_flask_session(store, client, table):
    """Its expirations have fractions, and nothing sweeps them."""
    for key, seconds in (("live", 3600.25), ("dead", -0.25)):
        end = {"N": f"{time.time() + seconds:.6f}"}
        item = {"id": {"S": key}, "val": {"B": b"one"}, "expiration": end}
        client.put_item(TableName=table, Item=item)
    value, version, expires = store.load("live")
    assert (value, version) == (b"one", b"")
    assert abs(expires - time.time() * 1000 - HOUR) < 60_000
    assert store.load("dead") is None
    assert store.replace("dead", b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch("dead", b"one", b"", HOUR) == _core.GONE
    assert store.create("live", b"three", HOUR) is False
    assert store.replace("live", b"one", b"", b"two", HOUR) == _core.OK
    assert store.create("dead", b"three", HOUR) is True
    held = {item["id"]["S"]: item["val"]["B"] for item in items(client, table)}
    assert held == {"live": b"two", "dead": b"three"}


def test_items_without_expiration(their_store, client, table):
    """As Flask-Session2 stores all of them."""
    for key in ("touched", "replaced", "removed"):
        item = {"SessionId": {"S": key}, "Session": {"S": '{"a": 1}'}}
        client.put_item(TableName=table, Item=item)
        assert their_store.load(key) == (b'{"a": 1}', b"", _core.EXPIRES_NEVER)
        assert their_store.create(key, b"{}", HOUR) is False
    assert their_store.touch("touched", b'{"a": 1}', b"", HOUR) == _core.OK
    assert their_store.replace("replaced", b'{"a": 1}', b"", b'{"a":2}', HOUR) == _core.OK
    their_store.remove("removed")
    held = {item["SessionId"]["S"]: item for item in items(client, table)}
    assert held.keys() == {"touched", "replaced"}
    assert held["touched"]["Session"] == {"S": '{"a": 1}'}
    assert all(item["expiration"]["N"].isdigit() for item in held.values())


FOREIGN = {
    "text": {"val": {"S": "text"}, "expiration": {"N": "4000000000"}},
    "number": {"val": {"N": "1"}, "expiration": {"N": "4000000000"}},
    "no-value": {"expiration": {"N": "4000000000"}},
    "text-date": {"val": {"B": b"one"}, "expiration": {"S": "2099-01-01T00:00:00"}},
    "null": {"val": {"B": b"one"}, "expiration": {"NULL": True}},
}


@pytest.mark.parametrize("attributes", FOREIGN.values(), ids=FOREIGN)
def test_other_items_are_no_session_and_left_alone(store, client, table, attributes):
    client.put_item(TableName=table, Item={"id": {"S": "k"}, **attributes})
    assert store.load("k")[0] == b""
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
    assert store.touch("k", b"one", b"", HOUR) == _core.GONE
    assert store.create("k", b"two", HOUR) is False
    assert store.scan() == (b"", [])
    assert items(client, table) == [{"id": {"S": "k"}, **attributes}]


def test_other_items_in_the_other_layout(their_store, client, table):
    """Binary JSON, and text that is no object: neither is what anybody writes."""
    for value in ({"B": b"{}"}, {"S": "[]"}):
        client.put_item(TableName=table, Item={"SessionId": {"S": "k"}, "Session": value})
        assert their_store.load("k")[0] == b""
        assert their_store.touch("k", b"{}", b"", HOUR) == _core.GONE
        assert items(client, table) == [{"SessionId": {"S": "k"}, "Session": value}]


@pytest.mark.parametrize(("number", "expires"), [("9.9E+125", 2**62), ("-1", None)])
def test_numbers_that_are_no_date(store, client, table, number, expires):
    item = {"id": {"S": "k"}, "val": {"B": b"one"}, "expiration": {"N": number}}
    client.put_item(TableName=table, Item=item)
    assert store.load("k") == (expires and (b"one", b"", expires))


def test_other_attributes_stay(store, client, table):
    store.create("k", b"one", HOUR)
    client.update_item(
        TableName=table,
        Key={"id": {"S": "k"}},
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": {"S": "of the application"}},
    )
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.OK
    assert store.touch("k", b"two", b"", HOUR) == _core.OK
    assert items(client, table)[0]["note"] == {"S": "of the application"}


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [FLASK_SESSION, FLASK_SESSION2])
def test_size(client, table, layout):
    """What is let through the server takes, and of what it takes little is refused."""
    made = adapter(client, table, layout)
    made.make_local_table()
    store = _core.Store.wrap(made)
    key = "k" * 900
    names = len(layout.key + layout.value + "expiration")
    most = LIMIT - len(key) - names - 21
    assert store.create(key, b"x" * most, HOUR)
    assert store.replace(key, b"x" * most, b"", b"y" * most, HOUR) == _core.OK
    assert store.touch(key, b"y" * most, b"", HOUR) == _core.OK
    for refused in (
        lambda: store.create("k" * 899 + "l", b"x" * (most + 1), HOUR),
        lambda: store.replace(key, b"y" * most, b"", b"z" * (most + 1), HOUR),
    ):
        with pytest.raises(SessionStoreError) as caught:
            refused()
        assert f"the session has {most + 1:,} bytes" in str(caught.value)
        assert "409,600 bytes (400 KB)" in str(caught.value)
        assert "kkk" not in str(caught.value)
    assert store.load(key)[0] == b"y" * most
    assert len(items(client, table)) == 1


def test_size_that_only_the_server_knows(store, client, table):
    """The application's own attributes count as well."""
    store.create("k", b"one", HOUR)
    client.update_item(
        TableName=table,
        Key={"id": {"S": "k"}},
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": {"S": "n" * 300_000}},
    )
    with pytest.raises(SessionStoreError, match=r"too large.*409,600 bytes \(400 KB\)"):
        store.replace("k", b"one", b"", b"x" * 200_000, HOUR)
    assert store.load("k")[0] == b"one"


# ---- what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["client", "resource"])
def test_every_read_is_consistent_and_every_operation_one_request(url, client, table, kind):
    given = connect(url, 20, kind)
    sent = Sent(given if kind == "client" else given.meta.client)
    store = _core.Store.wrap(adapter(low_level(given), table))
    make_table(client, table, "id")
    seen = []
    for operation, answer, requests in (
        (lambda: store.load("k"), None, ["GetItem"]),
        (lambda: store.create("k", b"one", HOUR), True, ["PutItem"]),
        (lambda: store.create("k", b"one", HOUR), False, ["PutItem"]),
        (lambda: store.load("k")[0], b"one", ["GetItem"]),
        (lambda: store.touch("k", b"one", b"", HOUR), _core.OK, ["UpdateItem"]),
        (lambda: store.touch("k", b"x", b"", HOUR), _core.CHANGED, ["UpdateItem"]),
        (lambda: store.replace("k", b"one", b"", b"two", HOUR), _core.OK, ["UpdateItem"]),
        (lambda: store.replace("k", b"one", b"", b"x", HOUR)[0], b"two", ["UpdateItem"]),
        (lambda: store.scan()[1][0][0], b"k", ["Scan"]),
        (lambda: store.remove("k"), None, ["DeleteItem"]),
        # There is no item to send back: whether that is so a read tells.
        (
            lambda: store.replace("k", b"two", b"", b"x", HOUR),
            _core.GONE,
            ["UpdateItem", "GetItem"],
        ),
        (lambda: store.touch("k", b"two", b"", HOUR), _core.GONE, ["UpdateItem", "GetItem"]),
    ):
        assert operation() == answer
        seen += sent
        assert sent.operations() == requests
    assert all(parameters["TableName"] == table for _, parameters in seen)
    reads = [parameters for name, parameters in seen if name in ("GetItem", "Scan")]
    assert [parameters.get("ConsistentRead") for parameters in reads] == [True] * 5
    writes = [parameters for name, parameters in seen if name in ("PutItem", "UpdateItem")]
    assert all(one["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD" for one in writes)
    assert all("ConditionExpression" in one for one in writes)


def test_a_server_that_does_not_send_the_item_back(url, store, table):
    """It is read again, consistently."""
    forgetful = connect(url, 20)
    forgetful.meta.events.register(
        "after-call.dynamodb", lambda parsed, **_: parsed.pop("Item", None) if "Error" in parsed
        else None,
    )  # fmt: skip
    sent = Sent(forgetful)
    asks = _core.Store.wrap(adapter(forgetful, table))
    store.create("k", b"one", HOUR)
    value, _, expires = asks.replace("k", b"x", b"", b"two", HOUR)
    assert (value, expires) == (b"one", store.load("k")[2])
    assert asks.touch("k", b"x", b"", HOUR) == _core.CHANGED
    assert asks.create("k", b"x", HOUR) is False
    reads = [parameters for name, parameters in sent if name == "GetItem"]
    assert [parameters["ConsistentRead"] for parameters in reads] == [True] * 3
    assert sent.operations() == [
        "UpdateItem",
        "GetItem",
        "UpdateItem",
        "GetItem",
        "PutItem",
        "GetItem",
    ]
    assert store.load("k")[0] == b"one"


class LostAnswer:
    """Of each write the first answer is lost: the client sees an error, and repeats it."""

    def __init__(self, client):
        self.lost = 0
        client.meta.events.register("before-send.dynamodb", self.lose)
        self._send = client._endpoint.http_session.send
        self.armed = True

    def lose(self, request, **others):
        if not self.armed:
            return None
        self.armed = False
        self.lost += 1
        answer = self._send(request)
        assert answer.status_code == 200
        return botocore.awsrequest.AWSResponse(request.url, 500, {}, Raw())


class Raw:
    def stream(self, *args, **kwargs):
        yield b'{"__type": "InternalServerError"}'


def repeating(url):
    config = botocore.config.Config(
        connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"}
    )
    session = boto3.Session("x", "y", region_name="us-east-1")
    return session.client("dynamodb", endpoint_url=url, config=config)


def test_a_client_that_repeats_knows_its_own_writes(url, store, table):
    made = repeating(url)
    lost = LostAnswer(made)
    asks = _core.Store.wrap(adapter(made, table))
    assert asks.create("k", b"one", HOUR) is True
    lost.armed = True
    assert asks.replace("k", b"one", b"", b"two", HOUR) == _core.OK
    lost.armed = True
    assert asks.touch("k", b"two", b"", 2 * HOUR) == _core.OK
    assert lost.lost == 3
    assert store.load("k")[0] == b"two"
    # Not another one's, though it has the same value: no attempt was repeated.
    assert asks.create("k", b"two", 2 * HOUR) is False
    lost.armed = True
    asks.remove("k")
    assert lost.lost == 4
    assert store.load("k") is None


def test_a_resource_goes_on_as_it_was(url, store, table):
    """Its translation of values is left out for the sessions, and there for the application."""
    resource = connect(url, 20, "resource")
    twin = low_level(resource)
    assert low_level(resource.meta.client) is not resource.meta.client
    assert low_level(twin) is twin
    plain = connect(url, 20)
    assert low_level(plain) is plain
    builder = next(
        injector for injector in [resource._injector] if hasattr(injector, "_condition_builder")
    )._condition_builder
    builder.reset = None  # called by a request that is translated
    for given in (twin, low_level(resource.meta.client)):
        own = _core.Store.wrap(adapter(given, table))
        assert own.create("k", b"one", HOUR)
        assert own.load("k")[0] == b"one"
        assert own.replace("k", b"x", b"", b"y", HOUR)[0] == b"one"
        own.remove("k")
    del builder.reset
    from boto3.dynamodb.conditions import Attr

    store.create("k", b"one", HOUR)
    answer = resource.Table(table).scan(FilterExpression=Attr("id").eq("k"))
    assert bytes(answer["Items"][0]["val"]) == b"one"


# ---- the table ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [None, False])
def test_the_table_is_made_at_init_where_it_is_local(url, client, table, exists):
    made = interface(
        SESSION_DYNAMODB=connect(url, 10, "resource"),
        SESSION_DYNAMODB_TABLE=table,
        SESSION_DYNAMODB_TABLE_EXISTS=exists,
    )
    described = client.describe_table(TableName=table)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    expiry = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expiration"}
    assert made._store.create("k", b"one", HOUR)
    # Another start finds it.
    again = interface(SESSION_DYNAMODB=connect(url, 10), SESSION_DYNAMODB_TABLE=table)
    assert again._store.load("k")[0] == b"one"


def test_a_table_that_exists_is_left_as_it_is(url, client, table):
    make_table(client, table, "id")
    interface(SESSION_DYNAMODB=connect(url, 10), SESSION_DYNAMODB_TABLE=table)
    expiry = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert expiry["TimeToLiveStatus"] == "DISABLED"


def test_table_exists_makes_nothing(url, client, table):
    given = connect(url, 10)
    sent = Sent(given)
    made = interface(
        SESSION_DYNAMODB=given, SESSION_DYNAMODB_TABLE=table, SESSION_DYNAMODB_TABLE_EXISTS=True
    )
    assert sent == []
    check_missing_table(made._store, client, table)


def test_the_other_layout_makes_nothing(url, client, table):
    made = interface(
        SESSION_DYNAMODB=boto3.Session("x", "y", region_name="us-east-1"),
        SESSION_DYNAMODB_ENDPOINT=url,
        SESSION_DYNAMODB_TABLE=table,
        SESSION_STORE_TIMEOUT=10,
    )
    check_missing_table(made._store, client, table)


def check_missing_table(store, client, table):
    for operation in (
        lambda: store.load("k"),
        lambda: store.create("k", b"one", HOUR),
        lambda: store.replace("k", b"one", b"", b"two", HOUR),
        lambda: store.touch("k", b"one", b"", HOUR),
        lambda: store.remove("k"),
    ):
        with pytest.raises(SessionStoreError) as caught:
            operation()
        text = str(caught.value.__cause__)
        assert text.startswith(f"DynamoDB has no table '{table}' in this region")
        assert "docs/backends/dynamodb.md" in text
    assert table not in client.list_tables()["TableNames"]


def test_nothing_is_asked_of_aws_at_init():
    """Neither by a client of the application's nor by ours; nor is a table made there later."""
    given = connect("https://dynamodb.eu-west-1.amazonaws.com")
    sent = Sent(given)
    made = interface(SESSION_DYNAMODB=given)
    assert sent == []
    assert made._makes_table
    assert not is_local(given.meta.endpoint_url)


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("http://localhost:8000", True),
        ("http://dynamodb.localhost:8000", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", True),
        ("http://dynamodb-local:8000", True),
        ("https://dynamodb.eu-west-1.amazonaws.com", False),
        ("https://vpce-1.dynamodb.eu-west-1.vpce.amazonaws.com", False),
        ("http://10.0.0.5:8000", False),
        ("http://localhost.example.com", False),
    ],
)
def test_local(endpoint, local):
    assert is_local(endpoint) is local


def test_a_server_that_is_not_up_at_init(services, caplog):
    """The table is made when it is needed, and again when the server has lost it."""
    server = services.own(MotoService)
    server.stop()
    with caplog.at_level(logging.WARNING, "flask_session"):
        made = interface(SESSION_DYNAMODB=connect(server.url, 5))
    assert "the table 'Sessions' could not be made (EndpointConnectionError)" in caplog.text
    store = made._store
    for _ in range(2):
        server.restart()
        assert store.load("k") is None
        assert store.create("k", b"one", HOUR)
        assert store.load("k")[0] == b"one"
    server.restart()
    assert store.replace("k", b"one", b"", b"two", HOUR) == _core.GONE
    server.end()


def test_threads_make_one_table(url, client, table):
    store = _core.Store.wrap(adapter(connect(url, 20), table))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: store.create(f"k{n}", b"x", HOUR), range(4))) == [True] * 4
    expiry = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    assert expiry["TimeToLiveStatus"] == "ENABLED"


@pytest.mark.slow
def test_the_server_deletes_what_has_expired(store, client, table):
    store.create("short", b"x", 1000)
    store.create("long", b"x", HOUR)
    end = time.monotonic() + 60
    while len(items(client, table)) > 1 and time.monotonic() < end:
        time.sleep(0.5)
    assert [item["id"]["S"] for item in items(client, table)] == ["long"]


# ---- listing ------------------------------------------------------------------------------------


def test_scan_lists_live_sessions_under_the_prefix(client, table):
    made = adapter(client, table, key_prefix="a:")
    made.make_local_table()
    for key, ttl in (("a:1", HOUR), ("a:2", HOUR), ("a:dead", 1), ("b:1", HOUR)):
        assert made.create(key, b"x", ttl, 1)
    time.sleep(1.1)
    rows, cursor, pages = [], b"", 0
    while True:
        cursor, found = made.scan(cursor, 1, 1)
        rows += found
        pages += 1
        if not cursor:
            break
    assert sorted(key for key, _, _ in rows) == ["a:1", "a:2"]
    assert all(value == b"x" and expires % 1000 == 0 for _, value, expires in rows)
    assert pages >= 4


# ---- credentials --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto(services):
    """It accepts signatures of one key only."""
    server = services.own(MotoService)
    server.check_signatures()
    make_table(
        boto3.Session(server.key_id, server.secret, region_name="us-east-1").client(
            "dynamodb", endpoint_url=server.url
        ),
        "sessions",
        "SessionId",
    )
    yield server
    server.end()


def with_keys(server, key_id, secret):
    return interface(
        SESSION_DYNAMODB_KEY_ID=key_id,
        SESSION_DYNAMODB_SECRET=secret,
        SESSION_DYNAMODB_REGION="us-east-1",
        SESSION_DYNAMODB_ENDPOINT=server.url,
        SESSION_STORE_TIMEOUT=10,
    )


def test_right_credentials(moto):
    """The whole contract, once, on a server of another make."""
    store = with_keys(moto, moto.key_id, moto.secret)._store
    assert store.load("k") is None
    assert store.create("k", b"\x80one", HOUR) is True
    assert store.create("k", b"\x80two", HOUR) is False
    assert store.replace("k", b"\x80one", b"", b'{"a":1}', HOUR) == _core.OK
    assert store.replace("k", b"\x80one", b"", b"x", HOUR)[0] == b'{"a":1}'
    assert store.touch("k", b"\x80one", b"", HOUR) == _core.CHANGED
    assert store.touch("k", b'{"a":1}', b"", HOUR) == _core.OK
    assert [key for key, _, _ in store.scan()[1]] == [b"k"]
    store.remove("k")
    assert store.touch("k", b'{"a":1}', b"", HOUR) == _core.GONE
    with pytest.raises(SessionStoreError, match="409,600 bytes"):
        store.create("k", b"x" * LIMIT, HOUR)


@pytest.mark.parametrize("wrong", ["secret", "key"])
def test_wrong_credentials(moto, wrong):
    key_id = moto.key_id if wrong == "secret" else "AKIAWRONGWRONGWRONGX"
    made = with_keys(moto, key_id, "a-wrong-secret")
    with pytest.raises(SessionStoreError) as caught:
        made._store.load("k")
    cause = caught.value.__cause__
    assert isinstance(cause, PermissionError)
    # moto leaves the name of the error where no client looks for it.
    assert str(cause) == "DynamoDB refuses the credentials, or what is asked for with them (403)"
    assert cause.__cause__ is None
    assert cause.__suppress_context__


def test_a_role_that_may_not(moto):
    """The keys of a user without a policy."""
    admin = boto3.Session(moto.key_id, moto.secret, region_name="us-east-1")
    iam = admin.client("iam", endpoint_url=moto.url)
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    made = with_keys(moto, key["AccessKeyId"], key["SecretAccessKey"])
    with pytest.raises(SessionStoreError) as caught:
        made._store.load("k")
    assert isinstance(caught.value.__cause__, PermissionError)


def test_credentials_and_keys_are_in_no_error_and_no_repr(moto, caplog):
    """Nor the token of temporary credentials, which an answer may repeat."""
    secret = "a-secret-of-nobody"
    session = boto3.Session("AKIDEXAMPLE", secret, "a-session-token", region_name="us-east-1")
    made = interface(
        SESSION_DYNAMODB=session, SESSION_DYNAMODB_ENDPOINT=moto.url, SESSION_STORE_TIMEOUT=10
    )

    def echo(parsed, **others):
        parsed["Error"]["Message"] = "expected: x-amz-security-token:a-session-token"

    made.client.meta.events.register("after-call.dynamodb", echo)
    sid = "".join(("a-session", "-id"))  # not as the traceback shows this line
    with pytest.raises(SessionStoreError) as caught:
        made._store.load(sid)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    shown += repr(made) + repr(made.client) + repr(made._store) + repr(vars(made))
    for hidden in (secret, "a-session-token", "AKIDEXAMPLE", sid):
        assert hidden not in shown


# ---- configuration ------------------------------------------------------------------------------


def test_defaults(monkeypatch, url):
    """What is set chooses layout and table."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    theirs = {"table_name": "sessions", "layout": FLASK_SESSION2, "format": "json"}
    ours = {"table_name": "Sessions", "layout": FLASK_SESSION, "format": "msgpack"}
    far = "https://dynamodb.eu-west-1.amazonaws.com"
    for settings, expected in (
        ({}, ours),
        ({"SESSION_DYNAMODB": connect(far)}, ours),
        ({"SESSION_DYNAMODB": connect(far, kind="resource")}, ours),
        ({"SESSION_DYNAMODB": lambda: connect(far)}, ours),
        ({"SESSION_DYNAMODB": boto3.Session(region_name="eu-west-1")}, theirs),
        ({"SESSION_DYNAMODB_REGION": "eu-west-1"}, theirs),
        ({"SESSION_DYNAMODB_ENDPOINT": url}, theirs),
        ({"SESSION_DYNAMODB_KEY_ID": "k", "SESSION_DYNAMODB_SECRET": "s"}, theirs),
    ):
        made = interface(**settings)
        assert {
            "table_name": made.table_name,
            "layout": made._layout,
            "format": made.serializer.format,
        } == expected
        named = interface(
            **settings, SESSION_DYNAMODB_TABLE="visits", SESSION_SERIALIZATION_FORMAT="msgpack"
        )
        assert (named.table_name, named.serializer.format) == ("visits", "msgpack")


def test_our_own_client(monkeypatch):
    """What the keys say, with our timeout, not repeated; from the environment, never localhost."""
    made = interface(
        SESSION_DYNAMODB_KEY_ID="k",
        SESSION_DYNAMODB_SECRET="s",
        SESSION_DYNAMODB_REGION="eu-north-1",
        SESSION_STORE_TIMEOUT=0.7,
    )
    client = made.client
    assert client is made.client
    options = client.meta.config
    assert (options.connect_timeout, options.read_timeout) == (0.7, 0.7)
    assert options.retries["total_max_attempts"] == 1
    assert client.meta.endpoint_url == "https://dynamodb.eu-north-1.amazonaws.com"
    assert made.store is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    made = interface()
    assert made.client.meta.client.meta.endpoint_url == "https://dynamodb.eu-west-3.amazonaws.com"
    assert made.store.name == "Sessions"


def credential_of(made):
    """The key by whose name a request is signed."""
    told = []

    def note(request, **others):
        told.append(request.headers["Authorization"].decode())

    made.client.meta.events.register("before-send.dynamodb", note)
    with pytest.raises(SessionStoreError):
        made._store.load("k")
    return told[0].partition("Credential=")[2].partition("/")[0]


def test_every_key_has_its_effect(free_port):
    """SESSION_DYNAMODB_SECRET has it in test_right_credentials and test_wrong_credentials."""
    client = connect("http://h.x")
    nobody = f"http://127.0.0.1:{free_port()}"
    keys = {"SESSION_DYNAMODB_KEY_ID": "AKID", "SESSION_DYNAMODB_SECRET": "s"}
    region = {"SESSION_DYNAMODB_REGION": "eu-west-1"}
    effects = {
        "SESSION_DYNAMODB": (client, {}, lambda made: made.client),
        "SESSION_DYNAMODB_TABLE": ("visits", region, lambda made: made.table_name),
        "SESSION_DYNAMODB_TABLE_EXISTS": (
            *(True, {"SESSION_DYNAMODB": client}),
            lambda made: not made._makes_table,
        ),
        "SESSION_DYNAMODB_KEY_ID": (
            *("AKID", {**keys, **region, "SESSION_DYNAMODB_ENDPOINT": nobody}),
            credential_of,
        ),
        "SESSION_DYNAMODB_ENDPOINT": (
            *(nobody, {**keys, **region}),
            lambda made: made.client.meta.endpoint_url,
        ),
        "SESSION_DYNAMODB_REGION": (
            *("eu-north-1", keys),
            lambda made: made.client.meta.region_name,
        ),
    }
    for key, (value, others, effect) in effects.items():
        assert effect(interface(**{**others, key: value})) == value, key
    every = {key for key in vars(Defaults) if key.startswith("SESSION_DYNAMODB")}
    assert every == {*effects, "SESSION_DYNAMODB_SECRET"}
    assert every == {next(iter(settings)) for settings, _ in BAD} - {"SESSION_URL"}


def test_no_region(monkeypatch, tmp_path):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for settings in (
        {},
        {"SESSION_DYNAMODB": boto3.Session("k", "s")},
        {"SESSION_DYNAMODB_ENDPOINT": "http://localhost:1"},
    ):
        with pytest.raises(SessionConfigError, match="SESSION_DYNAMODB_REGION"):
            interface(**settings)


def test_no_credentials(monkeypatch, tmp_path):
    """They are looked for when they are needed; that none are found is said."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = interface(SESSION_DYNAMODB_REGION="eu-west-1")
    with pytest.raises(SessionStoreError) as caught:
        made._store.load("k")
    assert "Unable to locate credentials" in str(caught.value.__cause__)


BAD = [
    ({"SESSION_DYNAMODB": "http://localhost:8000"}, "must be a boto3 resource or client"),
    ({"SESSION_DYNAMODB": object()}, "must be a boto3 resource or client"),
    ({"SESSION_DYNAMODB_KEY_ID": "k"}, "must be set together"),
    ({"SESSION_DYNAMODB_SECRET": "hidden"}, "must be set together"),
    ({"SESSION_DYNAMODB_KEY_ID": 7}, "must be a string"),
    ({"SESSION_DYNAMODB_SECRET": ""}, "must be a name"),
    ({"SESSION_DYNAMODB_TABLE": "x"}, "3 to 255 letters"),
    ({"SESSION_DYNAMODB_TABLE": "with space"}, "3 to 255 letters"),
    ({"SESSION_DYNAMODB_TABLE": 7}, "must be a string"),
    ({"SESSION_DYNAMODB_TABLE_EXISTS": "yes"}, "True or False"),
    ({"SESSION_DYNAMODB_REGION": "eu west"}, "the name of a region"),
    ({"SESSION_DYNAMODB_REGION": ["eu-west-1"]}, "must be a string"),
    *(
        ({"SESSION_DYNAMODB_ENDPOINT": endpoint}, "http:// or https://")
        for endpoint in ("localhost:8000", "http://", "http://u:hidden@h", "http://h:x", "ftp://h")
    ),
    ({"SESSION_DYNAMODB_ENDPOINT": 8000}, "http:// or https://"),
    ({"SESSION_URL": "dynamodb://hidden"}, "must be a URL that begins with one of"),
]


@pytest.mark.parametrize(("settings", "text"), BAD, ids=range(len(BAD)))
def test_refused_settings(settings, text):
    with pytest.raises(SessionConfigError) as caught:
        interface(**{"SESSION_DYNAMODB_REGION": "eu-west-1", **settings})
    assert next(iter(settings)) in str(caught.value)
    assert text in str(caught.value)
    assert "hidden" not in str(caught.value)


class Asynchronous:
    """As aioboto3 has it."""

    async def get_item(self):
        return {}

    put_item = update_item = delete_item = scan = get_item


def test_refused_clients():
    session = boto3.Session("x", "y", region_name="eu-west-1")
    resource = session.resource("dynamodb")
    for client in (
        session.client("sts"),
        session.resource("s3"),
        resource.Table("t"),
        session.events,
    ):
        with pytest.raises(SessionConfigError, match="must be a boto3 resource or client"):
            interface(SESSION_DYNAMODB=client)
    with pytest.raises(SessionConfigError, match="is an asyncio client"):
        interface(SESSION_DYNAMODB=Asynchronous())


def test_keys_beside_a_client():
    with pytest.raises(SessionConfigError, match="SESSION_DYNAMODB_ENDPOINT cannot be set beside"):
        interface(SESSION_DYNAMODB=connect("http://h.x"), SESSION_DYNAMODB_ENDPOINT="http://h.x")
    session = boto3.Session("x", "y", region_name="eu-west-1")
    with pytest.warns(UserWarning, match="SESSION_DYNAMODB_REGION are not used"):
        made = interface(SESSION_DYNAMODB=session, SESSION_DYNAMODB_REGION="eu-north-1")
    assert made.client.meta.region_name == "eu-west-1"


def test_a_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SessionConfigError, match=r"cession\[dynamodb\]"):
        interface(SESSION_DYNAMODB_REGION="eu-west-1")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "may wait 60 s in each of"),
        ({"retries": {"mode": "standard"}}, "may wait 60 s in each of 4 attempts"),
        ({"read_timeout": None}, "has no timeout"),
        (
            {"read_timeout": 2, "connect_timeout": 2, "retries": {"mode": "legacy"}},
            "may wait 2 s in each of 10 attempts",
        ),
        ({"read_timeout": 20, "retries": {"max_attempts": 0}}, "may wait 60 s in each of 1"),
    ],
)
def test_slow_clients_are_warned_about(options, text):
    config = botocore.config.Config(**options)
    session = boto3.Session("x", "y", region_name="eu-west-1")
    with pytest.warns(UserWarning, match=text):
        interface(SESSION_DYNAMODB=session.client("dynamodb", config=config))


def test_quick_clients_are_not_warned_about():
    limits = {"connect_timeout": 2, "read_timeout": 2}
    session = boto3.Session("x", "y", region_name="eu-west-1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for retries in ({"max_attempts": 1}, {"mode": "standard"}, {"total_max_attempts": 5}):
            config = botocore.config.Config(retries=retries, **limits)
            interface(SESSION_DYNAMODB=session.resource("dynamodb", config=config))


NO_STUBS = """
import sys
sys.modules["mypy_boto3_dynamodb"] = None  # importing it fails
import flask, socket
import flask_session.dynamodb
assert "boto3" not in sys.modules and "botocore" not in sys.modules

def connect(*args, **kwargs):
    raise AssertionError("a socket")

socket.socket.connect = connect
app = flask.Flask("x")
app.config.update(SESSION_TYPE="dynamodb", SESSION_DYNAMODB_REGION="eu-west-1")
flask_session.Session(app)
print(app.session_interface.table_name)
"""


def test_no_stubs_no_socket_and_no_boto3_before_it_is_needed(run_python, python):
    assert run_python(python, NO_STUBS) == "sessions\n"


# ---- processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["resource", "client", "ours"])
def test_a_fork_does_not_share_connections(url, client, forked, kind):
    """What the parent has open, it alone goes on with."""
    if kind == "ours":
        make_table(client, "fork-sessions", "SessionId")
        made = interface(
            SESSION_DYNAMODB=boto3.Session("x", "y", region_name="us-east-1"),
            SESSION_DYNAMODB_ENDPOINT=url,
            SESSION_DYNAMODB_TABLE="fork-sessions",
            SESSION_STORE_TIMEOUT=10,
        )
    else:
        made = DynamoDBSessionInterface(client=connect(url, 10, kind), key_prefix=new_prefix())
    store = made._store
    store.create("k", b"one", HOUR)
    parent = made.client

    def child(pipe):
        seen = [store.load("k")[0] for _ in range(5)]
        pipe.send((made.client is parent, made.client is made.client, seen))
        pipe.recv()
        pipe.send(connections(url))

    ours = forked(child)
    assert ours.recv() == (kind != "ours", True, [b"one"] * 5)
    assert [store.load("k")[0] for _ in range(5)] == [b"one"] * 5
    ours.send(None)
    mine, other = connections(url), ours.recv()
    assert mine
    assert other - mine
    assert store.load("k")[0] == b"one"
    store.remove("k")


def connections(url):
    """Our own ends of this process's connections to the server."""
    inodes = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            inodes.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    port, ends = f":{urlsplit(url).port:04X}", set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2].endswith(port) and f"socket:[{fields[9]}]" in inodes:
                ends.add(fields[1])
    return ends
