"""Sessions in Google Cloud Datastore: not available in this version."""

from __future__ import annotations

from .base import ServerSideSession
from .unavailable import UnavailableSessionInterface


class GoogleCloudDataStoreSession(ServerSideSession):
    """A session in Google Cloud Datastore."""


class GoogleCloudDatastoreSessionInterface(UnavailableSessionInterface):
    kind = "datastore"
    session_class = GoogleCloudDataStoreSession
