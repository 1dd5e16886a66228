"""Bars flow from the spool over the bus into the raw zone, while both ends are killed at random instants."""

from pathlib import Path

from support.streamed import numbered, rows_of

from faults.forks import Forks
from faults.paths import Step
from faults.traffic import SETTINGS, digest, interruptions, landed
from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, MICROBATCH
from ingestion.microbatch import to_rows

BARS, KILLS = 20_000, 20


def test_what_has_landed_equals_an_undisturbed_run_whoever_is_killed(forks: Forks, folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    source = Step("source", str(home), SETTINGS, {"count": BARS})
    sink = Step("sink", str(home), SETTINGS)
    killed, failures = forks.traffic(source, sink, BARS, KILLS, seed=20)
    assert failures == []
    assert killed == {"sink": KILLS, "source": KILLS // 4}
    settings = sink.load()
    with LocalBus(settings.bus_path) as bus:
        assert (bus.backlog(MICROBATCH).messages, bus.backlog(DEAD_LETTERS_SUBSCRIPTION).messages) == (0, 0)
    assert landed(settings) == digest(rows_of([to_rows(numbered(BARS))]).values())
    assert interruptions(home) > 0
