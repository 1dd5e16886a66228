"""The persistent Dagster instance in `KLINEHOUSE_HOME/dagster`, shared by the command line and the UI."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from ingestion.settings import Settings
from ingestion.store import write_durably

_CONFIG = Path(__file__).with_name("dagster.yaml")
_ON_BIGQUERY = Path(__file__).with_name("dagster.bigquery.yaml")


def prepare_home(settings: Settings) -> Path:
    """Make the instance's folder with its `dagster.yaml`, anew when the settings ask for another one; what a user has
    changed is kept."""
    home = settings.dagster_home
    config, as_made = home / "dagster.yaml", home / ".dagster.yaml.as_made"
    wanted = instance_config(settings).encode()
    found, made = _content(config), _content(as_made)
    if found in (None, wanted, made):
        for path, content in ((config, found), (as_made, made)):
            if content != wanted:
                write_durably(path, wanted)
    return home


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def instance_config(settings: Settings) -> str:
    """The text of `dagster.yaml`; where a raw zone in a bucket feeds BigQuery, what runs print goes beside it."""
    config = _CONFIG.read_text()
    place = settings.raw_bucket
    if settings.target != "bigquery" or place is None:
        return config
    bucket, folder = place
    values = {
        "bucket": bucket,
        "prefix": "/".join([*folder.split("/")[:-1], "compute_logs"]),
        "local_dir": str(settings.dagster_home / "storage"),
    }
    # A string of JSON is one of YAML, whatever is in it.
    return config + _ON_BIGQUERY.read_text().format(**{name: json.dumps(value) for name, value in values.items()})


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    home = prepare_home(settings)
    # Dagster and its child processes find the instance by this variable only.
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
