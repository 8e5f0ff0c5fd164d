"""Reading and checking the configuration.

Every value is checked once, when the interface is made, and fixed from then
on. An error names the key and says what is accepted; it never shows a URL or a
client, which may carry a password.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from ._core import SessionConfigError
from .defaults import Defaults

if TYPE_CHECKING:
    from flask import Flask
    from flask.sessions import SessionInterface

_SQLALCHEMY = ("table", "sequence", "schema", "bind_key", "create")

#: SESSION_TYPE -> (module, class) of the stores of this version.
BACKENDS = {
    "cachelib": ("cachelib", "CacheLibSessionInterface"),
    "datastore": ("datastore", "GoogleCloudDatastoreSessionInterface"),
    "dynamodb": ("dynamodb", "DynamoDBSessionInterface"),
    "elasticsearch": ("elasticsearch", "ElasticsearchSessionInterface"),
    "filesystem": ("filesystem", "FileSystemSessionInterface"),
    "firestore": ("firestore", "GoogleFireStoreSessionInterface"),
    "memcached": ("memcached", "MemcachedSessionInterface"),
    "memory": ("memory", "MemorySessionInterface"),
    "peewee": ("peewee", "PeeweeSessionInterface"),
    "postgresql": ("postgresql", "PostgreSqlSessionInterface"),
    "mongodb": ("mongodb", "MongoDBSessionInterface"),
    "redis": ("redis", "RedisSessionInterface"),
    "sqlalchemy": ("sqlalchemy", "SqlAlchemySessionInterface"),
    "sqlite": ("sqlite", "SqliteSessionInterface"),
}
#: SESSION_TYPE -> what its class takes beside the common arguments: argument -> configuration
#: key. The first is the place, which SESSION_URL may give instead.
ARGUMENTS = {
    "cachelib": {"client": "SESSION_CACHELIB"},
    "datastore": {"client": "SESSION_DATASTORE", "project": "GCLOUD_APP_PROJECT_ID"},
    "dynamodb": {
        "client": "SESSION_DYNAMODB",
        "table_name": "SESSION_DYNAMODB_TABLE",
        "table_exists": "SESSION_DYNAMODB_TABLE_EXISTS",
        "endpoint_url": "SESSION_DYNAMODB_ENDPOINT",
        "aws_access_key_id": "SESSION_DYNAMODB_KEY_ID",
        "aws_secret_access_key": "SESSION_DYNAMODB_SECRET",
        "region": "SESSION_DYNAMODB_REGION",
    },
    "elasticsearch": {
        "client": "SESSION_ELASTICSEARCH",
        "host": "SESSION_ELASTICSEARCH_HOST",
        "index": "SESSION_ELASTICSEARCH_INDEX",
    },
    "filesystem": {
        "cache_dir": "SESSION_FILE_DIR",
        "threshold": "SESSION_FILE_THRESHOLD",
        "mode": "SESSION_FILE_MODE",
    },
    "firestore": {"client": "SESSION_FIRESTORE", "collection": "SESSION_FIRESTORE_COLLECT"},
    "memcached": {"client": "SESSION_MEMCACHED"},
    "memory": {"client": "SESSION_MEMORY"},
    "peewee": {
        "client": "SESSION_DB",
        "db_type": "SESSION_DB_CLASS",
        "db_config": "SESSION_PEEWEE_CONFIG",
        "table": "SESSION_PEEWEE_TABLE",
    },
    "postgresql": {
        "pool": "SESSION_POSTGRESQL",
        "table": "SESSION_POSTGRESQL_TABLE",
        "schema": "SESSION_POSTGRESQL_SCHEMA",
    },
    "mongodb": {
        "client": "SESSION_MONGODB",
        "db": "SESSION_MONGODB_DB",
        "collection": "SESSION_MONGODB_COLLECT",
        "tz_aware": "SESSION_MONGODB_TZ_AWARE",
    },
    "redis": {"client": "SESSION_REDIS"},
    "sqlalchemy": {
        "client": "SESSION_SQLALCHEMY",
        **{name: f"SESSION_SQLALCHEMY_{name.upper()}" for name in _SQLALCHEMY},
    },
    "sqlite": {"path": "SESSION_SQLITE", "synchronous": "SESSION_SQLITE_SYNCHRONOUS"},
}
TYPES = ", ".join([*sorted(BACKENDS), "null", "custom"])
#: URL scheme -> SESSION_TYPE.
SCHEMES = {
    **dict.fromkeys(
        ("elasticsearch+http", "elasticsearch+https", "opensearch+http", "opensearch+https"),
        "elasticsearch",
    ),
    "filesystem": "filesystem",
    "memcached": "memcached",
    "memory": "memory",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mongodb": "mongodb",
    "mongodb+srv": "mongodb",
    "redis": "redis",
    "rediss": "redis",
    "sqlite": "sqlite",
    **dict.fromkeys(
        ("postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql", "mariadb+pymysql"),
        "sqlalchemy",
    ),
    **dict.fromkeys(("unix", "redis+unix", "valkey", "valkeys"), "redis"),
    **dict.fromkeys(
        ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"), "redis"
    ),
}

_DYNAMODB_TABLE = r"[A-Za-z0-9_.-]{3,255}|arn:[!-~]{1,1020}"
_PREFIX_MAX = 700  # bytes; with the longest id and its store's own needs below 1,024


def refuse(key: str, accepted: str, value: object) -> NoReturn:
    """Raise SessionConfigError: key must be `accepted`. The value is shown if it is harmless."""
    harmless = value is None or isinstance(value, bool | int | float | timedelta)
    shown = f"{value!r:.60}" if harmless else f"a value of type {type(value).__name__}"
    raise SessionConfigError(f"{key} must be {accepted}, not {shown}")


def _flag(key: str, value: Any) -> bool:
    if isinstance(value, bool) or (type(value) is int and value in (0, 1)):
        return bool(value)
    refuse(key, "True or False", value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        refuse(key, "a string", value)
    return value


def _name(key: str, value: Any) -> str:
    if not _text(key, value):
        refuse(key, "a name", value)
    return str(value)


def _optional_name(key: str, value: Any) -> str | None:
    return None if value is None else _name(key, value)


def _prefix(key: str, value: Any) -> str:
    if len(_text(key, value).encode(errors="surrogatepass")) > _PREFIX_MAX:
        refuse(key, f"a string of at most {_PREFIX_MAX} bytes", value)
    return str(value)


def _seconds(key: str, value: Any, *, zero: bool) -> float:
    accepted = f"a number of seconds or a timedelta, {'not negative' if zero else 'above zero'}"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        refuse(key, accepted, value)
    if not (math.isfinite(seconds) and (seconds > 0 or (zero and seconds == 0))):
        refuse(key, accepted, value)
    return float(seconds)


def _interval(key: str, value: Any) -> float | None:
    return None if value is None else _seconds(key, value, zero=True)


def _timeout(key: str, value: Any) -> float:
    return _seconds(key, value, zero=False)


def _id_length(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 16 <= value <= 192:
        refuse(key, "a whole number of bytes from 16 to 192", value)
    return value


def _requests(key: str, value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value or None
    refuse(key, "None or a whole number of requests", value)


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def check(key: str, value: Any) -> str:
        text = str(value).lower() if isinstance(value, str | int) else ""
        if text not in choices:
            accepted = " or ".join(f'"{choice}"' for choice in choices)
            raise SessionConfigError(f"{key} must be {accepted}, not {value!r:.60}")
        return text

    return check


def _url(key: str, value: Any) -> str | None:
    if value is None:
        return None
    if ":" not in _text(key, value) or value.partition(":")[0].lower() not in SCHEMES:
        schemes = ", ".join(f"{scheme}:" for scheme in SCHEMES)
        raise SessionConfigError(f"{key} must be a URL that begins with one of {schemes}")
    return str(value)


def _other_store(key: str, value: Any) -> Any:
    if value is None or (isinstance(value, str | Mapping) and value):
        return value.lower() if isinstance(value, str) and value.isalnum() else value
    refuse(key, "a SESSION_TYPE, a URL or a dict of configuration keys", value)


def check_url(key: str, value: str) -> str:
    """The URL; SessionConfigError, which does not show it, when it is of no known type."""
    return str(_url(key, value))


def _place(key: str, value: Any, what: str) -> str:
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        refuse(key, f"the path of a {what}", value)
    path: str = os.fspath(value)
    if path in ("", ":memory:") or "\0" in path:
        raise SessionConfigError(
            f'{key} must be the path of a {what}; sessions in memory are SESSION_TYPE = "memory"'
        )
    return path


def _path(key: str, value: Any) -> str:
    return _place(key, value, "file")


def _folder(key: str, value: Any) -> str:
    return _place(key, value, "directory")


def _threshold(key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 1_000_000_000:
        refuse(key, "a number of files, 0 (no limit) to 1,000,000,000", value)
    return value


def _mode(key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 0o777 or value & 0o600 != 0o600:
        refuse(key, "the mode of a file that its owner can read and write, such as 0o600", value)
    return value


def _identifier(key: str, value: Any) -> str:
    # PostgreSQL cuts longer names short.
    if not isinstance(value, str) or not 1 <= len(value.encode(errors="replace")) <= 63:
        refuse(key, "a name of 1 to 63 bytes", value)
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        refuse(key, "a name without NUL", value)
    return value


def _optional_flag(key: str, value: Any) -> bool | None:
    return None if value is None else _flag(key, value)


def _table_of_dynamodb(key: str, value: Any) -> str | None:
    accepted = "3 to 255 letters, digits and _ . -, or the ARN of a table"
    if value is not None and not re.fullmatch(_DYNAMODB_TABLE, _text(key, value)):
        refuse(key, accepted, value)
    return None if value is None else str(value)


def _region(key: str, value: Any) -> str | None:
    if value is not None and not re.fullmatch("[A-Za-z0-9-]{1,63}", _text(key, value)):
        refuse(key, "the name of a region, such as eu-west-1", value)
    return None if value is None else str(value)


def _endpoint(key: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(_text(key, value))
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.username is not None:
        refuse(key, "a URL that begins with http:// or https://, without a password", value)
    return str(value)


def _hosts(key: str, value: Any) -> str | list[str]:
    hosts = [value] if isinstance(value, str) else value
    if not (isinstance(hosts, list | tuple) and hosts and all(isinstance(h, str) for h in hosts)):
        refuse(key, "a URL or a list of URLs", value)
    return value if isinstance(value, str) else list(hosts)


def _index(key: str, value: Any) -> str:
    # The rules of Elasticsearch. A pattern or a list would name several.
    if not re.fullmatch(r"(?![-_+])(?!\.{1,2}$)[^A-Z\s\\/*?\"<>|,#:\0]+", _text(key, value)):
        refuse(key, "the name of one index, in lower case", value)
    return str(value)


def _anything(key: str, value: Any) -> Any:
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "SESSION_URL": _url,
    "SESSION_KEY_PREFIX": _prefix,
    "SESSION_USE_SIGNER": _flag,
    "SESSION_PERMANENT": _flag,
    "SESSION_ID_LENGTH": _id_length,
    "SESSION_SERIALIZATION_FORMAT": _choice("msgpack", "json"),
    "SESSION_CLEANUP_N_REQUESTS": _requests,
    "SESSION_AUTODELETE": _flag,
    "SESSION_TOUCH_INTERVAL": _interval,
    "SESSION_CONFLICT": _choice("merge", "raise"),
    "SESSION_ON_STORE_ERROR": _choice("raise", "empty", "503"),
    "SESSION_STRICT_TYPES": _flag,
    "SESSION_STORE_TIMEOUT": _timeout,
    "SESSION_NATIVE": _flag,
    "SESSION_MIGRATE_FROM": _other_store,
    "SESSION_MIGRATE_TO": _other_store,
    "SESSION_SQLITE": _path,
    "SESSION_SQLITE_SYNCHRONOUS": _choice("normal", "full"),
    "SESSION_FILE_DIR": _folder,
    "SESSION_FILE_THRESHOLD": _threshold,
    "SESSION_FILE_MODE": _mode,
    "SESSION_REDIS": _anything,  # these are checked where they are used
    "SESSION_CACHELIB": _anything,
    "SESSION_MEMCACHED": _anything,
    "SESSION_POSTGRESQL": _anything,
    "SESSION_POSTGRESQL_TABLE": _identifier,
    "SESSION_DYNAMODB": _anything,
    "SESSION_DYNAMODB_TABLE": _table_of_dynamodb,
    "SESSION_DYNAMODB_TABLE_EXISTS": _optional_flag,
    "SESSION_DYNAMODB_KEY_ID": _optional_name,
    "SESSION_DYNAMODB_SECRET": _optional_name,
    "SESSION_DYNAMODB_ENDPOINT": _endpoint,
    "SESSION_DYNAMODB_REGION": _region,
    "SESSION_DB": _anything,
    "SESSION_DB_CLASS": _anything,
    "SESSION_PEEWEE_CONFIG": _anything,
    "SESSION_PEEWEE_TABLE": _identifier,
    "SESSION_POSTGRESQL_SCHEMA": _identifier,
    "SESSION_MONGODB": _anything,
    "SESSION_MONGODB_DB": _text,
    "SESSION_MONGODB_COLLECT": _text,
    "SESSION_MONGODB_TZ_AWARE": _flag,
    "SESSION_ELASTICSEARCH": _anything,
    "SESSION_ELASTICSEARCH_HOST": _hosts,
    "SESSION_ELASTICSEARCH_INDEX": _index,
    "SESSION_DATASTORE": _anything,
    "GCLOUD_APP_PROJECT_ID": _name,
    "SESSION_FIRESTORE": _anything,
    "SESSION_FIRESTORE_COLLECT": _text,
    "SESSION_SQLALCHEMY": _anything,
    "SESSION_SQLALCHEMY_TABLE": _name,
    "SESSION_SQLALCHEMY_SEQUENCE": _optional_name,
    "SESSION_SQLALCHEMY_SCHEMA": _optional_name,
    "SESSION_SQLALCHEMY_BIND_KEY": _optional_name,
    "SESSION_SQLALCHEMY_CREATE": _choice("auto", "never"),
}


def check(key: str, value: Any) -> Any:
    """The value of key in its own type; SessionConfigError when it is not accepted."""
    return _CHECKS[key](key, value)


def value(settings: Mapping[str, Any], key: str) -> Any:
    """The checked value of key in the settings, or the default."""
    return check(key, settings.get(key, getattr(Defaults, key)))


def read(app: Flask | None, key: str) -> Any:
    """The checked value of key in the application's configuration, or the default."""
    return value({} if app is None else app.config, key)


