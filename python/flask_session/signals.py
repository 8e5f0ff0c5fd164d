"""Signals of the session layer, sent with blinker.

The sender is the application. Every receiver gets ``sid_hash``, a hash of the
session id that is salted afresh in every process: equal within one process, no
way back to the id. Further keyword arguments depend on the signal and are
listed beside it. A receiver's exception ends the request, as with Flask's own
signals.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from blinker import NamedSignal

if TYPE_CHECKING:
    from flask import Flask

session_created = NamedSignal("session-created", "A new session was stored.")
session_loaded = NamedSignal("session-loaded", "A stored session was read.")
session_saved = NamedSignal("session-saved", "A changed session was stored.")
session_touched = NamedSignal("session-touched", "A session's expiry was renewed.")
session_conflict = NamedSignal(
    "session-conflict", "Two requests changed the same keys; ``keys`` is their number."
)
session_lost = NamedSignal(
    "session-lost", "Changes were dropped: the session had been removed or replaced meanwhile."
)
session_regenerated = NamedSignal("session-regenerated", "A session got a new id.")
session_removed = NamedSignal("session-removed", "A session was removed from the store.")
session_rejected = NamedSignal(
    "session-rejected", "A stored value or a cookie was no session and was refused."
)
session_store_error = NamedSignal(
    "session-store-error", "The store failed; ``error`` is the SessionStoreError."
)
session_made_private = NamedSignal(
    "session-made-private", "A response for shared caches sets the cookie and was made private."
)


_logger = logging.getLogger("flask_session")
_LEVELS = {
    "conflict": logging.INFO,
    "lost": logging.WARNING,
    "made_private": logging.WARNING,
    "rejected": logging.INFO,
    "store_error": logging.ERROR,
}


def _shown(signal: NamedSignal, details: dict[str, Any]) -> tuple[str, str]:
    """What happened, in the words of the signal, and what is known about it."""
    what = (signal.__doc__ or "").partition(";")[0].rstrip(".")
    return what, "".join(f"; {key}: {value}" for key, value in details.items())


class Events:
    """Where the extension sends its events."""

    #: Short name -> signal.
    signals: ClassVar[dict[str, NamedSignal]] = {
        signal.name.removeprefix("session-").replace("-", "_"): signal
        for signal in (
            session_created,
            session_loaded,
            session_saved,
            session_touched,
            session_conflict,
            session_lost,
            session_regenerated,
            session_removed,
            session_rejected,
            session_store_error,
            session_made_private,
        )
    }

    def emit(self, name: str, app: Flask | None, sid_hash: str, info: object = None) -> None:
        """Send the event. The rare ones are logged as well; they come here also when nobody
        listens."""
        details: dict[str, Any] = {} if info is None else {"error": info}
        if isinstance(info, dict):
            details = info
        if name in _LEVELS:
            _logger.log(_LEVELS[name], "%s%s", *_shown(self.signals[name], details))
        self.signals[name].send(app, sid_hash=sid_hash, **details)
