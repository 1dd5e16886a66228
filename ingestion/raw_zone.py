"""The raw zone: where landed klines lie, how they get there whole, and where each came from.

Only this module knows the layout. Any fsspec URL may be the root:

    klines/history/symbol=S/interval=I/YYYY-MM.parquet   one immutable file per series and month, replaced whole
    quarantine/<name>, quarantine/<name>.reason.json     a refused file and why
    environment.json                                     what fed this zone: the real exchange, or which simulation

On a local disk a file is written under a hidden name, made durable (fsync), renamed, and its folder made durable, so a
kill or a power cut leaves the old file or the new one. An object store makes a whole object visible at once by itself.
"""

import glob
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ingestion.errors import ConfigurationError
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA, Month, Series

_METADATA_KEY = b"klinehouse"
_HISTORY = "klines/history"
REAL = "exchange"
SIMULATED = "simulated"


@dataclass(frozen=True)
class SourceFile:
    """One file of the exchange that went into a raw file."""

    url: str
    sha256: str
    rows: int
    bytes: int
    fetched_at: datetime


@dataclass(frozen=True)
class Provenance:
    """Where the rows of one raw file came from, and until when they are complete.

    `covered_until` is the end of what the sources spoke of: the month's end for a monthly file, the end of the last
    day for daily ones. Bars missing before it were missing at the source.
    """

    source: str
    files: tuple[SourceFile, ...]
    rows: int
    covered_until: datetime

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), default=datetime.isoformat).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Provenance":
        raw = json.loads(text)
        files = tuple(SourceFile(**f | {"fetched_at": datetime.fromisoformat(f["fetched_at"])}) for f in raw["files"])
        return cls(raw["source"], files, raw["rows"], datetime.fromisoformat(raw["covered_until"]))


@dataclass(frozen=True, order=True)
class HistoryFile:
    """One landed month of a series and the path DuckDB or BigQuery reads it by."""

    series: Series
    month: Month
    path: str


@dataclass(frozen=True)
class LandedMonth:
    """What one landed file holds, read from its footer alone."""

    provenance: Provenance
    bytes: int
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


