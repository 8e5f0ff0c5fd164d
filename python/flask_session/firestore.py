"""Sessions in Google Cloud Firestore: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class GoogleFireStoreSession(ServerSideSession):
    """A session in Google Cloud Firestore."""


class GoogleFireStoreSessionInterface(UnavailableSessionInterface):
    kind = "firestore"
    session_class = GoogleFireStoreSession
