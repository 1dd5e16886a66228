"""Landing: three symbols x 2020-2025 from an archive on loopback, checksums verified, decimals lossless.

`wall_s, cpu_s, peak_rss_mb` are of the whole command `klinehouse land` at 5m, measured from outside; `repeat_*` of the
same command once more, which asks for the checksum of every landed file; `latency_wall_s` with an archive that lets
50 ms pass before every answer; `minute_*` at 1m, and `minute_wall_ratio` is that time per row by the one at 5m.
`bare_*` is the least that it can be, a script of one page (`benchmarks/bare.py`), and `*_vs_bare` are ours by its. The
archive runs in the benchmark's own process, from files that were made before. With --archive-url another archive is
asked, at one interval.

What bounds it: parsing text to decimals and writing Parquet, about half of the CPU time, then fetching, hashing and
inflating; the archive's own work shares the two cores. Tried: blocks of 256 KB for the CSV reader (a quarter less than
1 MB), integers instead of decimals with the point taken out (no gain, and the point has to be checked), no statistics
for prices, urllib3 for httpx2 (less than half per request), no pandas (pyarrow imports it for scalars, half a second).
A repeat is bound by starting Python and one checksum request per landed file.
"""

import argparse
import json
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext

from benchmarks.measuring import END, START, SYMBOLS, Cost, klinehouse, measured, options, ready_archive, report

LATENCY = 0.05


def history(interval: str = "5m", archive_url: str | None = None) -> dict[str, object]:
    first, again = _landed(nullcontext(archive_url) if archive_url else ready_archive(interval), interval)
    figures: dict[str, object] = {
        "rows": _sum(first, "rows"),
        "files": _sum(first, "downloads"),
        "wall_s": first.wall_s,
        "cpu_s": first.cpu_s,
        "peak_rss_mb": first.peak_rss_mb,
        "repeat_wall_s": again.wall_s,
        "repeat_downloads": _sum(again, "downloads"),
    }
    return figures if archive_url else figures | _against_bare(interval, first) | _harder(interval, first)


def _against_bare(interval: str, ours: Cost) -> dict[str, object]:
    with ready_archive(interval) as address, tempfile.TemporaryDirectory() as folder:
        bare = measured([sys.executable, "-m", "benchmarks.bare", address, interval, folder], {})
    return {
        "bare_wall_s": bare.wall_s,
        "bare_cpu_s": bare.cpu_s,
        "wall_vs_bare": round(ours.wall_s / bare.wall_s, 2),
        "cpu_vs_bare": round(ours.cpu_s / bare.cpu_s, 2),
    }


def _harder(interval: str, easy: Cost) -> dict[str, object]:
    slow, _ = _landed(ready_archive(interval, LATENCY), interval)
    minutes, _ = _landed(ready_archive("1m"), "1m")
    per_row = easy.wall_s / _sum(easy, "rows")
    return {
        "latency_wall_s": slow.wall_s,
        "minute_rows": _sum(minutes, "rows"),
        "minute_wall_s": minutes.wall_s,
        "minute_peak_rss_mb": minutes.peak_rss_mb,
        "minute_wall_ratio": round(minutes.wall_s / _sum(minutes, "rows") / per_row, 2),
    }


def _landed(archive: AbstractContextManager[str], interval: str) -> tuple[Cost, Cost]:
    """Six years landed in an empty home, and once more."""
    with archive as address, tempfile.TemporaryDirectory() as home:
        settings = {"KLINEHOUSE_HOME": home, "KLINEHOUSE_ARCHIVE_URL": address}
        arguments = ("land", "--json", "--symbols", ",".join(SYMBOLS), "--interval", interval)
        command = klinehouse(*arguments, "--start", START.isoformat(), "--end", END.isoformat())
        return measured(command, settings), measured(command, settings)


def _sum(cost: Cost, name: str) -> int:
    return sum(series[name] for series in json.loads(cost.stdout)["series"])


def main() -> None:
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--interval", default="5m")
    parser.add_argument("--archive-url", help="another archive than the simulated one")
    chosen = parser.parse_args()
    report("Landing", history(chosen.interval, chosen.archive_url), chosen)


if __name__ == "__main__":
    main()
