"""Google's emulators of Datastore and Firestore. They come with the Google Cloud SDK; no package
registry has them. All of them keep what they store in memory: a restarted one is empty."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from .base import HOST, Service, Unavailable, tcp_answers
from .builds import JAVA_OPTIONS, java_program

_FOLDERS = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk")
_FIRESTORE = (
    "cloud-firestore-emulator/cloud-firestore-emulator.jar",
    "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
)


def sdk_file(name: str) -> Path:
    """A file of the Google Cloud SDK: of that which GCLOUD_SDK names, or of one where they use to
    be; Unavailable when there is none."""
    folders = [*_FOLDERS, str(Path.home() / "google-cloud-sdk")]
    for folder in filter(None, [os.environ.get("GCLOUD_SDK"), *folders]):
        file = Path(folder) / "platform" / name
        if file.is_file():
            return file
    raise Unavailable(
        f"no Google Cloud SDK here has platform/{name} (GCLOUD_SDK says where one is)"
    )


class _Emulator(Service):
    seconds_to_start = 60
    jar: ClassVar[str]
    main: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()

    def prepare(self) -> None:
        self.path = sdk_file(self.jar)
        self.java = java_program("java")

    def launch(self) -> None:
        java = (self.java, "-Xmx512m", *JAVA_OPTIONS, "-Duser.language=en")
        where = (f"--host={HOST}", f"--port={self.port()}")
        self.spawn(*java, "-cp", str(self.path), self.main, "start", *where, *self.options)

    def ready(self) -> bool:
        # The first requests to a Java program take seconds: here, and not in a test.
        return tcp_answers(self.port()) and self.warm()

    @abstractmethod
    def warm(self) -> bool:
        """Write, read, search, be refused and delete; whether that worked."""

    @property
    def host(self) -> str:
        """As DATASTORE_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST have it."""
        return f"{HOST}:{self.port()}"


class FirestoreService(_Emulator):
    """Firestore in native mode."""

    name = "firestore"
    jar, main = _FIRESTORE

    def warm(self) -> bool:
        from google.api_core import exceptions
        from google.cloud import firestore

        with mock.patch.dict(os.environ, self.exports()):
            client = firestore.Client(project="warm")
        once: dict[str, Any] = {"retry": None, "timeout": 10}
        document = client.collection("warm").document("warm")
        try:
            document.set({"value": 1}, **once)
            seen = document.get(**once).update_time
            document.update({"value": 2}, **once)
            list(client.collection("warm").limit(1).stream(timeout=10))
            try:
                option = client.write_option(last_update_time=seen)
                document.update({"value": 3}, option=option, **once)
            except exceptions.FailedPrecondition:
                document.delete(**once)
                return True
        except exceptions.GoogleAPICallError:
            pass
        finally:
            client.close()
        return False

    def exports(self) -> dict[str, str]:
        return {"FIRESTORE_EMULATOR_HOST": self.host}


class _DatastoreEmulator(_Emulator):
    def exports(self) -> dict[str, str]:
        return {"DATASTORE_EMULATOR_HOST": self.host}

    def warm(self) -> bool:
        from google.api_core import exceptions
        from google.cloud import datastore

        with mock.patch.dict(os.environ, self.exports()):
            client = datastore.Client(project="warm")
        entity = datastore.Entity(client.key("warm", "warm"))
        try:
            for _ in range(3):
                client.put(entity, timeout=10)
                client.get(entity.key, timeout=10)
                list(client.query(kind="warm").fetch(limit=1, timeout=10))
                client.delete(entity.key, timeout=10)
        except exceptions.GoogleAPICallError:
            return False
        return True


class DatastoreService(_DatastoreEmulator):
    """The Datastore of old; its queries are strongly consistent here, too."""

    name = "datastore"
    jar = "cloud-datastore-emulator/CloudDatastore.jar"
    main = "com.google.cloud.datastore.emulator.CloudDatastore"
    options = ("--testing",)


class FirestoreInDatastoreModeService(_DatastoreEmulator):
    """Firestore in Datastore mode, which is what Datastore is today."""

    name = "firestore_datastore"
    jar, main = _FIRESTORE
    options = ("--database-mode=datastore-mode",)
