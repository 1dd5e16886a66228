"""The tracer sees every call that changes files, in any thread, and a kill falls before exactly that call."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults.durability import violations
from faults.forks import Forks
from faults.tracer import Call

# Run in a process of its own: a tracer wants one thread, and pytest has several.
_PROGRAM = """
import json, os, sys, threading
from dataclasses import asdict
from pathlib import Path
from faults.tracer import traced

folder, point = Path(sys.argv[1]), int(sys.argv[2]) or None

def write(name):
    with (folder / name).open("wb") as file:
        file.write(b"content")

def work():
    (folder / "made").mkdir()
    other = threading.Thread(target=write, args=("by a thread",))
    other.start()
    other.join()
    (folder / "made").rename(folder / "moved")
    (folder / "made").exists()
    (folder / "by a thread").read_bytes()
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.link("by a thread", "linked", src_dir_fd=descriptor, dst_dir_fd=descriptor)
    try:
        (folder / "moved").mkdir()
    except FileExistsError:
        pass
    (folder.parent / "outside").write_bytes(b"content")
    (folder / "by a thread").unlink()

print(json.dumps(asdict(traced(work, folder, point))))
"""
_CALLS = [
    ("mkdir", "made", None),
    ("open", "by a thread", None),
    ("write", "by a thread", None),
    ("rename", "made", "moved"),
    ("fsync", ".", None),
    ("link", "by a thread", "linked"),
    ("unlink", "by a thread", None),
]


def traced(folder: Path, point: int) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    tests = str(Path(__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), str(point)],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": tests},
    )
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


@pytest.fixture(autouse=True)
def possible(forks: Forks) -> None:
    """Skipped where nothing can be traced."""


def test_it_sees_the_calls_that_change_the_folder_and_succeed_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    seen = [
        (call["name"], *(path and str(Path(path).relative_to(folder)) for path in (call["path"], call["target"])))
        for call in traced(folder, 0)["calls"]
    ]
    assert seen == _CALLS


@pytest.mark.parametrize("point", range(1, len(_CALLS) + 1))
def test_a_kill_falls_before_its_call(tmp_path: Path, point: int) -> None:
    folder = tmp_path / "watched"
    run = traced(folder, point)
    assert run["failure"] is None
    assert [call["name"] for call in run["calls"]] == [name for name, _, _ in _CALLS[: point - 1]]
    there = {1: [], 2: ["made"], 3: ["by a thread", "made"], 4: ["by a thread", "made"], 5: ["by a thread", "moved"]}
    assert sorted(path.name for path in folder.iterdir()) == there.get(
        point, ["by a thread", *(["linked"] if point == 7 else []), "moved"]
    )
    assert (folder / "by a thread").exists() == (point > 2)
    if point > 2:
        assert (folder / "by a thread").read_bytes() == (b"" if point == 3 else b"content")


def test_a_failure_is_told(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    assert "FileExistsError" in traced(tmp_path, 0)["failure"]


# --- the rules of durability, on calls made up here ------------------------------------------------------------

HOME = Path("/home")
_FILE = [Call("open", "/home/raw/.a"), Call("write", "/home/raw/.a")]
_RENAME = Call("rename", "/home/raw/.a", "/home/raw/a")
_SYNC, _SYNC_FOLDER = Call("fsync", "/home/raw/.a"), Call("fsync", "/home/raw")
_PART, _VIEWS = "/home/serving/part.parquet", "/home/serving/klinehouse.duckdb"


@pytest.mark.parametrize(
    ("calls", "wrong"),
    [
        ([*_FILE, _SYNC, _RENAME, _SYNC_FOLDER], []),
        ([*_FILE, _RENAME, _SYNC_FOLDER], ["a takes its name before its content is durable"]),
        ([*_FILE, _SYNC, *_FILE, _RENAME, _SYNC_FOLDER], ["a takes its name before its content is durable"]),
        ([*_FILE, _SYNC, _RENAME], ["the name /home/raw/a is not durable at the end"]),
        ([*_FILE, _SYNC, _SYNC_FOLDER, _RENAME], ["the name /home/raw/a is not durable at the end"]),
        ([Call("mkdir", "/home/raw/new")], ["the name /home/raw/new is not durable at the end"]),
        ([Call("mkdir", "/home/raw/new"), _SYNC_FOLDER], []),
        ([Call("write", "/home/raw/a")], ["the content of /home/raw/a is not durable at the end"]),
        (
            [
                Call("rename", "/home/serving/.x", _PART),
                Call("rename", "/home/serving/.y", _VIEWS),
                Call("fsync", "/home/serving"),
            ],
            [f"the rename to klinehouse.duckdb comes before the name {_PART} is durable"],
        ),
        (
            [
                Call("rename", "/home/serving/.y", _VIEWS),
                Call("write", "/home/warehouse/klinehouse.duckdb.wal"),
                Call("fsync", "/home/serving"),
            ],
            [f"write to klinehouse.duckdb.wal comes before the name {_VIEWS} is durable"],
        ),
    ],
)
def test_what_a_power_cut_could_take_is_found(calls: list[Call], wrong: list[str]) -> None:
    assert violations(calls, HOME) == wrong
