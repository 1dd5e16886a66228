"""What a warehouse on BigQuery was asked to do, and what its tables look like: told by BigQuery's own API."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from support.googlesql import Catalog, Parameters
from warehouse.bigquery.client import ANALYTICS, RAW, BigQuery

# As the project's query comment says it; statements about no node, such as a listing, say `dbt`.
_NODE = re.compile(r'"app": "klinehouse", "purpose": "(?!dbt")([^"]+)"')


@dataclass(frozen=True)
class Job:
    """A query job: its text, the types of its parameters, the dataset of tables that are named without one, and why it
    failed, if it did."""

    query: str
    parameters: Parameters
    dataset: str | None
    error: str | None

    @property
    def node(self) -> str | None:
        """The name of the node of dbt that it belongs to."""
        found = _NODE.search(self.query)
        return found[1] if found else None


def executed(warehouse: BigQuery, since: datetime | None = None) -> list[Job]:
    """All statements and scripts that were executed, by anyone, in order of time."""
    found: list[Any] = list(warehouse.client.list_jobs(all_users=True, min_creation_time=since))
    jobs = [job for job in found if job.job_type == "query" and not job.dry_run]
    return [
        Job(
            job.query,
            [(one.name, _type(one)) for one in job.query_parameters],
            job.default_dataset.dataset_id if job.default_dataset else None,
            job.error_result["message"] if job.error_result else None,
        )
        for job in sorted(jobs, key=lambda job: job.created)
    ]


def _type(parameter: Any) -> str:
    kind = getattr(parameter, "array_type", None)
    return f"ARRAY<{kind}>" if kind else str(parameter.type_)


def catalog_of(warehouse: BigQuery) -> Catalog:
    """Every table and view as it is now."""
    client = warehouse.client
    return {
        f"{table.project}.{table.dataset_id}.{table.table_id}": [
            field.to_api_repr() for field in client.get_table(table.reference).schema
        ]
        for dataset in (RAW, ANALYTICS)
        for table in client.list_tables(f"{warehouse.project}.{dataset}")
    }


def named_without(dataset: str, catalog: Catalog) -> Catalog:
    """The same, in which tables of a dataset can be named without it too."""
    middle = f".{dataset}."
    return {**catalog, **{name.split(middle)[1]: columns for name, columns in catalog.items() if middle in name}}
