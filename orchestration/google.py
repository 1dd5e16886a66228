"""The resources of the BigQuery target.

Credentials are Application Default Credentials; where an emulator is named (BIGQUERY_EMULATOR_HOST,
STORAGE_EMULATOR_HOST) there are none.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster_gcp import BigQueryResource, GCSResource
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from ingestion.settings import Settings
from warehouse.bigquery.client import EMULATOR, LABELS


class WarehouseResource(BigQueryResource):
    """Dagster's own resource, whose clients can speak to an emulator, and read no more than `most_bytes` by a query."""

    most_bytes: int

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        config = bigquery.QueryJobConfig(labels=dict(LABELS), maximum_bytes_billed=self.most_bytes)
        client = bigquery.Client(
            self.project,
            location=self.location,
            credentials=AnonymousCredentials() if os.environ.get(EMULATOR) else None,
            default_query_job_config=config,
        )
        try:
            yield client
        finally:
            client.close()

    def get_object_to_set_on_execution_context(self) -> "WarehouseResource":
        # The one that it inherits gives a generator, with which nobody can do anything.
        return self


def resources(settings: Settings) -> dict[str, Any]:
    """Resources by name."""
    project = settings.bigquery_project or None
    return {
        "bigquery": WarehouseResource(
            project=project, location=settings.bigquery_location, most_bytes=settings.bigquery_build_gb << 30
        ),
        "gcs": GCSResource(project=project),
    }
