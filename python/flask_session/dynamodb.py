"""Sessions in DynamoDB, through boto3 objects of the application's or ours."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, overload

from . import _core, clients, config
from . import dynamodb_clients as boto
from .base import ServerSideSession, ServerSideSessionInterface
from .legacy import COMMON, ORDER, bind, in_flask_session2_order

if TYPE_CHECKING:
    from flask import Flask

    from .contract import Stored

_TABLE, _FORMAT = "SESSION_DYNAMODB_TABLE", "SESSION_SERIALIZATION_FORMAT"
_EXPIRATION = "expiration"
_ITEM_MAX = 400 * 1024
_NUMBER_MAX = 21  # bytes of a number
_LAST_MS = 2**62
_LIMIT = (
    "an item of DynamoDB can have 409,600 bytes (400 KB), its key and the names of its attributes"
    " included"
)
# What is said of credentials. The text of such an answer may repeat the headers of the request,
# and with them the token of temporary credentials.
_REFUSED = {
    *("AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException"),
    *("InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationTokenException"),
    *("SignatureDoesNotMatch", "UnrecognizedClientException"),
}
_logger = logging.getLogger("flask_session")


class Layout(NamedTuple):
    """The names in a table. json: a session that is JSON is stored as text."""

    key: str
    value: str
    json: bool


FLASK_SESSION = Layout("id", "val", json=False)
FLASK_SESSION2 = Layout("SessionId", "Session", json=True)


def _answer(error: Exception) -> dict[str, Any]:
    """The answer that botocore made this error of; {} for any other error."""
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}


def _code(error: Exception) -> str:
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _raise_clear(error: Exception) -> NoReturn:
    """Raise the error, or one that says more, or less."""
    code, answer = _code(error), _answer(error)
    if code in _REFUSED or answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 403:
        raise PermissionError(
            f"DynamoDB refuses the credentials, or what is asked for with them ({code})"
        ) from None
    if "item size" in str(answer.get("Error", {}).get("Message", "")).lower():
        raise _core.SessionStoreError(f"the session is too large: {_LIMIT}") from None
    raise error


def _now() -> dict[str, str]:
    now = clients.now_ms()
    return {"N": f"{now // 1000}.{now % 1000:03}"}


def _end(ttl_ms: int) -> dict[str, str]:
    # Whole seconds, as the server's own expiry demands; never earlier than asked for.
    return {"N": str(-(-(clients.now_ms() + ttl_ms) // 1000))}


class DynamoDBStore:
    """The adapter (see contract.py): a value is an item of its key, the session and the end, whole
    seconds since 1970 in UTC. Reads are strongly consistent.

    client: gives the low-level client of this process, which threads may share, unlike a
    resource. makes_table: a missing table is made where the endpoint is local.
    """

    name = "dynamodb"
    capabilities = (
        _core.CAP_ATOMIC | _core.CAP_GIVES_EXPIRY | _core.CAP_NATIVE_TTL | _core.CAP_LISTABLE
    )

    def __init__(
        self,
        client: Callable[[], Any],
        table: str,
        layout: Layout = FLASK_SESSION,
        key_prefix: str = "",
        makes_table: bool = False,
    ) -> None:
        self._client, self._table, self._layout = client, table, layout
        self._prefix, self._makes_table = key_prefix, makes_table

    # -- requests -------------------------------------------------------------------

    def _ask(self, operation: str, **parameters: Any) -> Any:
        parameters["TableName"] = self._table
        client = self._client()
        try:
            return getattr(client, operation)(**parameters)
        except Exception as error:
            if _code(error) != "ResourceNotFoundException":
                _raise_clear(error)
            if not self._may_make_table(client):
                raise LookupError(
                    f"DynamoDB has no table {self._table!r} in this region of this account;"
                    " docs/backends/dynamodb.md says how to make it"
                ) from error
        self._make_table(client)
        return getattr(client, operation)(**parameters)

    def _may_make_table(self, client: Any) -> bool:
        return self._makes_table and boto.is_local(client.meta.endpoint_url)

    def _make_table(self, client: Any) -> None:
        """Make the table, unless somebody has, and let the server delete what has expired."""
        name = self._layout.key
        try:
            client.create_table(
                TableName=self._table,
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": name, "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except Exception as error:
            if _code(error) != "ResourceInUseException":
                _raise_clear(error)
            return
        wait = {"Delay": 0.1, "MaxAttempts": 100}
        client.get_waiter("table_exists").wait(TableName=self._table, WaiterConfig=wait)
        expiry = {"Enabled": True, "AttributeName": _EXPIRATION}
        client.update_time_to_live(TableName=self._table, TimeToLiveSpecification=expiry)

    def make_local_table(self) -> None:
        """Make the table where that may be; a server that is not up yet gets it when it is."""
        client = self._client()
        if not self._may_make_table(client):
            return
        try:
            self._make_table(client)
        except Exception as error:
            _logger.warning(
                "the table %r could not be made (%s); it will be when it is first needed",
                *(self._table, type(error).__name__),
            )

    def _item(self, key: str) -> dict[str, Any]:
        name = {self._layout.key: {"S": key}}
        answer = self._ask("get_item", Key=name, ConsistentRead=True)
        item: dict[str, Any] = answer.get("Item", {})
        return item

    def _change(
        self, operation: str, key: str, sent: dict[str, Any], **parameters: Any
    ) -> dict[str, Any] | None:
        """A write under a condition. None: done; else the item that did not meet it, {} for none.

        sent: the attributes that it writes. A client that repeats may come upon those, when it
        was the answer to its first attempt that was lost.
        """
        try:
            self._ask(operation, ReturnValuesOnConditionCheckFailure="ALL_OLD", **parameters)
        except Exception as error:
            if _code(error) != "ConditionalCheckFailedException":
                raise
            answer = _answer(error)
            item: dict[str, Any] = answer.get("Item") or self._item(key)
            repeated = answer.get("ResponseMetadata", {}).get("RetryAttempts")
            if repeated and all(item.get(name) == value for name, value in sent.items()):
                return None
            return item
        return None

    def _update(self, key: str, expected: bytes, sent: dict[str, Any]) -> dict[str, Any] | None:
        """Set the expiration, and the session, of the live item with the expected one."""
        layout, update = self._layout, "SET #e = :end"
        values = {":old": self._attribute(expected), ":now": _now(), ":end": sent[_EXPIRATION]}
        if layout.value in sent:
            update, values[":new"] = "SET #e = :end, #v = :new", sent[layout.value]
        return self._change(
            *("update_item", key, sent),
            Key={layout.key: {"S": key}},
            UpdateExpression=update,
            ConditionExpression="#v = :old AND (attribute_not_exists(#e) OR #e > :now)",
            ExpressionAttributeNames={"#v": layout.value, "#e": _EXPIRATION},
            ExpressionAttributeValues=values,
        )

    # -- items ----------------------------------------------------------------------

    def _attribute(self, value: bytes) -> dict[str, Any]:
        if self._layout.json and value.startswith(b"{"):
            with contextlib.suppress(UnicodeDecodeError):
                return {"S": value.decode()}
        return {"B": value}

    def _sent(self, key: str, value: bytes, ttl_ms: int) -> dict[str, Any]:
        """The attributes beside the key."""
        layout = self._layout
        names = len(layout.key) + len(layout.value) + len(_EXPIRATION)
        if len(value) + len(key.encode()) + names + _NUMBER_MAX > _ITEM_MAX:
            raise _core.SessionStoreError(f"the session has {len(value):,} bytes; {_LIMIT}")
        return {layout.value: self._attribute(value), _EXPIRATION: _end(ttl_ms)}

    def _stored(self, item: dict[str, Any]) -> Stored | None:
        found, end = item.get(self._layout.value, {}), item.get(_EXPIRATION)
        value = found["S"].encode() if "S" in found else found.get("B")
        if type(value) is not bytes or self._attribute(value) != found:
            return b"", b"", None
        if end is None:  # as Flask-Session2 stores it
            return value, b"", _core.EXPIRES_NEVER
        if "N" not in end:
            return b"", b"", None
        expires = min(int(Decimal(end["N"]) * 1000), _LAST_MS)
        return (value, b"", expires) if expires > clients.now_ms() else None

    # -- the contract ---------------------------------------------------------------

    def load(self, key: str, timeout: float) -> Stored | None:
        item = self._item(key)
        return self._stored(item) if item else None

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        name, sent = self._layout.key, self._sent(key, value, ttl_ms)
        failed = self._change(
            *("put_item", key, sent),
            Item={name: {"S": key}, **sent},
            ConditionExpression="attribute_not_exists(#k) OR #e <= :now",
            ExpressionAttributeNames={"#k": name, "#e": _EXPIRATION},
            ExpressionAttributeValues={":now": _now()},
        )
        return failed is None

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        failed = self._update(key, expected, self._sent(key, value, ttl_ms))
        if failed is None:
            return _core.OK
        stored = self._stored(failed) if failed else None
        return stored if stored and stored[0] else _core.GONE

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        failed = self._update(key, expected, {_EXPIRATION: _end(ttl_ms)})
        if failed is None:
            return _core.OK
        stored = self._stored(failed) if failed else None
        return _core.CHANGED if stored and stored[0] else _core.GONE

    def remove(self, key: str, timeout: float) -> None:
        self._ask("delete_item", Key={self._layout.key: {"S": key}})

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        name, more = self._layout.key, {}
        if cursor:
            more["ExclusiveStartKey"] = {name: {"S": cursor.decode()}}
        answer = self._ask("scan", ConsistentRead=True, Limit=batch, **more)
        rows: list[tuple[str, bytes, int | None]] = []
        for item in answer.get("Items", ()):
            key, stored = item[name].get("S", ""), self._stored(item)
            if key.startswith(self._prefix) and stored and stored[0]:
                rows.append((key, stored[0], stored[2]))
        following = answer.get("LastEvaluatedKey", {}).get(name, {}).get("S", "")
        return following.encode(), rows


class DynamoDBSession(ServerSideSession):
    """A session in DynamoDB."""


class DynamoDBSessionInterface(ServerSideSessionInterface):
    """Keeps sessions in a table of DynamoDB.

    client: a boto3 resource or client of DynamoDB, a ``boto3.Session``, or a function without
    arguments that returns one; None: made here, with aws_access_key_id,
    aws_secret_access_key, region and endpoint_url or what boto3 finds in the
    environment. One that is given is used as it is, with its own timeouts and repetitions
    (UserWarning when these are long); one that is made here waits SESSION_STORE_TIMEOUT
    (2 seconds) and does not repeat. table_name: the table, by default "Sessions" with
    Flask-Session's names; where a ``boto3.Session`` or one of those arguments is given
    "sessions", with Flask-Session2's. table_exists: True makes no table, None and False make
    Flask-Session's where the endpoint is local. Nothing else is asked of the server before the
    first session is needed. Further arguments as in ServerSideSessionInterface, which raises
    SessionConfigError for what is not accepted. Flask-Session2's arguments (session, key_prefix,
    endpoint_url, table_name, aws_access_key_id, aws_secret_access_key, region, use_signer,
    permanent) are taken as well. docs/backends/dynamodb.md.
    """

    session_class = DynamoDBSession

    @overload
    def __init__(
        self,
        app: Flask | None = None,
        client: Any = None,
        key_prefix: str = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
        sid_length: int = ...,
        serialization_format: str = ...,
        table_name: str | None = ...,
        table_exists: bool | None = ...,
        *,
        endpoint_url: str | None = ...,
        aws_access_key_id: str | None = ...,
        aws_secret_access_key: str | None = ...,
        region: str | None = ...,
        cleanup_n_requests: int | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        session: Any,
        key_prefix: str,
        endpoint_url: str | None,
        table_name: str,
        aws_access_key_id: str | None = ...,
        aws_secret_access_key: str | None = ...,
        region: str | None = ...,
        use_signer: bool = ...,
        permanent: bool = ...,
    ) -> None: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        in_their_order = "session" in kwargs or in_flask_session2_order(args, ())
        if in_their_order:
            endpoint, *others = dict(boto.KEYS)
            order = ("session", "key_prefix", endpoint, "table_name", *others, *COMMON[1:])
            bind(type(self), order, args, kwargs)
            kwargs["client"] = kwargs.pop("session", None)
        else:
            bind(type(self), (*ORDER, "table_name", "table_exists"), args, kwargs)
        app, client = kwargs.get("app"), clients.given(kwargs.pop("client", None))
        settings = {name: config.check(key, kwargs.pop(name, None)) for name, key in boto.KEYS}
        theirs = in_their_order if client is None else boto.is_session(client)
        theirs = theirs or any(settings.values())
        timeout = config.read(app, "SESSION_STORE_TIMEOUT")
        self._given = client is not None
        self._public = boto.public(client, settings, timeout, "client" if theirs else "resource")
        self._low_level = clients.PerProcess(lambda: boto.low_level(self._public.get()))
        self._layout = FLASK_SESSION2 if theirs else FLASK_SESSION
        table = config.check(_TABLE, kwargs.pop("table_name", None))
        self.table_name: str = table or ("sessions" if theirs else "Sessions")
        exists = config.check(f"{_TABLE}_EXISTS", kwargs.pop("table_exists", None))
        self._makes_table = not theirs and not exists
        format_is_set = _FORMAT in app.config if app else "serialization_format" in kwargs
        if theirs and not format_is_set:
            kwargs["serialization_format"] = "json"  # as Flask-Session2 writes
        super().__init__(**kwargs)

    @property
    def client(self) -> Any:
        """The resource or client; one that was made here is another one in each process."""
        return self._public.get()

    @property
    def store(self) -> Any:
        """The Table of a resource; None where there is a client instead."""
        client = self.client
        return client.Table(self.table_name) if hasattr(client, "Table") else None

    def _open_store(self, key_prefix: str) -> _core.Store:
        store = DynamoDBStore(
            self._low_level.get, self.table_name, self._layout, key_prefix, self._makes_table
        )
        if self._given and self._makes_table:
            store.make_local_table()
        return _core.Store.wrap(store)
