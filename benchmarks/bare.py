"""The least that landing an archive can be: what a script of one page would do, to measure landing against.

Each month's zip and checksum fetched by two threads, the hash compared, the CSV parsed to lossless decimals, Parquet
written. No plan, no check of rows, no provenance, nothing made durable, no repeat, no repair.
"""

import argparse
import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import urllib3
from pyarrow import csv

from benchmarks.measuring import END, START, SYMBOLS
from ingestion.binance.archive import monthly_path
from ingestion.klines import Series, months_between

_PRICE, _TIME = pa.decimal128(28, 8), pa.int64()
_TYPES = {
    "open_time": _TIME,
    **dict.fromkeys(("open", "high", "low", "close", "volume"), _PRICE),
    "close_time": _TIME,
    "quote_volume": _PRICE,
    "trades": pa.int64(),
    **dict.fromkeys(("taker_buy_base_volume", "taker_buy_quote_volume"), _PRICE),
}


def land(address: str, interval: str, folder: Path) -> None:
    """Raises ValueError where a checksum is wrong."""
    pool = urllib3.PoolManager()
    paths = [
        monthly_path(Series(symbol, interval), month) for symbol in SYMBOLS for month in months_between(START, END)
    ]

    def one(path: str) -> None:
        answer = pool.request("GET", f"{address}/{path}")
        if answer.status == 404:  # before its listing
            return
        checksum = pool.request("GET", f"{address}/{path}.CHECKSUM").data
        if hashlib.sha256(answer.data).hexdigest().encode() != checksum.split()[0]:
            raise ValueError(path)
        with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
            text = archive.read(archive.namelist()[0])
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=[*_TYPES, "ignore"], use_threads=False),
            convert_options=csv.ConvertOptions(column_types=_TYPES, include_columns=list(_TYPES)),
        )
        pq.write_table(table, folder / f"{Path(path).stem}.parquet", compression="zstd")

    with ThreadPoolExecutor(2) as workers:
        list(workers.map(one, paths))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("address", "interval", "folder"):
        parser.add_argument(name)
    chosen = parser.parse_args()
    land(chosen.address, chosen.interval, Path(chosen.folder))
