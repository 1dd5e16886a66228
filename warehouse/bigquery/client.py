"""A connection to BigQuery, or to an emulator where BIGQUERY_EMULATOR_HOST names one, and its errors explained.

Credentials are Application Default Credentials and nothing else.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    Forbidden,
    GoogleAPICallError,
    GoogleAPIError,
    NotFound,
    Unauthenticated,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from ingestion.errors import ConfigurationError, KlinehouseError
from ingestion.settings import Settings

EMULATOR = "BIGQUERY_EMULATOR_HOST"
STORAGE_EMULATOR = "BIGQUERY_STORAGE_EMULATOR_HOST"
RAW, ANALYTICS = "crypto_raw", "crypto_analytics"
LABELS = {"app": "klinehouse"}

_GIB = 1 << 30
_TOO_MANY_BYTES = "limit for bytes billed"
_PERMISSION = re.compile(r"\b(?:bigquery|storage)\.(?!googleapis)[A-Za-z]+\.[A-Za-z]+")
_ADDRESS = re.compile(r"^[A-Z]+ https?://\S+: ")
_RESOURCE = re.compile(r"Access Denied: ((?:Project|Dataset|Table|View|Job) [\w:.$-]*\w)|on resource '([^']+)'")


class WarehouseUnavailable(KlinehouseError):
    """BigQuery cannot be reached, or refused a statement."""

    kind = "warehouse_unavailable"


class BigQuery:
    """One project's warehouse. Every job carries the label app=klinehouse and a bound on the bytes that it may read."""

    def __init__(self, settings: Settings) -> None:
        if not settings.bigquery_project:
            raise ConfigurationError(
                "KLINEHOUSE_BIGQUERY_PROJECT is not set.", "Set it to the Google Cloud project of the warehouse."
            )
        self.project, self.location = settings.bigquery_project, settings.bigquery_location
        self._limit = settings.bigquery_build_gb * _GIB
        self._priority = settings.bigquery_priority.upper()
        with explained(f"project {self.project}"):
            credentials = AnonymousCredentials() if os.environ.get(EMULATOR) else None
            self.client = bigquery.Client(self.project, credentials=credentials, location=self.location)

    def run(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        *,
        purpose: str,
        limit: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run a statement or script and wait for it; its rows. `purpose` becomes a label of the job."""
        with explained(purpose):  # also what fails while pages are fetched
            return [tuple(row.values()) for row in self.start(sql, parameters, purpose=purpose, limit=limit)]

    def start(
        self, sql: str, parameters: Sequence[Any] = (), *, purpose: str, limit: int | None = None
    ) -> bigquery.table.RowIterator:
        """The same; its rows, fetched as they are asked for. `limit` bounds the bytes that are billed."""
        with explained(purpose):
            return self.client.query(sql, job_config=self._config(parameters, purpose, limit)).result()

    def has_table(self, dataset: str, name: str) -> bool:
        """Whether there is a table of this name."""
        with explained(f"dataset {dataset}"):
            try:
                self.client.get_table(f"{self.project}.{dataset}.{name}")
            except NotFound:
                return False
            return True

    def read(self, sql: str, parameters: Sequence[Any] = (), *, purpose: str) -> Any:
        """The rows of a query as an Arrow table, through the Storage Read API where there are many."""
        with explained(purpose):
            rows = self.client.query(sql, job_config=self._config(parameters, purpose, None)).result()
            return rows.to_arrow(bqstorage_client=_storage_reader())

    def bytes_of(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """What a query would read, without running it."""
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False, query_parameters=list(parameters))
        config.default_dataset = f"{self.project}.{ANALYTICS}"
        with explained("the query"):
            return int(self.client.query(sql, job_config=config).total_bytes_processed or 0)

    def _config(self, parameters: Sequence[Any], purpose: str, limit: int | None) -> bigquery.QueryJobConfig:
        config = bigquery.QueryJobConfig(
            query_parameters=list(parameters),
            labels=labels(purpose),
            priority=self._priority,
            maximum_bytes_billed=limit or self._limit,
        )
        config.default_dataset = f"{self.project}.{ANALYTICS}"
        return config

    def close(self) -> None:
        self.client.close()


def _storage_reader() -> BigQueryReadClient | None:
    """A client of the emulator's Storage API; None leaves it to BigQuery's own client."""
    channel = emulated_storage()
    if channel is None:
        return None
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


def emulated_storage() -> grpc.Channel | None:
    """A channel to the emulator's Storage API, if there is one."""
    host = os.environ.get(STORAGE_EMULATOR)
    # As the clients have it for the service: an answer may be larger than gRPC's 4 MB.
    unbounded = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
    return None if host is None else grpc.insecure_channel(host, unbounded)


def labels(purpose: str) -> Mapping[str, str]:
    """Labels of a job: by them the bill says what cost what."""
    return LABELS | {"purpose": re.sub(r"[^a-z0-9_-]+", "-", purpose.lower())[:63]}


@contextmanager
def opened(settings: Settings) -> Iterator[BigQuery]:
    """A connection for a while."""
    warehouse = BigQuery(settings)
    try:
        yield warehouse
    finally:
        warehouse.close()


def _said(error: GoogleAPICallError) -> str:
    """What the service said itself, without the address that was asked and the job's name."""
    return _ADDRESS.sub("", str(error.message)).split("\n")[0].split("; reason: ")[0]


def _forbidden(said: str, what: str) -> KlinehouseError:
    if "quota" in said.lower() or "rate limit" in said.lower():
        return WarehouseUnavailable(
            f"BigQuery's quota is used up: {said}", "Wait, or ask for more of it in the console."
        )
    permission = _PERMISSION.search(said)
    if permission is None:
        return ConfigurationError(
            f"BigQuery denies {what}: {said}", "docs/bigquery.md lists which roles and services Klinehouse needs."
        )
    resource = _RESOURCE.search(said)
    return ConfigurationError(
        f"BigQuery denies {permission[0]} {f'on {resource[1] or resource[2]}' if resource else f'for {what}'}.",
        f"Grant the account of these credentials a role with {permission[0]} there; "
        "docs/bigquery.md lists which roles Klinehouse needs.",
    )


def _too_many_bytes(what: str, said: str) -> WarehouseUnavailable:
    return WarehouseUnavailable(
        f"{what[:1].upper()}{what[1:]} would read more than is allowed: {said}",
        "Look at what it reads; KLINEHOUSE_BIGQUERY_BUILD_GB allows more.",
    )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors of the service as errors of ours, which name the permission and the resource where that is what lacks."""
    try:
        yield
    except Forbidden as error:
        raise _forbidden(_said(error), what) from error
    except (Unauthenticated, GoogleAuthError) as error:
        raise ConfigurationError(
            f"There are no valid credentials for BigQuery: {error}",
            "Run `gcloud auth application-default login`, or give the machine a service account.",
        ) from error
    except NotFound as error:
        raise ConfigurationError(
            f"BigQuery has not what {what} needs: {_said(error)}", "Run `klinehouse build` first."
        ) from error
    except (BadRequest, Conflict) as error:
        if _TOO_MANY_BYTES in str(error):
            raise _too_many_bytes(what, _said(error)) from error
        raise WarehouseUnavailable(
            f"BigQuery refused {what}: {_said(error)}", "Look at the job in the console."
        ) from error
    except (GoogleAPIError, OSError) as error:
        if _TOO_MANY_BYTES in str(error):
            raise _too_many_bytes(what, str(error)) from error
        host = os.environ.get(EMULATOR)
        raise WarehouseUnavailable(
            f"{f'The emulator on {host}' if host else 'BigQuery'} does not answer: {error}",
            "Check the network and status.cloud.google.com, then try again; nothing is lost.",
        ) from error
