"""The raw zone: where landed klines lie, how they get there whole, and where each came from.

Only this module knows the layout. Any fsspec URL may be the root:

    klines/history/symbol=S/interval=I/YYYY-MM.parquet      one immutable file per series and month, replaced whole
    klines/differences/symbol=S/interval=I/YYYY-MM.parquet  where sources disagreed about bars of that month
    klines/first_bars/symbol=S/interval=I.json              when the exchange's first bar of a series opened
    symbols/<fetched at>.parquet                            what the exchange traded, each time that it changed
    quarantine/<name>, quarantine/<name>.reason.json        a refused file, or refused rows, and why
    environment.json                                        what fed this zone: the real exchange, or which simulation

Bars that came by stream lie beside these, see `stream_zone`. How a file gets there whole is said in `store`.
"""

import json
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.errors import ConfigurationError
from ingestion.klines import DECIMAL_COLUMNS, INSTANT, KLINE_SCHEMA, Month, Series
from ingestion.provenance import Provenance
from ingestion.store import Store

_METADATA_KEY = b"klinehouse"
_REASON = ".reason.json"
HISTORY = "klines/history"
_DIFFERENCES = "klines/differences"

# One row per field of a bar about which two sources disagree; the values are the sources' own decimals or instants as
# text. Where one of the two has no such bar the field is `bar`, and the value of the one that lacks it is NULL.
DIFFERENCE_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("interval", pa.string(), nullable=False),
        pa.field("open_time", INSTANT, nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("kept_source", pa.string()),
        pa.field("kept_value", pa.string()),
        pa.field("other_source", pa.string(), nullable=False),
        pa.field("other_value", pa.string()),
        pa.field("found_at", INSTANT, nullable=False),
    ]
)

REAL = "exchange"
SIMULATED = "simulated"


@dataclass(frozen=True, order=True)
class HistoryFile:
    """One landed month of a series, the path DuckDB or BigQuery reads it by, its size, and what tells its versions
    apart."""

    series: Series
    month: Month
    path: str
    bytes: int
    version: str


@dataclass(frozen=True)
class LandedMonth:
    """What one landed file holds, read from its footer alone."""

    provenance: Provenance
    first_open_time: datetime | None
    last_close_time: datetime | None


@dataclass(frozen=True)
class Environment:
    """What feeds a raw zone: the real exchange, or one particular simulation of it."""

    source_environment: str
    simulation: str | None = None

    @classmethod
    def of(cls, simulation: str | None) -> "Environment":
        return cls(SIMULATED if simulation else REAL, simulation)

    def __str__(self) -> str:
        return f"the simulated exchange ({self.simulation})" if self.simulation else "the real exchange"


