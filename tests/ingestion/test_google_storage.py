"""A raw zone on Google Cloud Storage when it fails, and how many requests it makes."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from support.object_store import BUCKET, EMULATOR, ObjectStore
from support.proxy import proxy
from support.raw_zones import AUGUST, BTC, ETH, JULY, PROVENANCE, bars, empty_root
from support.storage_front import Front, front

from ingestion import google_storage
from ingestion.errors import ConfigurationError, StorageUnavailable
from ingestion.raw_zone import Environment, RawZone

pytestmark = pytest.mark.bigquery

# As the service words it.
DENIED = (
    "loader@project.iam.gserviceaccount.com does not have storage.objects.delete access to the Google Cloud Storage "
    "object. Permission 'storage.objects.delete' denied on resource (or it may not exist)."
)


@pytest.fixture
def store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """An object store that can be made to fail; retries come at once."""
    pause = asyncio.sleep
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda seconds: pause(0)))
    with front(object_store.port) as found:
        monkeypatch.setenv(EMULATOR, found.address)
        yield found


@pytest.fixture
def zone(store: Front) -> RawZone:
    return RawZone(empty_root())


def fail_first(count: int, status: int) -> Callable[[str, str], int | None]:
    left = iter([status] * count)
    return lambda method, path: next(left, None)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_fails_for_a_while_is_tried_again(store: Front, zone: RawZone, status: int) -> None:
    store.refuse = fail_first(5, status)
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    store.refuse = fail_first(5, status)
    assert zone.read_history(BTC, JULY).equals(bars())
    store.refuse = fail_first(5, status)
    assert [file.month for file in zone.history_files()] == [JULY]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_what_fails_for_long_is_explained(store: Front, zone: RawZone, status: int) -> None:
    store.refuse = lambda method, path: status
    for use in (lambda: zone.write_history(BTC, JULY, bars(), PROVENANCE), zone.history_files, zone.environment):
        with pytest.raises(StorageUnavailable, match=f"does not serve gs://{BUCKET}"):
            use()


def test_a_store_out_of_reach_is_explained(store: Front, zone: RawZone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATOR, "http://127.0.0.1:9")
    with pytest.raises(StorageUnavailable, match=f"127.0.0.1:9 does not serve gs://{BUCKET}"):
        zone.environment()


def test_a_store_that_falls_silent_is_asked_again(
    object_store: ObjectStore, store: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_storage, "_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_read=0.1))
    with proxy(object_store.port) as silent:
        monkeypatch.setenv(EMULATOR, f"http://127.0.0.1:{silent.port}")
        zone = RawZone(empty_root())
        silent.mode = "black_hole"
        with pytest.raises(StorageUnavailable, match="does not serve"):
            zone.environment()
        silent.mode = "pass"
        assert zone.environment() is None
        assert silent.accepted >= 6


def test_a_month_whose_creation_was_answered_too_late_is_created(store: Front, zone: RawZone) -> None:
    store.lose = 1
    assert zone.create_history(BTC, JULY, bars(), PROVENANCE)
    assert zone.read_history(BTC, JULY).equals(bars())


def test_a_claim_that_was_answered_too_late_holds(store: Front, zone: RawZone) -> None:
    store.lose = 3
    zone.claim(Environment.of("seed 1"))
    assert zone.environment() == Environment.of("seed 1")


USES: dict[str, Callable[[RawZone], object]] = {
    "create": lambda zone: zone.create_history(BTC, JULY, bars(), PROVENANCE),
    "get": lambda zone: zone.provenance(BTC, JULY),
    "list": lambda zone: zone.history_files(),
    "delete": lambda zone: zone.release_file("refused.zip"),
}


@pytest.mark.parametrize("verb", USES)
def test_a_missing_permission_and_its_bucket_are_named(store: Front, zone: RawZone, verb: str) -> None:
    store.refuse = lambda method, path: 403
    with pytest.raises(ConfigurationError) as caught:
        USES[verb](zone)
    assert f"denies storage.objects.{verb} on gs://{BUCKET}: no" in caught.value.message
    assert f"a role with storage.objects.{verb}" in caught.value.remedy
    assert len(store.asked) == 1


def test_the_permission_that_the_service_names_is_the_one_that_is_missing(store: Front, zone: RawZone) -> None:
    store.refuse, store.message = (lambda method, path: 403), DENIED
    with pytest.raises(ConfigurationError) as caught:
        zone.write_history(BTC, JULY, bars(), PROVENANCE)
    assert f"denies storage.objects.delete on gs://{BUCKET}: loader@project" in caught.value.message


def test_credentials_that_are_refused_are_named(store: Front, zone: RawZone) -> None:
    store.refuse, store.message = (lambda method, path: 401), "Invalid Credentials"
    with pytest.raises(ConfigurationError, match=r"no valid credentials .*gcloud auth application-default login"):
        zone.history_files()


@pytest.mark.parametrize("message", ["invalid bucket name", "some other reason"])
def test_a_request_that_the_service_does_not_understand_is_explained(store: Front, zone: RawZone, message: str) -> None:
    store.refuse, store.message = (lambda method, path: 400), message
    with pytest.raises(ConfigurationError, match=f"refuses a request to gs://{BUCKET}: .*{message}"):
        zone.history_files()


def test_a_bucket_that_is_not_there_is_named(store: Front) -> None:
    zone = RawZone("gs://no-such-bucket/raw")
    for use in (zone.history_files, zone.probe_writable, lambda: zone.create_history(BTC, JULY, bars(), PROVENANCE)):
        with pytest.raises(ConfigurationError, match="There is no bucket gs://no-such-bucket"):
            use()
    assert zone.environment() is None


@pytest.mark.parametrize("url", ["gs://{}/raw/", "gcs://{}/raw"])
def test_a_root_may_be_written_in_other_ways(store: Front, url: str) -> None:
    assert RawZone(url.format(BUCKET)).root == f"{BUCKET}/raw"


# Where no emulator is named, only Application Default Credentials count; here there are none.
_WITHOUT = """
from ingestion.errors import ConfigurationError
from ingestion.raw_zone import RawZone

