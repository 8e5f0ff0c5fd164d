"""Google Cloud Firestore, through google-cloud-firestore."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from tests.services.google import FirestoreService

from .base import Row, Settings, Where, new_prefix


def client(where: Where, **options: Any) -> Any:
    from google.cloud import firestore

    # The library reads where the emulator is when a client is made.
    with mock.patch.dict(os.environ, FIRESTORE_EMULATOR_HOST=where["FIRESTORE_EMULATOR_HOST"]):
        return firestore.Client(project="tests", **options)


class FirestoreRow(Row):
    """The client object, which is what Flask-Session2 takes."""

    name = "firestore"
    service = FirestoreService
    tick_ms = 1
    max_value = 1_040_384
    raced = True
    slow_server = True
    changes = 10
    one_port = False  # a proxy cannot tell what gRPC sends of its own accord
    predecessors = ("fs2",)
    legacy = """
import os
import flask_session.sessions
from google.cloud import firestore
flask_session.sessions.firestore = firestore  # which it uses and does not import
os.environ["FIRESTORE_EMULATOR_HOST"] = where["FIRESTORE_EMULATOR_HOST"]
config.update(
    SESSION_TYPE="firestore",
    SESSION_FIRESTORE=firestore.Client(project="tests"),
    SESSION_FIRESTORE_COLLECT=where["COLLECTION"],
)
"""

    def reach(self) -> Where:
        # A purge deletes what has expired in a whole collection: this is for nobody else.
        return {**super().reach(), "COLLECTION": new_prefix()[:-1]}

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {
            "SESSION_TYPE": "firestore",
            "SESSION_FIRESTORE": client(where),
            "SESSION_FIRESTORE_COLLECT": where["COLLECTION"],
        }

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        document = client(where).collection(where["COLLECTION"]).document(key).get()
        seconds: float = document.get("expiration").timestamp()
        return seconds
