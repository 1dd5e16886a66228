"""The live path as steps that can be killed and run again, and what the home shows of its bars.

Collecting: closed bars go through the spool to the bus, two batches of them, each noted in `told/` when it is kept.
Streaming: micro-batches of the bus land in the raw zone, become visible, and are acknowledged then; one message is no
kline and becomes a dead letter. Compacting: the files of a day are put together. Retiring: history takes over a day.
Run again, each goes on with what is left.
"""

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import pyarrow as pa
import pyarrow.dataset  # reading a first file would import it, in each child
import pyarrow.parquet as pq
from support.homes import put, random_walk
from support.streamed import messages, rows_of

from faults.queues import TOPOLOGY_AT_ONCE, Held, State
from ingestion import microbatch
from ingestion.bus.local import LocalBus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, Message
from ingestion.collector.metrics import Metrics
from ingestion.collector.publisher import Publisher
from ingestion.collector.sequence import following
from ingestion.collector.spool import Spool
from ingestion.klines import KLINE_SCHEMA, Month, Series
from ingestion.messages import KlineMessage, NoKline, decode, encode
from ingestion.microbatch import stretches, to_rows
from ingestion.provenance import MONTHLY
from ingestion.raw_zone import RawZone
from ingestion.retirement import retire
from ingestion.settings import Settings, load_settings
from ingestion.store import write_durably
from ingestion.stream_zone import StreamZone, one_row_per_bar
from warehouse import streaming
from warehouse.live_port import Applied

SYMBOLS = ("BTCUSDT", "ETHUSDT")
SETTINGS = {"symbols": ",".join(SYMBOLS), "interval": "15m"}
# Messages of a micro-batch, and bars that the collector keeps together: two of either.
_BATCH, _KEPT = 7, 6


def _bars() -> list[KlineMessage]:
    """Six of each symbol, three on either side of midnight, in the order in which they close."""
    start = datetime(2024, 6, 30, 23, 15, tzinfo=UTC)
    walks = [random_walk(Series(one, "15m"), start, 6, seed=seed) for seed, one in enumerate(SYMBOLS)]
    return sorted(messages(pa.concat_tables(walks)), key=lambda bar: (bar.open_time, bar.symbol))


BARS = _bars()
# The first bar is in the zone already and comes again, corrected; the second comes twice; the last is no kline.
_SENT = [*(encode(bar) for bar in (BARS[0], BARS[1], BARS[1], *BARS[2:])), Message(b'{"schema": 1}')]
_OLDER = [
    KlineMessage(**{**vars(BARS[0]), "close": BARS[0].low, "received_time": BARS[0].received_time - 1}),
]


# --- collecting --------------------------------------------------------------------------------------------------


def collect(home: str) -> None:
    """Keep the bars from the watermarks on, batch by batch, and publish what is kept."""
    spool = Spool(_spool_path(home), 1 << 20)
    with LocalBus(_bus_path(home), TOPOLOGY_AT_ONCE) as bus:
        publisher = Publisher(spool, bus, Metrics())
        publisher.stop()  # returns from `run` when nothing is left
        for number in range(0, len(BARS), _KEPT):
            bars = [bar for bar in BARS[number : number + _KEPT] if bar.open_time >= (spool.watermark(bar.series) or 0)]
            if bars:
                spool.append(bars, {bar.series: following(bar.series, bar.open_time) for bar in bars})
            write_durably(Path(home) / "told" / str(number), b"kept")
            publisher.run()
    spool.close()


def collected(home: str) -> State:
    """Bars as kept once they are on the bus or in the spool; what should be there and is not, by its name."""
    texts = [encode(bar).data.decode() for bar in BARS]
    spooled, watermarks = _spooled(home)
    held = Held.by(home)
    state = {f"bar {number}": "kept" for number, text in enumerate(texts) if text in {*spooled, *held.order}}
    for number, bar in enumerate(BARS):
        is_told = (Path(home) / "told" / str(number - number % _KEPT)).exists()
        is_settled = bar.open_time < watermarks.get(bar.series, 0)
        if f"bar {number}" in state and not is_settled:
            state[f"bar {number}"] = "kept without its watermark"
        elif f"bar {number}" not in state and (is_told or is_settled):
            state[f"bar {number}"] = "lost"
    firsts = list(dict.fromkeys([*held.order, *spooled]))
    return state | ({} if firsts == sorted(firsts, key=texts.index) else {"order": "broken"})


