"""The file of views: what it says does not depend on whether it was made anew or from the one before it."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support.homes import home

from ingestion.settings import Settings
from warehouse.served_files import BARS, DIMENSIONS, FILE_COLUMNS, HEALTH, ServedFile
from warehouse.serving import reading, served_files
from warehouse.views import VIEW_FILE, swap_views

JANUARY = datetime(2024, 1, 31, tzinfo=UTC)
FEBRUARY = datetime(2024, 2, 28, tzinfo=UTC)
BARS_SEEN = 'select symbol, "interval", open_time from {}crypto_analytics.market_data_unified order by all'
FILES_SEEN = f"select {', '.join(FILE_COLUMNS)} from {{}}bookkeeping.files order by all"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = home(tmp_path / "it's home")
    settings.serving_dir.mkdir(parents=True)
    return settings


def written(settings: Settings, name: str, query: str = "select 1 as i") -> str:
    path = settings.serving_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    duckdb.sql(query).write_parquet(str(path))
    return str(path)


def bar(symbol: str, at: datetime) -> str:
    return f"select '{symbol}' as symbol, '1d' as \"interval\", timestamptz '{at}' as open_time"


def month(settings: Settings, symbol: str, at: datetime) -> ServedFile:
    name = f"{BARS}/symbol={symbol}/interval=1d/{at:%Y-%m}.parquet"
    return ServedFile(BARS, written(settings, name, bar(symbol, at)), 1, 9, symbol, "1d", f"{at:%Y-%m}", at, at)


def newest(settings: Settings, symbol: str, at: datetime) -> ServedFile:
    path = written(settings, f"{BARS}/newest.{at:%d}.parquet", bar(symbol, at))
    return ServedFile(BARS, path, 1, 9, symbol, "1d", None, at, at)


@pytest.fixture
def history(settings: Settings) -> list[ServedFile]:
    """A month of two series, and the other tables."""
    months = [month(settings, symbol, JANUARY) for symbol in ("BTCUSDT", "ETHUSDT")]
    return [*months, *(ServedFile(name, written(settings, f"{name}.parquet"), 1, 9) for name in (*DIMENSIONS, *HEALTH))]


def seen(settings: Settings) -> list[list[tuple[Any, ...]]]:
    with reading(settings) as connection:
        return [connection.execute(query.format("")).fetchall() for query in (BARS_SEEN, FILES_SEEN)]


def test_a_file_made_from_the_one_before_it_says_what_one_made_anew_says(
    settings: Settings, history: list[ServedFile]
) -> None:
    """No newest bars, some, others, a month more, and none again."""
    first, second = (newest(settings, "BTCUSDT", FEBRUARY.replace(day=day)) for day in (1, 2))
    march = month(settings, "ETHUSDT", FEBRUARY)
    versions = ([], [first], [second], [second, march], [march])
    with duckdb.connect() as connection:
        for added in versions:
            swap_views(connection, settings, [*history, *added], None)
            from_the_one_before = seen(settings)
            (settings.serving_dir / VIEW_FILE).unlink()
            swap_views(connection, settings, [*history, *added], None)
            assert seen(settings) == from_the_one_before
            assert len(from_the_one_before[0]) == 2 + len(added)


def test_files_are_read_back_as_they_were_published(settings: Settings, history: list[ServedFile]) -> None:
    files = [*history, newest(settings, "BTCUSDT", FEBRUARY)]
    with duckdb.connect() as connection:
        swap_views(connection, settings, files, None)
    assert sorted(served_files(settings), key=lambda file: file.path) == sorted(files, key=lambda file: file.path)


def test_what_did_not_change_is_not_made_again(
    settings: Settings, history: list[ServedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    with duckdb.connect() as connection:
        swap_views(connection, settings, [*history, newest(settings, "BTCUSDT", FEBRUARY)], None)
        monkeypatch.setattr("warehouse.views._make", lambda connection, views: made.extend(views))
        swap_views(connection, settings, [*history, newest(settings, "BTCUSDT", FEBRUARY.replace(day=29))], None)
    assert made == ["bookkeeping.newest_bars", "bookkeeping.newest_files", "bookkeeping.about"]


def test_the_file_does_not_grow_from_version_to_version(settings: Settings, history: list[ServedFile]) -> None:
    sizes = []
    with duckdb.connect() as connection:
        for day in range(1, 13):
            swap_views(connection, settings, [*history, newest(settings, "BTCUSDT", FEBRUARY.replace(day=day))], None)
            sizes.append((settings.serving_dir / VIEW_FILE).stat().st_size)
    assert max(sizes[6:]) <= max(sizes[:6])


def test_a_file_without_a_digest_is_made_anew(settings: Settings, history: list[ServedFile]) -> None:
    """As versions of this program before there were digests left it."""
    with duckdb.connect(settings.serving_dir / VIEW_FILE) as connection:
        connection.execute("create schema bookkeeping; create view bookkeeping.about as select 1 as version")
    with duckdb.connect() as connection:
        swap_views(connection, settings, history, None)
    assert len(seen(settings)[0]) == 2


def test_the_views_find_each_other_beside_a_database_with_the_same_names(
    settings: Settings, history: list[ServedFile]
) -> None:
    with duckdb.connect() as connection:
        connection.execute("create schema bookkeeping; create table bookkeeping.newest_bars as select 1 as other")
        connection.execute("create table bookkeeping.newest_files as select 1 as other")
        swap_views(connection, settings, [*history, newest(settings, "BTCUSDT", FEBRUARY)], None)
        path = str(settings.serving_dir / VIEW_FILE).replace("'", "''")
        connection.execute(f"attach '{path}' as another_name (read_only)")
        assert [
            connection.execute(query.format("another_name.")).fetchall() for query in (BARS_SEEN, FILES_SEEN)
        ] == seen(settings)


def test_a_swap_that_failed_leaves_the_file_and_the_connection_as_they_were(
    settings: Settings, history: list[ServedFile]
) -> None:
    with duckdb.connect() as connection:
        swap_views(connection, settings, history, None)
        before = seen(settings)
        absent = replace(history[0], path=str(settings.serving_dir / "absent.parquet"))
        with pytest.raises(duckdb.IOException):
            swap_views(connection, settings, [absent, *history[1:]], None)
        assert seen(settings) == before
        assert not list(settings.serving_dir.glob(".*"))
        swap_views(connection, settings, [*history, newest(settings, "BTCUSDT", FEBRUARY)], None)
    assert len(seen(settings)[0]) == 3