try:
    RawZone("gs://bucket/raw")
except ConfigurationError as error:
    print(error)
"""


def test_without_credentials_it_is_said_how_to_get_them(tmp_path: Path) -> None:
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)}
    # Neither a machine of Google's cloud nor its command line is asked.
    nowhere = {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], env=kept | nowhere, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith("There are no valid credentials for gs://bucket"), done.stderr
    assert "gcloud auth application-default login" in done.stdout


# --- how many requests: each takes some 50 ms -----------------------------------------------------------------------


def asked(store: Front, use: Callable[[], object]) -> Counter[str]:
    store.asked.clear()
    use()
    return Counter(method for method, _ in store.asked)


def test_each_part_of_a_zone_takes_one_request(store: Front, zone: RawZone) -> None:
    zone.write_history(BTC, JULY, bars(), PROVENANCE)
    zone.write_history(BTC, AUGUST, bars(), PROVENANCE)
    (file, _) = zone.history_files()
    assert asked(store, zone.history_files) == {"GET": 1}
    for look in (
        lambda: zone.read_landed(BTC, JULY),
        lambda: zone.read_landed(ETH, JULY),
        lambda: zone.provenance(BTC, JULY),
        lambda: zone.provenance(ETH, JULY),
        lambda: zone.describe(file),
        lambda: zone.read_differences(BTC, JULY),
        lambda: zone.first_open_time(BTC),
        zone.environment,
    ):
        assert asked(store, look) == {"GET": 1}
    assert asked(store, lambda: zone.create_history(ETH, JULY, bars(), PROVENANCE)) == {"POST": 1}
    assert asked(store, lambda: zone.history_of([BTC, ETH], [JULY], covering=JULY.start)) == {"GET": 2}
