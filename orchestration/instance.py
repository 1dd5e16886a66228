"""The persistent Dagster instance in `KLINEHOUSE_HOME/dagster`, shared by the command line and the UI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from ingestion.settings import Settings
from ingestion.store import write_durably

_CONFIG = Path(__file__).with_name("dagster.yaml")


def prepare_home(settings: Settings) -> Path:
    """Make the instance's folder with its `dagster.yaml`; one that a user has changed is kept."""
    home = settings.dagster_home
    write_durably(home / "dagster.yaml", _CONFIG.read_bytes(), keep_existing=True)
    return home


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    home = prepare_home(settings)
    # Dagster and its child processes find the instance by this variable only.
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
