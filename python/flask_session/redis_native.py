"""When Redis is spoken to by the C driver: for a URL or nothing, and in the place of a plain client
object of redis-py or valkey-py whose every parameter is understood.

Whoever patches, instruments or derives from a client means it to be used, so what is not certain
stays with the client. Where sockets are patched (gevent, eventlet) the driver would stop all
greenlets while it waits for the server: the client, whose sockets are patched, serves there.
"""

from __future__ import annotations

import _socket
import importlib
import inspect
import os
import socket
import sys
from collections.abc import Callable
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any

from . import _core, config

if TYPE_CHECKING:
    from flask import Flask

#: Options of the driver, and whether they still hold.
Promoted = tuple[dict[str, str], Callable[[], bool]]

_NOT_BUILT = (
    "SESSION_NATIVE is True, but this installation was built without the Redis driver, which needs"
    " hiredis: install libhiredis-dev (hiredis-devel, hiredis) and then"
    " pip install --force-reinstall --no-binary cession cession"
)
_CONNECTIONS_MAX = 64
_CHECK_SECONDS = 1.0

# Methods that the adapter and the client itself rely on: class -> names.
_METHODS = {
    "client": ("execute_command", "eval", "evalsha", "set", "delete", "scan", "parse_response"),
    "pool": ("get_connection", "make_connection", "release"),
    "connection": ("connect", "on_connect", "send_command", "send_packed_command", "read_response"),
}
# What makes no difference to what a session is.
_IGNORED = {
    *("encoding_errors", "socket_read_size", "retry_on_timeout", "retry_on_error", "retry"),
    *("health_check_interval", "lib_name", "lib_version", "driver_info", "legacy_responses"),
    *("socket_keepalive", "socket_keepalive_options", "event_dispatcher", "himport_registry"),
    *("maint_notifications_pool_handler", "maint_notifications_config", "maintenance_state"),
    *("maintenance_notification_hash", "oss_cluster_maint_notifications_handler"),
    *("cache_max_size", "cache_ttl", "cache_policy", "cache_deny_list", "cache_allow_list"),
    *("orig_host_address", "orig_socket_timeout", "orig_socket_connect_timeout"),
}
# What must be as it is by default: anything else changes what is sent, or to whom.
_STOCK = {
    **dict.fromkeys(("redis_connect_func", "valkey_connect_func", "credential_provider")),
    **dict.fromkeys(("command_packer", "client_cache")),
    **dict.fromkeys(("ssl_ca_data", "ssl_ocsp_context", "ssl_ocsp_expected_cert")),
    **dict.fromkeys(("ssl_min_version", "ssl_ciphers")),
    **dict.fromkeys(("ssl_include_verify_flags", "ssl_exclude_verify_flags")),
    "decode_responses": False,
    "encoding": "utf-8",
    "socket_type": 0,
    "cache_enabled": False,
    "ssl_validate_ocsp": False,
    "ssl_validate_ocsp_stapled": False,
}
_TEXTS = {
    **{name: name for name in ("username", "password", "client_name", "host", "path")},
    **{name: name for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")},
    "ssl_password": "ssl_password",
}


def plain_sockets() -> bool:
    """Whether the sockets of this process are Python's own, and lead where they are told to."""
    kind = socket.socket
    return (
        kind.__module__ == "socket"
        and kind.connect is _socket.socket.connect
        and socket.getaddrinfo.__module__ == "socket"
    )


def wanted(app: Flask | None) -> bool:
    """Whether the driver may serve an application. SessionConfigError where SESSION_NATIVE = True
    is set and the driver was not built."""
    if not config.read(app, "SESSION_NATIVE"):
        return False
    if not _core.HAS_REDIS and app is not None and "SESSION_NATIVE" in app.config:
        raise _core.SessionConfigError(_NOT_BUILT)
    return bool(_core.HAS_REDIS) and plain_sockets()


class _Unknown(Exception):
    """Something about a client is not understood."""


def _require(condition: Any) -> None:
    if not condition:
        raise _Unknown


def _module(client: Any) -> tuple[Any, Any]:
    """(library, its module of connections) where the client is exactly the library's class."""
    name = type(client).__module__.partition(".")[0]
    _require(name in ("redis", "valkey"))
    library = sys.modules[name]
    _require(type(client) is getattr(library, name.capitalize(), None))
    return library, importlib.import_module(f"{name}.connection")


def _own_functions(library: Any, classes: dict[str, Any]) -> list[tuple[Any, str, Any]]:
    """The methods that matter, all of them the library's own."""
    folder = os.path.dirname(os.path.realpath(library.__file__)) + os.sep
    found = []
    for kind, names in _METHODS.items():
        for name in names:
            function = getattr(classes[kind], name)
            _require(type(function) is FunctionType)
            _require(os.path.realpath(function.__code__.co_filename).startswith(folder))
            found.append((classes[kind], name, function))
    return found


def _number(value: Any) -> str:
    _require(type(value) in (int, float))
    return f"{value:.3f}" if type(value) is float else str(value)


def _text(value: Any) -> str:
    _require(type(value) is str and value and "\0" not in value)
    return str(value)


def _tls(parameters: dict[str, Any]) -> dict[str, str]:
    requirement = parameters.pop("ssl_cert_reqs")
    name = getattr(requirement, "name", requirement)  # ssl.VerifyMode or a text
    options = {"tls": "true"}
    if name in ("none", "CERT_NONE", None):
        options["ssl_cert_reqs"] = "none"
    else:
        _require(name in ("required", "CERT_REQUIRED"))
    check = parameters.pop("ssl_check_hostname")
    _require(type(check) is bool)
    options["ssl_check_hostname"] = "true" if check else "false"
    return options


def _options(pool: Any, connections: Any) -> dict[str, str]:
    """The parameters of a pool's connections as options of the driver."""
    kind = pool.connection_class
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }
    parameters = {**defaults, **pool.connection_kwargs}
    options = {"max_connections": str(min(pool.max_connections, _CONNECTIONS_MAX))}
    if kind is not connections.UnixDomainSocketConnection:
        parameters.setdefault("host", "localhost")
    if kind is connections.SSLConnection:
        options |= _tls(parameters)
    for name, value in parameters.items():
        if name in _IGNORED or name == "parser_class":
            continue
        if name in _STOCK:
            _require(value == _STOCK[name])
        elif value is None:
            continue
        elif name in _TEXTS:
            options[_TEXTS[name]] = _text(value)
        elif name in ("socket_timeout", "socket_connect_timeout"):
            options[name] = _number(value)
        elif name in ("port", "db"):
            _require(type(value) is int)
            options[name] = str(value)
        else:
            _require(name == "protocol" and value in (2, 3, "2", "3"))
            options[name] = str(value)
    retry = parameters.get("retry")
    _require(retry is None or type(retry).__module__ in ("redis.retry", "valkey.retry"))
    if "password" not in options:
        _require("username" not in options)
    return options


