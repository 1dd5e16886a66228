"""Which partitions are failed, stale or missing now."""

from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from ingestion.history.coverage import Cell, SeriesCoverage, State
from ingestion.klines import Month, Series
from orchestration.standing import judge

JANUARY, FEBRUARY, MARCH = (Month(2024, number) for number in (1, 2, 3))


def covered(*states: State) -> list[SeriesCoverage]:
    cells = tuple(Cell(Month(2024, number), state) for number, state in enumerate(states, 1))
    return [SeriesCoverage(Series("BTCUSDT", "5m"), cells)]


def test_what_is_full_or_was_never_traded_is_well() -> None:
    assert judge({"2024-01": AssetPartitionStatus.MATERIALIZED}, [], covered(State.NOT_LISTED, State.FULL)).is_well


def test_failed_stale_and_missing_partitions_are_named() -> None:
    statuses = {"2024-02": AssetPartitionStatus.FAILED, "2024-01": AssetPartitionStatus.IN_PROGRESS, "2024-03": None}
    standing = judge(statuses, [MARCH], covered(State.MISSING, State.HOLE, State.OUTAGE, State.REVISED, State.FULL))
    assert standing.failed == ("2024-02",)
    assert standing.stale == ("2024-03",)
    assert standing.missing == ("2024-01|BTCUSDT", "2024-02|BTCUSDT")
    assert not standing.is_well


def test_the_running_month_is_never_missing() -> None:
    assert judge({}, [], covered(State.FULL, State.MISSING)).is_well
