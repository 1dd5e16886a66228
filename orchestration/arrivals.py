"""Raw objects that came by other hands (another collector, a bulk copy): a sensor reports them as materializations of
`raw_klines`, and so their months are built.

Which objects are other hands' is told by versions. Each materialization of `raw_klines` notes the version (generation)
of its object, also those that the sensor itself reports; an object whose version is not the noted one was written by
somebody who told Dagster nothing. While a run is at work on a month, what it has written is not noted yet: such months
wait. So nothing is reported twice, whatever the order of things, and nothing is passed over.

Google Cloud Storage lists by name only. So a tick lists some of the zone, and ticks go round it; in each round they
look closer at what was written since the last one began.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster_gcp import GCSResource

from ingestion.errors import UsageError
from ingestion.klines import Month
from ingestion.raw_zone import HISTORY, month_file
from ingestion.settings import Settings
from orchestration.history import RAW_KLINES, VERSION
from orchestration.partitions import PartitionSpace, month_symbol_key

# Of one tick: objects that are listed (a request for each thousand), and those that are looked up in Dagster's storage.
LISTED, LOOKED_UP = 5000, 500
# Clocks differ; what is looked at once more is not reported once more.
_SLACK = timedelta(minutes=10)


@dataclass(frozen=True)
class RawObject:
    """An object of a listing: its name in the bucket, its generation, and when it was written."""

    name: str
    version: str
    updated: datetime


@dataclass(frozen=True)
class Round:
    """How far a round over the zone has come, kept between ticks.

    `space` names the partitions it is about: with others, everything is looked at again. Objects that were not written
    since `since` are passed over. `after` is the last object that was looked at. `waiting` is when the oldest object
    was written that is left to the next round.
    """

    space: str
    began: str
    since: str | None = None
    after: str = ""
    waiting: str | None = None

    def next(self, after: str | None, waiting: Iterable[datetime], now: datetime) -> "Round":
        """After a tick that came as far as `after` (None: to the end) and left what was written at `waiting`."""
        known = [self.waiting] if self.waiting else []
        left = min([*known, *map(_stamp, waiting)], default=None)
        if after is not None:
            return Round(self.space, self.began, self.since, after, left)
        began = _stamp(datetime.fromisoformat(self.began) - _SLACK)
        return Round(self.space, _stamp(now), min(began, left) if left else began)


def this_round(cursor: str | None, settings: Settings, space: PartitionSpace, now: datetime) -> Round:
    """The round that a cursor tells of, or a first one: without a cursor, or with one about other partitions."""
    known = " ".join((settings.interval, str(space.first_month), *sorted(space.symbols)))
    name = hashlib.sha256(known.encode()).hexdigest()[:16]
    told = Round(**json.loads(cursor)) if cursor else None
    return told if told is not None and told.space == name else Round(name, _stamp(now))


def _stamp(at: datetime) -> str:
    # All of one length and zone: compared as text.
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def candidates(
    listed: Sequence[RawObject], since: str | None, interval: str, space: PartitionSpace, now: datetime
) -> dict[str, RawObject]:
    """By partition key, the files of history among `listed` that were written since then."""
    found: dict[str, RawObject] = {}
    for one in listed:
        key = _partition(one.name, interval, space, now)
        if key is not None and (since is None or _stamp(one.updated) >= since):
            found[key] = one
    return found


def _partition(name: str, interval: str, space: PartitionSpace, now: datetime) -> dg.MultiPartitionKey | None:
    try:
        series, month = month_file(name)
    except (ValueError, UsageError):  # another's file
        return None
    is_known = series.interval == interval and series.symbol in space.symbols
    if not is_known or month < space.first_month or Month.containing(now.date()) < month:
        return None
    return month_symbol_key(month, series.symbol)


def arrived(
    found: Mapping[str, RawObject], noted: Mapping[str, str | None], busy: Collection[str]
) -> tuple[dict[str, RawObject], list[RawObject]]:
    """Which of `found` came by other hands, and which cannot be told before the runs at work on them end."""
    news = {key: one for key, one in found.items() if noted.get(key) != one.version}
    return {key: one for key, one in news.items() if key not in busy}, [news[key] for key in news if key in busy]


# --- asking ------------------------------------------------------------------------------------------------------


def sensors(settings: Settings, space: PartitionSpace) -> list[dg.SensorDefinition]:
    """The sensor `raw_objects`, where the raw zone is a bucket."""
    place = settings.raw_bucket
    return [_raw_objects(settings, space, *place)] if place else []


def _raw_objects(settings: Settings, space: PartitionSpace, bucket: str, folder: str) -> dg.SensorDefinition:
    prefix = f"{folder}/{HISTORY}/".lstrip("/")

    @dg.sensor(
        name="raw_objects",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Reports months in gs://{bucket}/{prefix} that came by other hands than a run's.",
    )
    def sensor(context: dg.SensorEvaluationContext, gcs: GCSResource) -> dg.SensorResult:
        now = datetime.now(UTC)
        at = this_round(context.cursor, settings, space, now)
        listed = list_objects(gcs.get_client(), bucket, prefix, at.after)
        is_end = len(listed) < LISTED
        found = candidates(listed, at.since, settings.interval, space, now)
        if len(found) > LOOKED_UP:
            found, is_end = dict(list(found.items())[:LOOKED_UP]), False
            listed = [one for one in listed if one.name <= max(kept.name for kept in found.values())]
        # In this order, and after the listing: a run that ends meanwhile has noted what it wrote.
        busy = _busy(context.instance, space, list(found))
        news, waiting = arrived(found, _noted(context.instance, list(found)), busy)
        after = None if is_end else listed[-1].name
        cursor = at.next(after, [one.updated for one in waiting], now)
        return dg.SensorResult(
            asset_events=[_event(key, one, bucket) for key, one in news.items()],
            cursor=json.dumps(asdict(cursor)),
            skip_reason=None if news else f"Nothing came by other hands; {len(waiting)} months are being landed.",
        )

    return sensor


def list_objects(client: Any, bucket: str, prefix: str, after: str) -> list[RawObject]:
    """At most LISTED objects that come after the name `after`, in order of their names."""
    blobs = client.list_blobs(
        bucket,
        prefix=prefix,
        start_offset=after or None,
        max_results=LISTED + 1,
        fields="items(name,generation,updated),nextPageToken",
    )
    # An offset is a name that is listed too.
    found = [RawObject(blob.name, str(blob.generation), blob.updated) for blob in blobs if blob.name != after]
    return found[:LISTED]


def _busy(instance: dg.DagsterInstance, space: PartitionSpace, keys: Sequence[str]) -> set[str]:
    if not keys:
        return set()
    statuses = instance.get_status_by_partition(RAW_KLINES, keys, space.months_by_symbol()) or {}
    return {key for key, status in statuses.items() if status == AssetPartitionStatus.IN_PROGRESS}


def _noted(instance: dg.DagsterInstance, keys: Sequence[str]) -> dict[str, str | None]:
    """The version in the last materialization of each partition that has one."""
    if not keys:
        return {}
    kind = DagsterEventType.ASSET_MATERIALIZATION
    ids = list(instance.get_latest_storage_id_by_partition(RAW_KLINES, kind, {str(key) for key in keys}).values())
    if not ids:
        return {}
    wanted = dg.AssetRecordsFilter(asset_key=RAW_KLINES, storage_ids=ids)
    noted: dict[str, str | None] = {}
    for record in instance.fetch_materializations(wanted, limit=len(ids)).records:
        told = record.asset_materialization.metadata.get(VERSION) if record.asset_materialization else None
        noted[str(record.partition_key)] = str(told.value) if told else None
    return noted


def _event(key: str, one: RawObject, bucket: str) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        RAW_KLINES,
        description="Came by other hands.",
        partition=key,
        metadata={"path": f"gs://{bucket}/{one.name}", VERSION: one.version, "written_at": one.updated.isoformat()},
    )
