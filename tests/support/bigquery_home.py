"""Homes whose raw zone lies in an object store and whose warehouse is BigQuery: the two stand-ins side by side."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.settings import Settings
from support import bigquery_emulator, object_store
from support.bigquery_emulator import Emulator
from support.homes import home
from support.object_store import BUCKET, EMULATOR, ObjectStore

_PYTHON = os.environ.get("KLINEHOUSE_TEST_BIGQUERY")  # read before fixtures clear the environment


@dataclass(frozen=True)
class Cloud:
    """A running object store and a running BigQuery that loads from it."""

    store: ObjectStore
    emulator: Emulator

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find both."""
        return {**self.emulator.environment, EMULATOR: self.store.address}

    def home(self, path: Path, **settings: Any) -> Settings:
        """A home with an empty raw zone; its warehouse is that of the emulator's project."""
        cloud = {
            "raw_url": f"gs://{BUCKET}/{uuid.uuid4().hex[:12]}",
            "bigquery_project": bigquery_emulator.PROJECT,
            "target": "bigquery",
        }
        return home(path, **(cloud | settings))


def unavailable() -> str | None:
    """Why there is no such cloud here; None when there is one."""
    return object_store.unavailable()


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    """Both on loopback, with their data in `folder`, until the block ends."""
    objects = folder / "objects"
    objects.mkdir(parents=True)
    with (
        object_store.running(objects) as store,
        bigquery_emulator.running(str(_PYTHON), folder / "bigquery", objects) as emulator,
    ):
        yield Cloud(store, emulator)


def of_process(settings: Settings) -> dict[str, str]:
    """The same settings in the environment of a process."""
    chosen = {name: getattr(settings, name) for name in settings.model_fields_set}
    chosen["symbols"] = ",".join(settings.symbols)
    return {f"KLINEHOUSE_{name.upper()}": str(value) for name, value in chosen.items()}