class RawZone:
    """Reads and writes the raw zone under one root. Safe to share between threads and processes."""

    def __init__(self, root: str) -> None:
        # Listings are asked for again each time: other processes land files too.
        self._fs, self._root = fsspec.core.url_to_fs(root, use_listings_cache=False)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._claimed: Environment | None = None

    @property
    def root(self) -> str:
        return str(self._root)

    # --- history -----------------------------------------------------------------------------------------------

    def write_history(self, series: Series, month: Month, rows: pa.Table, provenance: Provenance) -> int:
        """Replace one month of a series, whole and atomically. Returns the size in bytes."""
        schema = KLINE_SCHEMA.with_metadata({_METADATA_KEY: provenance.to_json()})
        sink = pa.BufferOutputStream()
        # Dictionaries of prices cost twice the time and 60 % more space; byte stream split of decimals is smaller
        # still, but DuckDB 2.0 cannot read it.
        pq.write_table(
            rows.cast(schema),
            sink,
            compression="zstd",
            compression_level=1,
            use_dictionary=["symbol", "interval", "source", "ingested_at"],
            column_encoding=dict.fromkeys(DECIMAL_COLUMNS, "PLAIN")
            | dict.fromkeys(("open_time", "close_time", "trades"), "DELTA_BINARY_PACKED"),
        )
        content = sink.getvalue()
        self._write(self._history_path(series, month), content)
        return int(content.size)

    def read_history(self, series: Series, month: Month) -> pa.Table:
        """The rows of one landed month, in the schema of the raw zone."""
        with self._fs.open(self._history_path(series, month), "rb") as file:
            return pq.read_table(file, schema=KLINE_SCHEMA)

    def provenance(self, series: Series, month: Month) -> Provenance | None:
        """Where a month came from; None when it has not landed."""
        try:
            with self._fs.open(self._history_path(series, month), "rb") as file:
                metadata = pq.read_schema(file).metadata
        except FileNotFoundError:
            return None
        return Provenance.from_json(metadata[_METADATA_KEY])

    def describe(self, file: HistoryFile) -> LandedMonth:
        """Provenance, size and extent of one landed file."""
        path = self._history_path(file.series, file.month)
        with self._fs.open(path, "rb") as opened:
            parquet = pq.ParquetFile(opened)
            metadata = parquet.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            opens, closes = (KLINE_SCHEMA.get_field_index(name) for name in ("open_time", "close_time"))
            return LandedMonth(
                Provenance.from_json(metadata.metadata[_METADATA_KEY]),
                int(self._fs.size(path)),
                min((group.column(opens).statistics.min for group in groups if group.num_rows), default=None),
                max((group.column(closes).statistics.max for group in groups if group.num_rows), default=None),
            )

    def history_files(
        self, interval: str | None = None, symbols: Sequence[str] = (), months: Iterable[Month] | None = None
    ) -> list[HistoryFile]:
        """Landed months, ordered by series and month; of all symbols, intervals and months where none is named."""
        wanted = None if months is None else set(months)
        found = []
        for symbol in symbols or ("*",):
            for path in self._glob(f"{_HISTORY}/symbol={symbol}/interval={interval or '*'}/*.parquet"):
                *_, symbol_part, interval_part, name = path.split("/")
                month = Month.parse(name.removesuffix(".parquet"))
                if wanted is None or month in wanted:
                    series = Series(symbol_part.partition("=")[2], interval_part.partition("=")[2])
                    found.append(
                        HistoryFile(series, month, self._fs.unstrip_protocol(path) if not self._local else path)
                    )
        return sorted(found)

    def series(self) -> list[Series]:
        """The series that have landed."""
        return sorted({file.series for file in self.history_files()})

    def _glob(self, pattern: str) -> list[str]:
        return [str(path) for path in self._fs.glob(f"{glob.escape(self.root)}/{pattern}")]

    def _history_path(self, series: Series, month: Month) -> str:
        return f"{self._root}/{_HISTORY}/symbol={series.symbol}/interval={series.interval}/{month}.parquet"

    # --- quarantine --------------------------------------------------------------------------------------------

    def quarantine(self, url: str, content: bytes, reason: str) -> str:
        """Keep a refused file with the reason beside it, under its own name. Returns its path."""
        path = f"{self._root}/quarantine/{url.rsplit('/', 1)[-1]}"
        self._write(path, content)
        note = {"url": url, "reason": reason, "bytes": len(content), "refused_at": datetime.now(UTC).isoformat()}
        self._write(f"{path}.reason.json", json.dumps(note, indent=1).encode())
        return path

    def quarantined(self) -> list[dict[str, object]]:
        """The notes of all refused files: url, reason, bytes, refused_at."""
        notes = sorted(self._glob("quarantine/*.reason.json"))
        return [json.loads(self._fs.cat_file(note)) for note in notes]

    def release(self, series: Series, period: str) -> None:
        """Drop what is in quarantine for a month (`2024-07`, its days too) or a day, because it has landed since."""
        interval = series.interval.replace("M", "mo")
        for path in self._glob(f"quarantine/{series.symbol}-{interval}-{period}*"):
            self._fs.rm_file(path)

    # --- environment -------------------------------------------------------------------------------------------

    def environment(self) -> Environment | None:
        """What has fed this zone so far; None while it is empty."""
        try:
            return Environment(**json.loads(self._fs.cat_file(f"{self._root}/environment.json")))
        except FileNotFoundError:
            return None

    def claim(self, environment: Environment) -> None:
        """Bind this zone to what feeds it, once; raises ConfigurationError when it is bound to something else."""
        if self._claimed == environment:
            return
        owner = self.environment()
        if owner is None:
            with suppress(FileExistsError):  # another process was first, on an object store
                self._write(
                    f"{self._root}/environment.json", json.dumps(asdict(environment)).encode(), keep_existing=True
                )
            owner = self.environment()
        if owner != environment:
            raise ConfigurationError(
                f"{self._root} holds data of {owner}, and KLINEHOUSE_ARCHIVE_URL leads to {environment}.",
                "The two never mix: set KLINEHOUSE_HOME to another folder, or remove this one.",
            )
        self._claimed = environment

    # --- writing -----------------------------------------------------------------------------------------------

    def probe_writable(self) -> None:
        """Write and remove a small file; raises OSError when the zone cannot be written."""
        path = f"{self._root}/.probe-{uuid.uuid4().hex}"
        self._write(path, b"")
        self._fs.rm_file(path)

    def _write(self, path: str, content: bytes | pa.Buffer, *, keep_existing: bool = False) -> None:
        if self._local:
            write_durably(Path(path), content, keep_existing=keep_existing)
        else:
            self._fs.pipe_file(path, bytes(content), mode="create" if keep_existing else "overwrite")


def write_durably(path: Path, content: bytes | pa.Buffer, *, keep_existing: bool = False) -> None:
    """Write a local file so that a kill or a power cut at any instant leaves the old content or the new.

    With `keep_existing` a file that is already there wins, whoever else is writing at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_existing:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
        else:
            temporary.rename(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
