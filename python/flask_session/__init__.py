"""Server-side sessions for Flask."""

from typing import TYPE_CHECKING, Any

from . import sessions
from ._core import SessionConfigError, SessionConflict, SessionStoreError
from .base import ServerSideSession, ServerSideSessionInterface
from .defaults import Defaults
from .extension import Extension, Session
from .signals import (
    session_conflict,
    session_created,
    session_loaded,
    session_lost,
    session_made_private,
    session_regenerated,
    session_rejected,
    session_removed,
    session_saved,
    session_store_error,
    session_touched,
)

if TYPE_CHECKING:
    from .sessions import (
        DynamoDBSessionInterface,
        ElasticsearchSessionInterface,
        FileSystemSessionInterface,
        GoogleCloudDatastoreSessionInterface,
        GoogleFireStoreSessionInterface,
        MemcachedSessionInterface,
        MongoDBSessionInterface,
        NullSessionInterface,
        PeeweeSessionInterface,
        RedisSessionInterface,
        SqlAlchemySessionInterface,
    )

__version__ = "0.1.0"

__all__ = [
    "Defaults",
    "DynamoDBSessionInterface",
    "ElasticsearchSessionInterface",
    "Extension",
    "FileSystemSessionInterface",
    "GoogleCloudDatastoreSessionInterface",
    "GoogleFireStoreSessionInterface",
    "MemcachedSessionInterface",
    "MongoDBSessionInterface",
    "NullSessionInterface",
    "PeeweeSessionInterface",
    "RedisSessionInterface",
    "ServerSideSession",
    "ServerSideSessionInterface",
    "Session",
    "SessionConfigError",
    "SessionConflict",
    "SessionStoreError",
    "SqlAlchemySessionInterface",
    "__version__",
    "session_conflict",
    "session_created",
    "session_loaded",
    "session_lost",
    "session_made_private",
    "session_regenerated",
    "session_rejected",
    "session_removed",
    "session_saved",
    "session_store_error",
    "session_touched",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(sessions, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
