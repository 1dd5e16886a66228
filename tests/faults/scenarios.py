"""Homes before a step, and the step: each publishing path in the forms that it has.

A scenario is prepared once by the project itself, then a copy of it is put back for every point. Views hold absolute
paths, so the home always lies at the same place.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.homes import build_all, build_window, home, put, random_walk

from faults import flows
from faults.forks import Forks
from faults.paths import State, Step
from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from ingestion.simulator.faults import Faults
from ingestion.simulator.server import build_app, running
from warehouse import raw_source
from warehouse.dbt import target_dir
from warehouse.engine import connect, text, writing
from warehouse.serving import publish

_JULY_ZIP, _AUGUST_ZIP = "BTCUSDT-1h-2024-07.zip", "BTCUSDT-1h-2024-08.zip"
_BASE = "1d"  # few bars: what is tested is how they are written, not how many
_BARS_START = datetime(2024, 1, 1, tzinfo=UTC)
_MARCH = Month(2024, 3)


@dataclass(frozen=True)
class Scenario:
    """A step, the home before it (kept in `snapshot`), and what an undisturbed run makes of that home.

    `calls` is how many calls that change files that run makes; `only_settled` names the things that nobody sees while
    it runs.
    """

    name: str
    step: Step
    snapshot: Path
    before: State
    after: State
    calls: int
    only_settled: frozenset[str]

    def restore(self) -> None:
        put_back(self.snapshot, Path(self.step.home))


def put_back(snapshot: Path, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(snapshot, home)


def ready(forks: Forks, name: str, step: Step, snapshot: Path) -> Scenario:
    """Keep the home as it is now, and run the step on it undisturbed: that is the oracle."""
    shutil.copytree(step.home, snapshot)
    before = forks.settled(step)
    run = forks.run(step)
    assert run.failure is None, run.failure
    after = forks.settled(step)
    assert "unreadable" not in after, after
    assert before != after, f"{name} does nothing"
    only_settled = frozenset(after.keys() - forks.visible(step).keys())
    return Scenario(name, step, snapshot, before, after, len(run.calls), only_settled)


# --- landing -----------------------------------------------------------------------------------------------------


@contextmanager
def landings(forks: Forks, folder: Path, place: Path) -> Iterator[list[Scenario]]:
    """Landing: first months; a running month with a bad file; the month's own file over its daily files and REST; files
    that are others now; months that are bad. Homes are at `place`, what is kept in `folder`; the exchanges run."""
    july = Month(2024, 7)
    with ExitStack() as exchanges:

        def exchange(day: datetime, **faults: Any) -> dict[str, Any]:
            url = exchanges.enter_context(running(build_app(now=day, faults=Faults(**faults))))
            return {"archive_url": url, "symbols": "BTCUSDT", "interval": "1h", "download_workers": 2}

        def step(settings: dict[str, Any], *months: Month) -> Step:
            return Step("landing", str(place), settings, {"months": [str(month) for month in months]})

        early = exchange(datetime(2024, 7, 4, 12, tzinfo=UTC), truncated_zip=("BTCUSDT-1h-2024-07-02.zip",))
        later = exchange(datetime(2024, 9, 3, tzinfo=UTC), archive_differs=0.05)
        healthy = exchange(datetime(2024, 9, 3, tzinfo=UTC))
        ill = exchange(datetime(2024, 9, 3, tzinfo=UTC), stale_checksum=(_JULY_ZIP,), html_200=(_AUGUST_ZIP,))
        both = healthy | {"symbols": "BTCUSDT,ETHUSDT"}
        forms = (
            ("first months", None, step(both, july, july.next)),
            ("a bad file in a running month", None, step(early, july)),
            ("a month over its days", step(early, july), step(later, july)),
            ("files that changed", step(both, july, july.next), step(both | later, july, july.next)),
            ("bad months", step(both, july), step(ill, july, july.next)),
        )
        found = []
        for name, first, then in forms:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            if first is not None:
                failure = forks.run(first).failure
                assert failure is None, failure
            found.append(ready(forks, name, then, folder / name))
        yield found


# --- the end of a build, and publishing --------------------------------------------------------------------------


def prepare_warehouse(place: Path, folder: Path) -> dict[str, str]:
    """Build and publish four months at `place`, then build March again with other bars.

    Keeps in `folder` the home before the first publish (`unpublished`), before that build (`changed`) and after it
    (`built`), and what the end of that build works with, which it returns as the arguments of a step.
    """
    settings = home(place, symbols="BTCUSDT", interval=_BASE)
    series = Series("BTCUSDT", _BASE)
    put(settings, series, random_walk(series, _BARS_START, 121))
    build_all(settings)
    _keep(place, folder / "unpublished")
    publish(settings)
    put(settings, series, random_walk(series, _MARCH.start, 31, seed=7))
    _keep(place, folder / "changed")
    build_window(settings, _MARCH.start, _MARCH.end)
    _keep(place, folder / "built")
    return _end_of_build(settings, folder)


def _keep(place: Path, snapshot: Path) -> None:
    shutil.copytree(place, snapshot, ignore=shutil.ignore_patterns("dbt", "logs"))


def _end_of_build(settings: Settings, folder: Path) -> dict[str, str]:
    """The statements as dbt ran them, and the rows that the query gave, as dbt compiled it: they are computed once, on
    the warehouse as it was before (the build prepared it for the window)."""
    model = Path("klinehouse/models/marts/market_data_unified.sql")
    query = (target_dir(settings) / "compiled" / model).read_text()
    statements = (target_dir(settings) / "run" / model).read_text()
    rows = folder / "rows.parquet"
    put_back(folder / "changed", settings.home)
    with writing(settings), connect(settings) as connection:
        raw_source.prepare(connection, RawZone(settings.raw_root), _BASE, [_MARCH])
        connection.execute(f"copy ({query}) to {text(str(rows))} (format parquet)")
    table = next(word for word in statements.split('"') if "__dbt_tmp" in word)
    return {"statements": statements, "rows": str(rows), "rows_table": table}


def buildings(forks: Forks, folder: Path, place: Path, arguments: dict[str, str]) -> list[Scenario]:
    """The end of a build: one month of four again."""
    put_back(folder / "changed", place)
    step = Step("building", str(place), {"symbols": "BTCUSDT", "interval": _BASE}, arguments)
    return [ready(forks, "a month built again", step, folder / "before building")]


def queues(forks: Forks, folder: Path, place: Path) -> list[Scenario]:
    """The local bus: made and published to, then consumed. The folder for what was told is there already: to make it
    would make the name of the bus durable too."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "told").mkdir(parents=True)
    published = ready(forks, "messages published", Step("queueing", str(place)), folder / "without a bus")
    return [published, ready(forks, "messages consumed", Step("consuming", str(place)), folder / "with messages")]


