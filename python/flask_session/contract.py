"""What a store in Python must do: the protocol of an adapter.

An adapter speaks to a client object with that client's own calls. It is handed
to ``_core.Store.wrap`` and is called by many threads at once.

- Keys are text (prefix and session id), values are opaque bytes.
- ``ttl_ms`` is a lifetime from now in milliseconds, above zero; a store with
  coarser time rounds it up. ``expires_at_ms`` is a point in time, Unix
  milliseconds in UTC.
- ``timeout`` is in seconds. 0.0 means "do not wait". An adapter over a client
  whose timeouts are fixed when it is made may leave it aside.
- An expired record counts as missing, swept or not.
- Exceptions of the client propagate; the caller turns them into
  SessionStoreError with the original as its cause. A missing record is no error.
- A value that the store cannot hold is a SessionStoreError that the adapter raises: its text is
  passed on, so it contains neither keys nor data, and is not held against the store.
- No operation touches a record that it was not asked about.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from . import _core

#: value, version (opaque, at most 32 bytes, b"" where the store compares by
#: value), expires_at_ms (None: unknown, -2: stored without expiry)
Stored = tuple[bytes, bytes, int | None]

#: Outcomes of replace and touch; their values come from the extension.
OK: Literal[0] = _core.OK
GONE: Literal[4] = _core.GONE
CHANGED: Literal[5] = _core.CHANGED


@runtime_checkable
class Adapter(Protocol):
    """The operations every store has. Missing optional ones (class Optional below) are
    answered with "not supported"."""

    #: The SESSION_TYPE that it serves, lower case.
    name: str
    #: A sum of ``_core.CAP_...``. CAP_ATOMIC only if create, replace and touch
    #: are each one indivisible step of the store.
    capabilities: int

    def load(self, key: str, timeout: float) -> Stored | None:
        """Read the live record of key; None when missing or expired. Must see every
        acknowledged write. What cannot be a session of ours (another data type at this
        key) is answered with an empty value, which no session has."""

    def create(self, key: str, value: bytes, ttl_ms: int, timeout: float) -> bool:
        """Insert only: False, and nothing changed, while a live record has the key."""

    def replace(
        self, key: str, expected: bytes, version: bytes, value: bytes, ttl_ms: int, timeout: float
    ) -> int | Stored:
        """Write value only where the store still holds what is expected: OK. Never creates:
        GONE when missing or expired. A conflict is answered with the record that is there."""

    def touch(self, key: str, expected: bytes, version: bytes, ttl_ms: int, timeout: float) -> int:
        """Set the expiry to now + ttl_ms only while the store holds the expected value:
        OK; CHANGED when another value is there; GONE."""

    def remove(self, key: str, timeout: float) -> None:
        """Delete whatever the key holds; nothing there is no error."""


class Optional(Protocol):
    """Operations that an adapter may have in addition."""

    def purge(self, limit: int, timeout: float) -> int:
        """Delete at most limit expired records and say how many; fewer than limit means
        that there are no more. Only without CAP_NATIVE_TTL."""

    def scan(
        self, cursor: bytes, batch: int, timeout: float
    ) -> tuple[bytes, list[tuple[str, bytes, int | None]]]:
        """About batch live records (key, value, expires_at_ms) from cursor on, and the next
        cursor; b"" starts, and b"" is returned at the end. CAP_LISTABLE."""

    def close(self) -> None:
        """The store is no longer used. A client that was given stays open."""
