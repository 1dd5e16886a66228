"""Recordings of the real exchange, served as they are: archive files, and bodies of klines and of exchangeInfo.

A folder holds one or more of `data/spot/...` (or `archive/data/spot/...`), `rest/SYMBOL/INTERVAL/*.json.gz` and
`exchange_info/*.json.gz`. A face without recordings is that of an exchange which has no such file or symbol.
"""

import functools
import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ingestion.errors import UsageError
from ingestion.simulator.archive import Files
from ingestion.simulator.exchange_info import Entry, symbol_entry
from ingestion.simulator.market import micros
from ingestion.simulator.parameters import KlinesQuery
from ingestion.simulator.rest import NO_ROWS, Rows, Source


def recordings(folder: Path) -> tuple[Files, Source]:
    """Both faces of a folder; UsageError when it holds no recordings at all."""
    root = next((path for path in (folder, folder / "archive") if (path / "data").is_dir()), None)
    if root is None and not (folder / "rest").is_dir() and not (folder / "exchange_info").is_dir():
        raise UsageError(
            f"{folder} has no folder data/, archive/data/, rest/ or exchange_info/.",
            "Give the folder above data/spot, or above rest/SYMBOL/INTERVAL.",
        )
    return folder_files(root) if root else _no_files, RecordedSource(folder)


def folder_files(root: Path) -> Files:
    """Real files from a folder in the archive's own layout, `root/data/spot/...`."""
    root = root.resolve()

    def read(path: str) -> bytes | None:
        try:
            file = (root / path).resolve()
            return file.read_bytes() if file.is_relative_to(root) and file.is_file() else None
        except (OSError, ValueError):  # a name that no file can have
            return None

    return read


def _no_files(path: str) -> bytes | None:
    return None


class RecordedSource:
    """Bodies that the real exchange gave. Nothing tells how a bar looked while it was open: only closed ones are shown.

    A series is read when it is first asked for, and kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = {path.name: path for path in sorted((folder / "rest").glob("*")) if path.is_dir()}
        self._info = folder / "exchange_info"
        self._load = functools.cache(self._read)

    @functools.cached_property
    def _symbols(self) -> dict[str, Entry]:
        """The newest exchangeInfo (by file name), and the symbols that only have klines."""
        files = sorted(self._info.glob("*.json*"))
        listed = _body(files[-1])["symbols"] if files else []
        return {symbol: symbol_entry(symbol, "TRADING") for symbol in self._folders} | {
            entry["symbol"]: entry for entry in listed
        }

    def symbols(self, now: datetime) -> list[Entry]:
        return list(self._symbols.values())

    def knows(self, symbol: str, now: datetime) -> bool:
        return symbol in self._symbols

    def rows(self, query: KlinesQuery, now: datetime) -> Rows:
        rows = self._load(query.symbol, query.interval)
        shown = int(np.searchsorted(rows.close_time, micros(now)))
        begin = int(np.searchsorted(rows.open_time, query.start or 0))
        end = shown if query.end is None else min(shown, int(np.searchsorted(rows.open_time, query.end, "right")))
        if query.newest:
            begin = max(begin, end - query.limit)
        return rows.part(begin, max(min(end, begin + query.limit), begin))

    def _read(self, symbol: str, interval: str) -> Rows:
        files = sorted((self._folders[symbol] / interval).glob("*.json*")) if symbol in self._folders else []
        klines = sorted((kline for file in files for kline in _body(file)), key=lambda kline: kline[0])
        if not klines:
            return NO_ROWS
        before, after = (pa.array([_text(kline[a:b]) for kline in klines]) for a, b in ((1, 6), (7, 12)))
        open_time, close_time = (np.array([kline[place] for kline in klines]) * 1000 for place in (0, 6))
        return Rows(open_time, close_time + 999, before, after)


def _text(values: list[Any]) -> str:
    """The values as they stand within a JSON array."""
    return json.dumps(values, separators=(",", ":"))[1:-1]


def _body(file: Path) -> Any:
    content = file.read_bytes()
    return json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
