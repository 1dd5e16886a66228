"""Four readers while versions are published without pause, months going and coming back among them."""

import json
import subprocess
import sys
import time
from pathlib import Path

from faults.kills import ALL_POINTS
from ingestion.settings import load_settings

PROGRAMS = Path(__file__).parent / "programs"
READERS, READS = 4, 10_000 if ALL_POINTS else 2_000


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAMS / program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_read_fails_and_none_is_of_two_versions(tmp_path: Path) -> None:
    home, stop = tmp_path / "home", tmp_path / "stop"
    publisher = start("version_publisher.py", home, stop)
    while not (load_settings(home=home).serving_dir / "klinehouse.duckdb").exists():
        assert publisher.poll() is None
        time.sleep(0.05)
    readers = [start("version_reader.py", home, READS // READERS) for _ in range(READERS)]
    reports = [json.loads(reader.communicate(timeout=900)[0]) for reader in readers]
    stop.touch()
    published = int(publisher.communicate(timeout=60)[0])
    assert [(report["failed"], report["mixed"]) for report in reports] == [([], [])] * READERS
    assert sum(report["reads"] for report in reports) >= READS
    # They read while versions came and went, not before or after.
    assert published >= READS / 200
    assert min(report["versions"] for report in reports) >= READS / 500