def promoted(client: Any) -> Promoted | None:
    """What a client that the driver can stand for is as options; None for every other."""
    try:
        library, connections = _module(client)
        pool = client.connection_pool
        kinds = (
            connections.Connection,
            connections.SSLConnection,
            connections.UnixDomainSocketConnection,
        )
        _require(type(pool) is connections.ConnectionPool and pool.connection_class in kinds)
        _require(getattr(client, "connection", None) is None and not getattr(pool, "cache", None))
        parser = pool.connection_kwargs.get("parser_class", connections.DefaultParser)
        _require(parser.__module__.partition(".")[0] == library.__name__)
        options = _options(pool, connections)
        classes = {"client": type(client), "pool": type(pool), "connection": pool.connection_class}
        functions = _own_functions(library, classes)
    except (_Unknown, AttributeError, KeyError, TypeError, ValueError, ImportError):
        return None
    own, pool_own = vars(client), vars(pool)
    for names, attributes in ((_METHODS["client"], own), (_METHODS["pool"], pool_own)):
        if not attributes.keys().isdisjoint(names):
            return None
    counts, kind = (len(own), len(pool_own)), pool.connection_class
    parameters = dict(pool.connection_kwargs)
    cls, pool_cls = type(client), type(pool)
    execute, evalsha = cls.execute_command, cls.evalsha
    checked = 0.0

    def holds_closely() -> bool:
        return (
            (len(own), len(pool_own)) == counts
            and pool.connection_class is kind
            and pool.connection_kwargs == parameters
            and all(getattr(cls, name) is function for cls, name, function in functions)
        )

    def holds() -> bool:
        # At every operation what is likely, everything once a second: it takes microseconds.
        nonlocal checked
        now = monotonic()
        if now - checked > _CHECK_SECONDS:
            if not holds_closely():
                return False
            checked = now
        return (
            plain_sockets()
            and client.connection_pool is pool
            and cls.execute_command is execute
            and cls.evalsha is evalsha
            and type(pool) is pool_cls
            and len(own) == counts[0]
        )

    return (options, holds) if holds() else None
