"""The Dagster instance of a home, and the examples of instances whose runs share no machine."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster_gcp.gcs.compute_log_manager import GCSComputeLogManager
from google.cloud import storage
from support.homes import home
from support.object_store import BUCKET, EMULATOR, ObjectStore

from ingestion.settings import Settings
from orchestration.instance import instance_config, open_instance, prepare_home

INFRA = Path(__file__).parent.parent.parent / "infra" / "dagster"


def on_bigquery(path: Path, raw_url: str = f"gs://{BUCKET}/lake/raw") -> Settings:
    return home(path, target="bigquery", raw_url=raw_url, bigquery_project="project")


class Bucket:
    """A bucket that is there, of a client that asks nobody."""

    def exists(self) -> bool:
        return True


class Client:
    """Google's client of storage, without Google."""

    def bucket(self, name: str) -> Bucket:
        assert name == BUCKET
        return Bucket()


def test_on_bigquery_what_runs_print_goes_to_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "Client", Client)
    with open_instance(on_bigquery(tmp_path)) as instance:
        assert isinstance(instance.compute_log_manager, GCSComputeLogManager)


@pytest.mark.parametrize(
    ("raw_url", "prefix"),
    [
        ("gs://bucket/lake/raw", "lake/compute_logs"),
        ("gs://bucket/raw", "compute_logs"),
        ("gs://bucket", "compute_logs"),
    ],
)
def test_it_lies_beside_the_raw_zone(tmp_path: Path, raw_url: str, prefix: str) -> None:
    config = yaml.safe_load(instance_config(on_bigquery(tmp_path / 'a "folder": #1', raw_url)))
    logs = config["compute_logs"]["config"]
    assert (logs["bucket"], logs["prefix"]) == ("bucket", prefix)
    assert logs["local_dir"] == str(tmp_path / 'a "folder": #1' / "dagster" / "storage")


def test_on_one_machine_it_stays_there(tmp_path: Path) -> None:
    assert "compute_logs" not in yaml.safe_load(instance_config(home(tmp_path, raw_url="gs://bucket/raw")))
    assert "compute_logs" not in yaml.safe_load(instance_config(on_bigquery(tmp_path, raw_url="")))


def test_an_instance_that_a_user_has_changed_is_kept(tmp_path: Path) -> None:
    settings = on_bigquery(tmp_path)
    config = prepare_home(settings) / "dagster.yaml"
    config.write_text("telemetry:\n  enabled: false\n")
    prepare_home(settings)
    assert "compute_logs" not in config.read_text()


def test_an_instance_follows_the_target_of_its_home(tmp_path: Path) -> None:
    for settings, has_bucket in ((home(tmp_path), False), (on_bigquery(tmp_path), True), (home(tmp_path), False)):
        config = yaml.safe_load((prepare_home(settings) / "dagster.yaml").read_text())
        assert ("compute_logs" in config) == has_bucket


def test_an_instance_that_was_begun_and_left_by_a_kill_is_not_taken_for_the_users(tmp_path: Path) -> None:
    prepare_home(home(tmp_path))
    config = home(tmp_path).dagster_home / "dagster.yaml"
    config.write_text(instance_config(on_bigquery(tmp_path)))  # and not yet noted
    prepare_home(on_bigquery(tmp_path))
    prepare_home(home(tmp_path))
    assert config.read_text() == instance_config(home(tmp_path))


@pytest.mark.bigquery
def test_what_a_run_prints_can_be_read_from_the_bucket(
    tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMULATOR, object_store.address)

    @dg.op
    def speak() -> None:
        print("a word")  # noqa: T201 - what a run prints

    @dg.job
    def job() -> None:
        speak()

    with open_instance(on_bigquery(tmp_path)) as instance:
        assert job.execute_in_process(instance=instance).success
        kept = [blob.name for blob in storage.Client().list_blobs(BUCKET, prefix="lake/compute_logs/")]
        (out,) = (name for name in kept if name.endswith(".out"))
        assert storage.Client().bucket(BUCKET).blob(out).download_as_bytes() == b"a word\n"


@pytest.mark.parametrize("name", ["kubernetes", "cloud_run"])
def test_the_examples_are_what_dagster_takes(name: str) -> None:
    found, _ = dagster_instance_config(str(INFRA), f"{name}.yaml")
    assert found["run_launcher"]["config"]
    assert found["compute_logs"]["class"] == "GCSComputeLogManager"
    assert found["concurrency"]["runs"]["max_concurrent_runs"] == 12


def test_runs_on_kubernetes_have_a_limit_of_memory() -> None:
    config = yaml.safe_load((INFRA / "kubernetes.yaml").read_text())
    limits = config["run_launcher"]["config"]["run_k8s_config"]["container_config"]["resources"]["limits"]
    assert limits == {"memory": "2Gi"}