def left_in_spool(home: str) -> State:
    return {"left": str(len(_spooled(home)[0]))}


def _spooled(home: str) -> tuple[list[str], dict[Series, int]]:
    """The messages of the spool, and its watermarks; read from a copy, see Held.by."""
    with _copied(_spool_path(home)) as db:
        if db is None or not db.execute("select count(*) from sqlite_master where name = 'watermarks'").fetchone()[0]:
            return [], {}
        rows = db.execute("select cast(data as text) from messages order by id").fetchall()
        marks = db.execute("select * from watermarks").fetchall()
    return [text for (text,) in rows], {Series(symbol, interval): opened for symbol, interval, opened in marks}


@contextmanager
def _copied(path: Path) -> Iterator[sqlite3.Connection | None]:
    with tempfile.TemporaryDirectory(dir=path.parents[2]) as folder:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, folder)
        if not path.exists():
            yield None
            return
        with closing(sqlite3.connect(Path(folder) / path.name)) as db:
            yield db


def _spool_path(home: str) -> Path:
    return Path(home) / "bus" / "spool" / "collector.db"


def _bus_path(home: str) -> Path:
    return Path(home) / "bus" / "bus.sqlite"


# --- streaming ---------------------------------------------------------------------------------------------------


def send(home: str) -> None:
    """What a home has before it streams: the messages on the bus, and a bar that came in an earlier batch."""
    StreamZone(f"{home}/raw").write(to_rows(_OLDER))
    with LocalBus(_bus_path(home), TOPOLOGY_AT_ONCE) as bus:
        bus.publish(KLINES, _SENT)


def stream(settings: Settings) -> None:
    """Until nothing is left. Time stands still meanwhile, and what a killed run had leased is there again."""
    now = max(time.time(), Held.by(str(settings.home)).leased_until + 1)
    with (
        LocalBus(settings.bus_path, TOPOLOGY_AT_ONCE, clock=lambda: now) as bus,
        mock.patch.object(streaming, "LiveDuckDB", _Warehouse),
        mock.patch.object(microbatch, "MAX_MESSAGES", _BATCH),
        mock.patch.object(microbatch, "LINGER", 0.0),
    ):
        streaming.stream(
            settings, bus, lambda report: None, lambda: None if bus.backlog(MICROBATCH).messages else "nothing waits"
        )


class NoWarehouse:
    """In the place of the warehouse, whose dbt takes seconds."""

    def __init__(self, settings: Settings) -> None:
        self._home, self._zone = settings.home, StreamZone(settings.raw_root)

    def apply(self, rows: pa.Table) -> Applied:
        return Applied(datetime.now(UTC), is_settled=True)

    def tidy(self) -> None: ...

    def between_batches(self, *, nothing_waits: bool) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass


class _Warehouse(NoWarehouse):
    """Notes durably which bars of a stretch it found."""

    def apply(self, rows: pa.Table) -> Applied:
        for stretch in stretches(rows):
            keys = sorted(rows_of(self._zone.read(file) for file in self._zone.files(stretch.window)))
            name = f"{stretch.window.start:%Y%m%dT%H%M}-{stretch.window.end:%Y%m%dT%H%M}"
            write_durably(self._home / "shown" / name, json.dumps(keys).encode())
        return super().apply(rows)


def streamed(home: str) -> State:
    """Bars by their rows as readers would have them, and messages by what became of them."""
    held, shown = Held.by(home), set()
    for path in Path(home).glob("shown/[!.]*"):
        shown |= {tuple(key) for key in json.loads(path.read_bytes())}
    messages = {f"message {number}": _became(held, one, shown) for number, one in enumerate(_SENT)}
    return landed(home) | messages | ({"damage": held.damage} if held.damage else {})


