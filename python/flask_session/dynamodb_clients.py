"""The objects of boto3 that reach DynamoDB: telling them apart, judging and making them."""

from __future__ import annotations

import copy
import ipaddress
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import _core, clients, config

ACCEPTED = (
    'a boto3 resource or client of DynamoDB (boto3.resource("dynamodb")), a boto3.Session, or a'
    " function without arguments that returns one of them"
)
#: Arguments that make a client, in Flask-Session2's order, and their configuration keys.
KEYS = (
    ("endpoint_url", "SESSION_DYNAMODB_ENDPOINT"),
    ("aws_access_key_id", "SESSION_DYNAMODB_KEY_ID"),
    ("aws_secret_access_key", "SESSION_DYNAMODB_SECRET"),
    ("region", "SESSION_DYNAMODB_REGION"),
)
_METHODS = ("get_item", "put_item", "update_item", "delete_item", "scan")
# By these names a resource hangs its translation of values on the client under it.
_TRANSLATION = (
    ("provide-client-params.dynamodb", "dynamodb-create-params-copy"),
    ("before-parameter-build.dynamodb", "dynamodb-condition-expression"),
    ("before-parameter-build.dynamodb", "dynamodb-attr-value-input"),
    ("after-call.dynamodb", "dynamodb-attr-value-output"),
)
_CONNECTIONS_MAX = 50
# botocore's attempts for DynamoDB where nothing else is said.
_TRIES = {"legacy": 10, "standard": 4, "adaptive": 4}


def is_session(client: Any) -> bool:
    """Whether this is a boto3.Session."""
    return isinstance(client, clients.require("boto3", "dynamodb").Session)


def _under(client: Any) -> Any:
    """The client under a resource; a client is that itself."""
    meta = getattr(client, "meta", None)
    return getattr(meta, "client", client) if hasattr(client, "Table") else client


def public(
    client: Any, settings: dict[str, str | None], timeout: float, kind: str
) -> clients.PerProcess[Any]:
    """The client or resource of each process: the one that is given, or one that is made by a
    given boto3.Session or by our own, a `kind`: "client" or "resource". No connection is made."""
    if client is None:
        return _own(lambda: _own_session(settings), settings["endpoint_url"], timeout, kind)
    beside = [key for name, key in KEYS if settings[name] is not None]
    if is_session(client):
        ignored = [key for key in beside if key != "SESSION_DYNAMODB_ENDPOINT"]
        if ignored:
            warnings.warn(
                f"SESSION_DYNAMODB is a boto3.Session, so {' and '.join(ignored)} are not used",
                UserWarning,
                stacklevel=2,
            )
        return _own(lambda: client, settings["endpoint_url"], timeout, kind)
    _check(client)
    if beside:
        raise _core.SessionConfigError(
            f"{' and '.join(beside)} cannot be set beside SESSION_DYNAMODB, which has that already"
        )

    def inherited() -> Any:
        # Of two processes that read from one connection each would get the other's answers.
        _under(client).close()
        return client

    return clients.PerProcess(inherited, client)


def _own_session(settings: dict[str, str | None]) -> Any:
    """A boto3.Session. Without credentials it looks for them when it makes its first client."""
    key_id, secret = settings["aws_access_key_id"], settings["aws_secret_access_key"]
    if (key_id is None) != (secret is None):
        raise _core.SessionConfigError(
            "SESSION_DYNAMODB_KEY_ID and SESSION_DYNAMODB_SECRET must be set together"
        )
    return clients.require("boto3", "dynamodb").Session(
        aws_access_key_id=key_id, aws_secret_access_key=secret, region_name=settings["region"]
    )


def _own(
    session: Callable[[], Any], endpoint_url: str | None, timeout: float, kind: str
) -> clients.PerProcess[Any]:
    if session().region_name is None:
        raise _core.SessionConfigError(
            "DynamoDB has no region: set SESSION_DYNAMODB_REGION, or AWS_DEFAULT_REGION in the"
            " environment"
        )
    options = clients.require("botocore.config", "dynamodb").Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_CONNECTIONS_MAX,
    )

    def make() -> Any:
        return getattr(session(), kind)("dynamodb", endpoint_url=endpoint_url, config=options)

    return clients.PerProcess(make)


def _check(client: Any) -> None:
    """Refuse what cannot be used."""
    under = _under(client)
    clients.check_methods("SESSION_DYNAMODB", ACCEPTED, under, *_METHODS)
    model = getattr(getattr(under, "meta", None), "service_model", None)
    if model is None or model.service_name != "dynamodb":
        config.refuse("SESSION_DYNAMODB", ACCEPTED, client)
    options = under.meta.config
    waits = (options.connect_timeout, options.read_timeout)
    retries = options.retries or {}
    tries = retries.get("total_max_attempts") or _TRIES.get(retries.get("mode", "legacy"))
    clients.warn_if_slow(
        "SESSION_DYNAMODB",
        None if None in waits else max(waits),
        tries,
        "set connect_timeout, read_timeout and retries in its botocore.config.Config",
    )


def low_level(client: Any) -> Any:
    """The client under a resource, with its connections and credentials, without its translation
    of values. That belongs to one thread: it keeps what it knows of an application's condition
    in a place that each request begins anew."""
    under = _under(client)
    emitter = getattr(under.meta.events, "_emitter", None)
    hooked = getattr(emitter, "_unique_id_handlers", {})  # also a client that is a resource's
    if under is client and not any(name in hooked for _, name in _TRANSLATION):
        return client
    twin = object.__new__(type(under))
    twin.__dict__.update(under.__dict__)
    twin.meta = copy.copy(under.meta)
    twin.meta.events = copy.copy(under.meta.events)
    for event, name in _TRANSLATION:
        twin.meta.events.unregister(event, unique_id=name)
    return twin


def is_local(endpoint_url: str) -> bool:
    """Whether this is an emulator: a server on this machine, or one by a name without a dot, as
    containers have it."""
    host = urlsplit(endpoint_url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
