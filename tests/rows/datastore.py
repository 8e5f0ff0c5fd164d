"""Google Cloud Datastore, through google-cloud-datastore."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from tests.services.google import DatastoreService, FirestoreInDatastoreModeService

from .base import Row, Settings, Where, new_prefix

# The project that Flask-Session2 uses with an emulator.
PROJECT = "virustotal-avs-control"


def client(where: Where, **options: Any) -> Any:
    from google.cloud import datastore

    # The library reads where the emulator is when a client is made.
    with mock.patch.dict(os.environ, DATASTORE_EMULATOR_HOST=where["DATASTORE_EMULATOR_HOST"]):
        return datastore.Client(**{"project": PROJECT, "namespace": where["NAMESPACE"], **options})


class DatastoreRow(Row):
    """The client object, on the Datastore of old."""

    name = "datastore"
    service = DatastoreService
    tick_ms = 1
    max_value = 1_040_384
    raced = True
    slow_server = True
    changes = 10
    one_port = False  # a proxy cannot tell what gRPC sends of its own accord
    predecessors = ("fs2",)
    legacy = """
import functools, os
from google.cloud import datastore
datastore.Client = functools.partial(datastore.Client, namespace=where["NAMESPACE"])
os.environ["DATASTORE_EMULATOR_HOST"] = where["DATASTORE_EMULATOR_HOST"]
config.update(SESSION_TYPE="datastore")
"""

    def reach(self) -> Where:
        # A purge deletes what has expired in a whole namespace: this is for nobody else.
        return {**super().reach(), "NAMESPACE": new_prefix()[:-1]}

    @classmethod
    def settings(cls, where: Where) -> Settings:
        return {"SESSION_TYPE": "datastore", "SESSION_DATASTORE": client(where)}

    @classmethod
    def stored_expiry(cls, where: Where, key: str) -> float | None:
        own = client(where)
        seconds: float = own.get(own.key("session", key))["expiry"].timestamp()
        return seconds


class FirestoreInDatastoreModeRow(DatastoreRow):
    """Firestore in Datastore mode."""

    name = "datastore-firestore"
    service = FirestoreInDatastoreModeService