class RawZone(Store):
    """Reads and writes the raw zone under one root. Safe to share between threads and processes."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._claimed: Environment | None = None
        self._claiming = threading.Lock()

    # --- history -----------------------------------------------------------------------------------------------

    def write_history(self, series: Series, month: Month, rows: pa.Table, provenance: Provenance) -> int:
        """Replace one month of a series, whole and atomically. Returns the size in bytes."""
        content = _history_content(rows, provenance)
        self._write(self._history_path(series, month), content)
        return int(content.size)

    def create_history(self, series: Series, month: Month, rows: pa.Table, provenance: Provenance) -> bool:
        """Write a month that has not landed. False when it has meanwhile, by whomever: that one stays."""
        created = self._create(self._history_path(series, month), _history_content(rows, provenance))
        # It may also be ours: the answer to the first request may have been lost, and the request made again.
        return created or self.provenance(series, month) == provenance

    def read_history(self, series: Series, month: Month) -> pa.Table:
        """The rows of one landed month, in the schema of the raw zone."""
        return self._read(self._history_path(series, month), KLINE_SCHEMA)

    def read_landed(self, series: Series, month: Month) -> tuple[pa.Table, Provenance] | None:
        """Rows and origin of one landed month, of one and the same version of its file; None when it has not landed."""
        path = self._history_path(series, month)
        try:
            with self._opened(path) as file:
                parquet = pq.ParquetFile(file)
                rows = parquet.read().cast(KLINE_SCHEMA)
                return rows, _origin(parquet.metadata, self._address(path))
        except FileNotFoundError:
            return None

    def _read(self, path: str, schema: pa.Schema | None) -> pa.Table:
        with self._opened(path) as file:
            return pq.read_table(file, schema=schema)

    def provenance(self, series: Series, month: Month) -> Provenance | None:
        """Where a month came from; None when it has not landed."""
        path = self._history_path(series, month)
        try:
            return _origin(self._footer(path), self._address(path))
        except FileNotFoundError:
            return None

    def describe(self, file: HistoryFile) -> LandedMonth:
        """Provenance and extent of one landed file."""
        path = self._history_path(file.series, file.month)
        footer = self._footer(path)
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        opens, closes = (KLINE_SCHEMA.get_field_index(name) for name in ("open_time", "close_time"))
        return LandedMonth(
            _origin(footer, self._address(path)),
            min((group.column(opens).statistics.min for group in groups if group.num_rows), default=None),
            max((group.column(closes).statistics.max for group in groups if group.num_rows), default=None),
        )

    def history_files(
        self, interval: str | None = None, symbols: Sequence[str] = (), months: Iterable[Month] | None = None
    ) -> list[HistoryFile]:
        """Landed months, ordered by series and month; of all symbols, intervals and months where none is named."""
        return self._month_files(HISTORY, interval, symbols, months)

    def history_of(self, series: Sequence[Series], months: Sequence[Month], *, covering: datetime) -> list[str]:
        """The paths, for DuckDB or BigQuery, of the landed ones of `months` that speak of `covering` or later. Found by
        name: with hundreds of symbols, listing takes longer."""
        wanted = [(one, month) for one in series for month in months]
        found = self.each(lambda one: self.provenance(*one), wanted)
        return [
            self._address(self._history_path(*one))
            for one, landed in zip(wanted, found, strict=True)
            if landed is not None and landed.covered_until > covering
        ]

    def _month_files(
        self, folder: str, interval: str | None, symbols: Sequence[str], months: Iterable[Month] | None
    ) -> list[HistoryFile]:
        wanted = None if months is None else set(months)
        found = []
        for symbol in symbols or ("*",):
            pattern = f"{folder}/symbol={symbol}/interval={interval or '*'}/*.parquet"
            for path, details in self._listed(pattern).items():
                series, month = month_file(path)
                if wanted is None or month in wanted:
                    size = int(details["size"])
                    found.append(HistoryFile(series, month, self._address(path), size, _version(details)))
        return sorted(found)

    def series(self) -> list[Series]:
        """The series that have landed."""
        return sorted({file.series for file in self.history_files()})

    def _history_path(self, series: Series, month: Month) -> str:
        return f"{self._root}/{HISTORY}/symbol={series.symbol}/interval={series.interval}/{month}.parquet"

    # --- what sources disagreed about ----------------------------------------------------------------------------

    def add_differences(self, series: Series, month: Month, found: pa.Table) -> None:
        """Keep differences (in DIFFERENCE_SCHEMA) beside those that are known; one that is known is not kept twice."""
        known = self.read_differences(series, month)
        keys = [name for name in DIFFERENCE_SCHEMA.names if name != "found_at"]
        every = pa.concat_tables([known, found.cast(DIFFERENCE_SCHEMA)])
        first = every.group_by(keys, use_threads=False).aggregate([("found_at", "min")])
        rows = first.rename_columns([*keys, "found_at"]).select(DIFFERENCE_SCHEMA.names).sort_by("open_time")
        path = self._differences_path(series, month)
        if rows.num_rows == known.num_rows:
            if found.num_rows:
                self._settle(path)
            return
        sink = pa.BufferOutputStream()
        pq.write_table(rows.cast(DIFFERENCE_SCHEMA), sink, compression="zstd")
        self._write(path, sink.getvalue())

    def read_differences(self, series: Series, month: Month) -> pa.Table:
        """What sources disagreed about in one month, in DIFFERENCE_SCHEMA; empty when they never did."""
        try:
            return self._read(self._differences_path(series, month), DIFFERENCE_SCHEMA)
        except FileNotFoundError:
            return DIFFERENCE_SCHEMA.empty_table()

    def difference_files(self, interval: str | None = None, months: Iterable[Month] | None = None) -> list[HistoryFile]:
        """The files of differences, ordered by series and month."""
        return self._month_files(_DIFFERENCES, interval, (), months)

    def _differences_path(self, series: Series, month: Month) -> str:
        return f"{self._root}/{_DIFFERENCES}/symbol={series.symbol}/interval={series.interval}/{month}.parquet"

    # --- when series began ---------------------------------------------------------------------------------------

    def first_open_time(self, series: Series) -> datetime | None:
        """When the first bar of a series opened, if the exchange was asked."""
        try:
            return datetime.fromisoformat(json.loads(self._content(self._first_bar_path(series)))["first_open_time"])
        except FileNotFoundError:
            return None

    def write_first_open_time(self, series: Series, first: datetime) -> None:
        """Keep what the exchange answered."""
        note = {"first_open_time": first.isoformat(), "asked_at": datetime.now(UTC).isoformat()}
        self._write(self._first_bar_path(series), json.dumps(note).encode())

    def _first_bar_path(self, series: Series) -> str:
        return f"{self._root}/klines/first_bars/symbol={series.symbol}/interval={series.interval}.json"

    # --- symbols -------------------------------------------------------------------------------------------------

    def write_symbols(self, rows: pa.Table) -> None:
        """Keep what the exchange trades, beside what it traded before."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        fetched_at = rows["fetched_at"][0].as_py()
        self._write(f"{self._root}/symbols/{fetched_at:%Y-%m-%dT%H%M%S%fZ}.parquet", sink.getvalue())

    def symbol_files(self) -> list[str]:
        """The paths of all that is kept about symbols, oldest first."""
        return [self._address(path) for path in sorted(self._listed("symbols/*.parquet"))]

    def all_symbols(self) -> list[pa.Table]:
        """What the exchange traded each time that it changed, oldest first."""
        return self.each(lambda path: self._read(path, None), sorted(self._listed("symbols/*.parquet")))

    def latest_symbols(self) -> pa.Table | None:
        """What the exchange traded when it was last asked; None before that."""
        found = sorted(self._listed("symbols/*.parquet"))
        if not found:
            return None
        with self._opened(found[-1]) as file:
            return pq.read_table(file)

    # --- quarantine --------------------------------------------------------------------------------------------

    def quarantine(self, name: str, content: bytes, note: Mapping[str, object]) -> str:
        """Keep what was refused with the reason beside it. Returns its path. `note` has at least url and reason."""
        path = f"{self._root}/quarantine/{name}"
        self._write(path, content)
        kept = {**note, "name": name, "bytes": len(content), "refused_at": datetime.now(UTC).isoformat()}
        self._write(f"{path}{_REASON}", json.dumps(kept, indent=1).encode())
        return self._address(path)

    def quarantined(self) -> list[dict[str, Any]]:
        """The notes of everything refused: name, url, reason, bytes, refused_at and what else was known."""
        notes = self.each(self._note, sorted(self._listed(f"quarantine/*{_REASON}")))
        return [note for note in notes if note is not None]

    def quarantined_names(self) -> set[str]:
        """The names of everything in quarantine."""
        return {path.rsplit("/", 1)[-1].removesuffix(_REASON) for path in self._listed("quarantine/*")}

    def quarantine_note(self, name: str) -> dict[str, Any] | None:
        """The note of one refused file; None when it is not in quarantine."""
        return self._note(f"{self._root}/quarantine/{name}{_REASON}")

    def _note(self, path: str) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads(self._content(path))
        except FileNotFoundError:  # never there, or released meanwhile
            return None
        return note

    def release_file(self, name: str) -> None:
        """Drop one refused file, because what its source has now is what has landed."""
        for path in (f"{self._root}/quarantine/{name}", f"{self._root}/quarantine/{name}{_REASON}"):
            self._remove(path)

    def release(self, series: Series, period: str) -> None:
        """Drop what is in quarantine for a month (`2024-07`, its days too) or a day, because it has landed since."""
        prefix = refused_prefix(series, period)
        for name in self.quarantined_names():
            if name.startswith(prefix):
                self.release_file(name)

    # --- environment -------------------------------------------------------------------------------------------

    def environment(self) -> Environment | None:
        """What has fed this zone so far; None while it is empty."""
        try:
            return Environment(**json.loads(self._content(f"{self._root}/environment.json")))
        except FileNotFoundError:
            return None

    def claim(self, environment: Environment) -> None:
        """Bind this zone to what feeds it, once; raises ConfigurationError when it is bound to something else."""
        with self._claiming:
            if self._claimed != environment:
                self._bind(environment)

    def _bind(self, environment: Environment) -> None:
        owner = self.environment()
        if owner is None:
            # Where another process was first, that one owns it.
            self._create(f"{self._root}/environment.json", json.dumps(asdict(environment)).encode())
            owner = self.environment()
        if owner != environment:
            raise ConfigurationError(
                f"{self._address(self._root)} holds data of {owner}, and the settings lead to {environment}.",
                "The two never mix: look at KLINEHOUSE_ARCHIVE_URL and KLINEHOUSE_REST_URL, or set KLINEHOUSE_HOME to "
                "another folder.",
            )
        self._claimed = environment

    # --- writing -----------------------------------------------------------------------------------------------

    def probe_writable(self) -> None:
        """Write and remove a small file; raises OSError, or what `Store` says, when the zone cannot be written."""
        path = f"{self._root}/.probe-{uuid.uuid4().hex}"
        self._write(path, b"")
        self._remove(path)