def moves(app: Flask) -> bool:
    """Whether sessions move to another store, or from one."""
    keys = ("SESSION_MIGRATE_FROM", "SESSION_MIGRATE_TO")
    return any(app.config.get(key) is not None for key in keys)


def check_lifetime(app: Flask) -> None:
    """Refuse a PERMANENT_SESSION_LIFETIME that is no time or not above zero."""
    key, accepted = "PERMANENT_SESSION_LIFETIME", "a timedelta or seconds, above zero"
    try:
        lifetime = app.permanent_session_lifetime
    except (TypeError, OverflowError):
        refuse(key, accepted, app.config[key])
    if not isinstance(lifetime, timedelta) or lifetime <= timedelta(0):
        refuse(key, accepted, app.config[key])


def check_cookie(app: Flask, interface: SessionInterface) -> None:
    """Refuse a cookie that browsers would not keep: the rules of the prefixes __Secure- and
    __Host-. Getters of the application's own that need a request are left alone."""
    try:
        name = interface.get_cookie_name(app).lower()
        # werkzeug makes a partitioned cookie secure
        partitioned = getattr(interface, "get_cookie_partitioned", lambda app: False)(app)
        secure = interface.get_cookie_secure(app) or partitioned
        path, domain = interface.get_cookie_path(app), interface.get_cookie_domain(app)
    except RuntimeError:
        return
    wrong = []
    if name.startswith(("__secure-", "__host-")) and not secure:
        wrong.append("SESSION_COOKIE_SECURE must be True")
    if name.startswith("__host-") and path != "/":
        wrong.append('SESSION_COOKIE_PATH must be "/"')
    if name.startswith("__host-") and domain:
        wrong.append("SESSION_COOKIE_DOMAIN must not be set")
    if wrong:
        raise SessionConfigError(
            "browsers refuse the cookie that SESSION_COOKIE_NAME names, because of its prefix: "
            + " and ".join(wrong)
        )


def session_type(app: Flask) -> str:
    """The type that SESSION_TYPE or SESSION_URL asks for, in lower case.

    Unset without a SECRET_KEY is "null": the application does not use sessions.
    With one it means to, and forgot to say where: SessionConfigError.
    """
    name = app.config.get("SESSION_TYPE")
    url: str | None = read(app, "SESSION_URL")
    if name is None and url is None:
        if app.secret_key:
            raise SessionConfigError(f"SESSION_TYPE is not set; it must be one of {TYPES}")
        return "null"
    return kind_of(name, url)


def type_of_url(url: str) -> str:
    """The type of a URL that was checked."""
    return SCHEMES[url.partition(":")[0].lower()]


def kind_of(name: Any, url: str | None, key: str = "SESSION_TYPE") -> str:
    """The type that a name, a URL or both ask for; key: where the name stands."""
    if name is None and url is not None:
        return type_of_url(url)
    kind = _text(key, name).lower()
    if kind not in BACKENDS and kind not in ("null", "custom"):
        raise SessionConfigError(f"{key} {name!r:.60} is unknown; it must be one of {TYPES}")
    if url is not None and type_of_url(url) != kind:
        raise SessionConfigError(f"{key} is {kind!r}, but SESSION_URL names another type")
    return kind
