"""Where the rows of a raw file came from, kept in the file itself."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from ingestion.grid import Window


@dataclass(frozen=True)
class SourceFile:
    """One answer of the exchange, a file or a run of REST pages, that went into a raw file.

    It speaks for `[start, end)`: a bar that it does not have there is one that the source does not have.
    """

    source: str
    url: str
    sha256: str
    rows: int
    bytes: int
    fetched_at: datetime
    start: datetime
    end: datetime

    @property
    def window(self) -> Window:
        return Window(self.start, self.end)


@dataclass(frozen=True)
class Provenance:
    """Where the rows of one raw file came from, until when they are complete, and what was odd about them.

    `sources` are the kinds of sources that rows came from. `covered_until` is the end of what the sources spoke of.
    `holes` are the windows before it, and after the series' first bar, in which bars of the grid are missing.
    `replaced` are answers that later ones under the same address stand for; `duplicates`, `conflicts`, `broken` and
    `off_grid` count rows.
    """

    files: tuple[SourceFile, ...]
    rows: int
    sources: tuple[str, ...]
    covered_until: datetime
    holes: tuple[Window, ...] = ()
    replaced: tuple[SourceFile, ...] = ()
    duplicates: int = 0
    conflicts: int = 0
    broken: int = 0
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
