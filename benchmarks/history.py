"""Landing: three symbols x 2020-2025 from an archive on loopback, checksums verified, decimals lossless.

`wall_s, cpu_s, peak_rss_mb` are of the whole command `klinehouse land`, measured from outside; `repeat_*` of the same
command once more. The archive runs in the benchmark's own process, from files that were made before.
"""

import argparse
import json
import tempfile
from contextlib import nullcontext

from benchmarks.measuring import END, START, SYMBOLS, Cost, klinehouse, measured, options, ready_archive, report


def history(interval: str, archive_url: str | None) -> dict[str, object]:
    archive = nullcontext(archive_url) if archive_url else ready_archive(interval)
    with archive as address, tempfile.TemporaryDirectory() as home:
        settings = {"KLINEHOUSE_HOME": home, "KLINEHOUSE_ARCHIVE_URL": str(address)}
        arguments = ("land", "--json", "--symbols", ",".join(SYMBOLS), "--interval", interval)
        command = klinehouse(*arguments, "--start", START.isoformat(), "--end", END.isoformat())
        first, again = measured(command, settings), measured(command, settings)
    return {
        "rows": _sum(first, "rows"),
        "files": _sum(first, "downloads"),
        "wall_s": first.wall_s,
        "cpu_s": first.cpu_s,
        "peak_rss_mb": first.peak_rss_mb,
        "repeat_wall_s": again.wall_s,
        "repeat_downloads": _sum(again, "downloads"),
    }


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