def live(forks: Forks, folder: Path, place: Path) -> list[Scenario]:
    """The live path: bars through the spool to the bus, into the raw zone, files put together, and given up."""
    forms: tuple[tuple[str, str, Callable[[str], None]], ...] = (
        ("bars collected", "collecting", lambda home: None),
        ("messages landed", "streaming", flows.send),
        ("files put together", "compacting", flows.scatter),
        ("history takes over", "retiring", flows.land_history),
    )
    found = []
    for name, path, prepare in forms:
        shutil.rmtree(place, ignore_errors=True)
        # As in `queues`: to make these folders would make other names durable too.
        for part in ("told", "shown"):
            (place / part).mkdir(parents=True)
        prepare(str(place))
        found.append(ready(forks, name, Step(path, str(place), flows.SETTINGS), folder / name))
    return found


def publishings(forks: Forks, folder: Path, place: Path) -> list[Scenario]:
    """Publishing: everything for the first time; months that changed, with what they supersede removed at once; bars
    that the warehouse does not have yet."""
    found = []
    for name, snapshot in (("first publish", "unpublished"), ("months that changed", "built")):
        put_back(folder / snapshot, place)
        # No grace: nobody reads from here while it is published, and so the removals are among the points.
        step = Step("publishing", str(place), {"interval": _BASE, "serving_grace": 0})
        found.append(ready(forks, name, step, folder / name))
    put_back(folder / "changed", place)
    return [*found, ready(forks, "newest bars shown", Step("showing", str(place)), folder / "newest bars shown")]
