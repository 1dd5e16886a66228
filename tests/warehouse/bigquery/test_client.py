"""What BigQuery says, as errors of ours. The texts are Google's."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from google.api_core import exceptions as google
from google.auth.exceptions import DefaultCredentialsError
from support.homes import home

from ingestion.errors import ConfigurationError, KlinehouseError
from warehouse.bigquery.client import BigQuery, WarehouseUnavailable, explained, labels, opened

_ASKED = "POST https://bigquery.googleapis.com/bigquery/v2/projects/a-project/jobs?prettyPrint=false: "


def said(error: Exception) -> KlinehouseError:
    with pytest.raises(KlinehouseError) as caught, explained("table crypto_raw.klines"):
        raise error
    return caught.value


def test_what_fails_while_rows_are_fetched_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pages(*args: object, **options: object) -> Iterator[object]:
        raise google.ServiceUnavailable("try again")
        yield

    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    with opened(home(tmp_path, bigquery_project="a-project")) as warehouse:
        monkeypatch.setattr(warehouse, "start", pages)
        with pytest.raises(WarehouseUnavailable, match="try again"):
            warehouse.run("select 1", purpose="test")


DENIED: Mapping[str, tuple[Exception, str, str]] = {
    "of a project": (
        google.Forbidden(
            f"{_ASKED}Access Denied: Project a-project: User does not have bigquery.jobs.create permission in project "
            "a-project."
        ),
        "bigquery.jobs.create",
        "on Project a-project",
    ),
    "of a table": (
        google.Forbidden(
            f"{_ASKED}Access Denied: Table a-project:crypto_raw.klines: Permission bigquery.tables.getData denied on "
            "table a-project:crypto_raw.klines (or it may not exist)."
        ),
        "bigquery.tables.getData",
        "on Table a-project:crypto_raw.klines",
    ),
    "of a bucket": (
        google.Forbidden(
            "Access Denied: BigQuery BigQuery: Permission denied while globbing file pattern. sa@a-project.iam."
            "gserviceaccount.com does not have storage.objects.list access to the Google Cloud Storage bucket."
        ),
        "storage.objects.list",
        "for table crypto_raw.klines",
    ),
    "of a stream": (
        google.PermissionDenied(
            "Permission 'bigquery.tables.updateData' denied on resource "
            "'projects/a-project/datasets/crypto_raw/tables/klines_stream' (or it may not exist)."
        ),
        "bigquery.tables.updateData",
        "on projects/a-project/datasets/crypto_raw/tables/klines_stream",
    ),
}


@pytest.mark.parametrize(("error", "permission", "where"), DENIED.values(), ids=DENIED)
def test_a_permission_that_is_missing_is_named_with_its_resource(error: Exception, permission: str, where: str) -> None:
    found = said(error)
    assert isinstance(found, ConfigurationError)
    assert found.message == f"BigQuery denies {permission} {where}."


def test_a_refusal_that_names_no_permission_is_told_as_it_is() -> None:
    text = "BigQuery API has not been used in project 1234 before or it is disabled."
    told = f"{text} Enable it by visiting https://console.developers.google.com/apis/api/bigquery.googleapis.com"
    found = said(google.Forbidden(f"{_ASKED}{told}"))
    assert isinstance(found, ConfigurationError)
    assert found.message == f"BigQuery denies table crypto_raw.klines: {told}"


@pytest.mark.parametrize(
    "error",
    [
        google.Forbidden(f"{_ASKED}Quota exceeded: Your project exceeded quota for free query bytes scanned."),
        google.Forbidden(f"{_ASKED}Exceeded rate limits: too many table update operations for this table."),
    ],
    ids=["of a day", "of a moment"],
)
def test_a_quota_that_is_used_up_is_no_permission_that_is_missing(error: Exception) -> None:
    found = said(error)
    assert isinstance(found, WarehouseUnavailable)
    assert "quota" in found.message
    assert "https://" not in found.message


def test_a_refused_statement_is_told_without_the_address() -> None:
    found = said(google.BadRequest(f"{_ASKED}Unrecognized name: nope at [1:8]; reason: invalidQuery, location: query"))
    assert (found.kind, found.message) == (
        "warehouse_unavailable",
        "BigQuery refused table crypto_raw.klines: Unrecognized name: nope at [1:8]",
    )


def test_a_bound_on_bytes_that_is_hit_is_told_as_such() -> None:
    text = "Query exceeded limit for bytes billed: 1073741824. 20971520000 or higher required."
    found = said(google.InternalServerError(text, errors=[{"reason": "bytesBilledLimitExceeded"}]))
    assert text in found.message
    assert "KLINEHOUSE_BIGQUERY_BUILD_GB" in found.remedy


def test_what_is_not_there_is_to_be_built_first() -> None:
    found = said(google.NotFound(f"{_ASKED}Not found: Table a-project:crypto_analytics.nope was not found in EU"))
    assert (type(found), found.remedy) == (ConfigurationError, "Run `klinehouse build` first.")


def test_without_credentials_the_command_for_them_is_told() -> None:
    found = said(DefaultCredentialsError("Your default credentials were not found."))
    assert isinstance(found, ConfigurationError)
    assert "gcloud auth application-default login" in found.remedy


@pytest.mark.parametrize("error", [google.ServiceUnavailable("503"), ConnectionRefusedError("refused")])
def test_a_service_that_does_not_answer_is_unavailable(error: Exception) -> None:
    assert said(error).kind == "warehouse_unavailable"


def test_an_emulator_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    assert "The emulator on http://127.0.0.1:9" in said(ConnectionRefusedError("refused")).message


def test_without_a_project_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KLINEHOUSE_BIGQUERY_PROJECT"):
        BigQuery(home(tmp_path, target="bigquery"))


@pytest.mark.parametrize("purpose", ["load of 2024-01 to 2024-03", "Bars, LATE", "x" * 200, ""])
def test_labels_are_such_as_bigquery_takes(purpose: str) -> None:
    found = labels(purpose)
    assert found["app"] == "klinehouse"
    assert set(found["purpose"]) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert len(found["purpose"]) <= 63