def _history_content(rows: pa.Table, provenance: Provenance) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    # Dictionaries of prices cost twice the time and 60 % more space; byte stream split of decimals is smaller still,
    # but DuckDB 2.0 cannot read it.
    pq.write_table(
        rows.cast(KLINE_SCHEMA).replace_schema_metadata({_METADATA_KEY: provenance.to_json()}),
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=["symbol", "interval", "source", "ingested_at"],
        # Nobody looks for prices by their extent, and finding it takes a seventh of the time.
        write_statistics=["open_time", "close_time"],
        column_encoding=dict.fromkeys(DECIMAL_COLUMNS, "PLAIN")
        | dict.fromkeys(("open_time", "close_time", "trades"), "DELTA_BINARY_PACKED"),
    )
    return sink.getvalue()


def month_file(path: str) -> tuple[Series, Month]:
    """The series and month of a file of history, by its path; raises ValueError or UsageError when it is no such."""
    *_, symbol_part, interval_part, name = path.split("/")
    month = Month.parse(name.removesuffix(".parquet"))
    return Series(symbol_part.partition("=")[2], interval_part.partition("=")[2]), month


def refused_prefix(series: Series, period: str) -> str:
    """How the names begin of what is refused of a month, its days too, or of a day: as the archive names its files."""
    return f"{series.symbol}-{series.interval.replace('M', 'mo')}-{period}"


def _origin(footer: pq.FileMetaData, path: str) -> Provenance:
    try:
        return Provenance.from_json((footer.metadata or {})[_METADATA_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} does not say where its rows came from, or an earlier version of Klinehouse wrote it.",
            "Delete it; `klinehouse land` lands that month again.",
        ) from error


def _version(details: Mapping[str, Any]) -> str:
    """What a listing tells of a file's version: an object's generation or etag, or size and time of change (each store
    has its own names for them)."""
    if "generation" in details:
        return str(details["generation"])
    told = [details[name] for name in ("etag", "ETag", "mtime", "created", "LastModified") if details.get(name)]
    return "-".join(map(str, (details["size"], *told)))