def _became(held: Held, message: Message, shown: set[tuple[Any, ...]]) -> str:
    text = message.data.decode()
    waits, dead = held.of(MICROBATCH)[text], held.of(DEAD_LETTERS_SUBSCRIPTION)[text]
    if waits and not dead:
        return "waits"
    if waits or dead > 1:
        return f"{waits} times waiting, {dead} times dead"
    try:
        key = decode(message).key
    except NoKline:
        return "dead" if dead else "lost"
    return "shown" if key in shown and not dead else "lost"


def left_on_the_bus(home: str) -> State:
    """What waits still; and the files, whose names tell their content."""
    files = [path.name for path in _files(home, "stream")]
    return {"left": str(Held.by(home).of(MICROBATCH).total()), "files": " ".join(files)}


# --- what is in the zone -----------------------------------------------------------------------------------------


def landed(home: str) -> State:
    """Of each bar the row that staging takes, found without our own code for it; a file that is torn, or has a bar
    twice, by its name."""
    tables, state = [], {}
    for path in _files(home, "history", "stream"):
        try:
            table = pq.ParquetFile(path).read()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is torn
            state[path.name] = f"torn: {error}"
            continue
        tables.append(table)
        if len(rows_of([table])) < table.num_rows:
            state[path.name] = "a bar is there twice"
    bars = rows_of(tables)
    return state | {f"bar {symbol} {opened}": str(bar) for (symbol, _, opened), bar in bars.items()}


def _files(home: str, *folders: str) -> list[Path]:
    """The files that are there for readers."""
    found = [path for folder in folders for path in Path(home, "raw", "klines", folder).rglob("*.parquet")]
    return sorted(path for path in found if not path.name.startswith("."))


# --- compacting --------------------------------------------------------------------------------------------------


def scatter(home: str) -> None:
    """What a home has before its files are put together: one for each bar, and one more for a corrected bar."""
    zone = StreamZone(f"{home}/raw")
    for bar in [*_OLDER, *BARS[:6]]:
        zone.write(to_rows([bar]))


def compact(home: str) -> None:
    """As the streaming run does it while nothing waits."""
    zone = StreamZone(f"{home}/raw")
    files = zone.files()
    if len(files) > 1:
        zone.replace(files, one_row_per_bar(zone.read(file) for file in files))


def names_of_files(home: str) -> State:
    return {"files": " ".join(file.name for file in StreamZone(f"{home}/raw").files())}


# --- history takes over ------------------------------------------------------------------------------------------


def land_history(home: str) -> None:
    """What a home has before history takes over: two days by stream, of which history owns the first; of its bars one
    is missing there, and one is another."""
    compacted = StreamZone(f"{home}/raw")
    compacted.write(to_rows(BARS[:4]))
    compacted.write(to_rows(BARS[4:]))
    settings = load_settings(home=home, **SETTINGS)
    midnight = datetime(2024, 7, 1, tzinfo=UTC)
    for series in settings.series:
        rows = [row for row in _history(series) if row["open_time"] < midnight][:-1]
        rows[0]["close"] = rows[0]["high"]
        put(settings, series, pa.Table.from_pylist(rows, schema=KLINE_SCHEMA), covered_until=midnight)


def _history(series: Series) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = to_rows([bar for bar in BARS if bar.series == series]).to_pylist()
    return [row | {"source": MONTHLY} for row in rows]


def take_over(settings: Settings) -> None:
    retire(RawZone(settings.raw_root), StreamZone(settings.raw_root), [Month(2024, 6)])


def differences(home: str) -> State:
    """The files of the stream, and what was noted of where it disagrees with history."""
    tables = [pq.ParquetFile(path).read().drop_columns(["found_at"]) for path in _files(home, "differences")]
    return names_of_files(home) | {"differences": str([table.to_pylist() for table in tables])}
