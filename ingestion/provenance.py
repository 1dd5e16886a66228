"""Where the rows of a raw file came from, kept in the file itself."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from ingestion.grid import Window

MONTHLY = "archive_monthly"
DAILY = "archive_daily"
REST = "rest"
STREAM = "stream"
# The kinds of sources, the most trusted first.
SOURCES = (MONTHLY, DAILY, REST, STREAM)


@dataclass(frozen=True)
class SourceFile:
    """One answer of the exchange, a file or a run of REST pages, that went into a raw file.

    It speaks for `[start, end)`: a bar that it does not have there is one that the source does not have. `rows` are
    those that it gave; `duplicates`, `conflicts` and `broken` count the ones that were dropped, see `ParsedKlines`.
    """

    source: str
    url: str
    sha256: str
    rows: int
    bytes: int
    fetched_at: datetime
    start: datetime
    end: datetime
    duplicates: int = 0
    conflicts: int = 0
    broken: int = 0

    @property
    def window(self) -> Window:
        return Window(self.start, self.end)

    def touches(self, other: "SourceFile") -> bool:
        """Whether nothing lies between this answer and another one of the same address."""
        return self.url == other.url and self.start <= other.end and other.start <= self.end

    def joined(self, later: "SourceFile") -> "SourceFile":
        """Two answers as one, so that a month asked for every few minutes does not remember each time. The checksum
        is that of the two checksums."""
        return replace(
            self,
            sha256=hashlib.sha256(f"{self.sha256}{later.sha256}".encode()).hexdigest(),
            fetched_at=max(self.fetched_at, later.fetched_at),
            start=min(self.start, later.start),
            end=max(self.end, later.end),
            **{name: getattr(self, name) + getattr(later, name) for name in _COUNTS},
        )


_COUNTS = ("rows", "bytes", "duplicates", "conflicts", "broken")


@dataclass(frozen=True)
class Provenance:
    """Where the rows of one raw file came from, until when they are complete, and what was odd about them.

    `sources` are the kinds of sources that rows came from. `covered_until` is the end of what the sources spoke of.
    `holes` are the windows before it, and after the series' first bar, in which bars of the grid are missing.
    `replaced` are archive files that later ones under the same address stand for. `off_grid` counts rows that open off
    the grid.
    """

    files: tuple[SourceFile, ...]
    rows: int
    sources: tuple[str, ...]
    covered_until: datetime
    holes: tuple[Window, ...] = ()
    replaced: tuple[SourceFile, ...] = ()
    off_grid: int = 0

    def spoke(self, source: str) -> list[Window]:
        """The windows for which a kind of source was asked and answered."""
        return [file.window for file in self.files if file.source == source]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), default=datetime.isoformat).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Provenance":
        raw = json.loads(text)
        for name in ("files", "replaced"):
            raw[name] = tuple(SourceFile(**file | _instants(file, "fetched_at", "start", "end")) for file in raw[name])
        raw["sources"] = tuple(raw["sources"])
        raw["holes"] = tuple(Window(*map(datetime.fromisoformat, hole)) for hole in raw["holes"])
        return cls(**raw | _instants(raw, "covered_until"))


def _instants(raw: dict[str, str], *names: str) -> dict[str, datetime]:
    return {name: datetime.fromisoformat(raw[name]) for name in names}
