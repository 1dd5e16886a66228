"""What a power cut may take, told from the order of the calls of an undisturbed run.

A file's content is durable after an fsync of the file, a name after an fsync of its folder. A kill never shows that one
is missing, and of two real file systems neither shows all of it, so it is read off the calls.
"""

from collections.abc import Iterable
from pathlib import Path

from faults.tracer import Call

_WRITES = {"write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "truncate", "fallocate", "sendfile"}
_SYNCS = {"fsync", "fdatasync"}


def violations(calls: Iterable[Call], home: Path) -> list[str]:
    """Each place where a power cut could show what must not be seen, or take what had been acknowledged:

    - a name is given to a file whose content is not durable;
    - anything takes its name while a log of SQLite, which has been answered from, is not durable;
    - the view file takes its name, or the warehouse is told that something is published, while a name in `serving/` is
      not durable yet;
    - the run ends, which acknowledges everything, while a name or a content is not durable.

    Hidden files are nobody's yet, and DuckDB looks after its own file, whose name appears once.
    """
    disk = _Disk(home)
    for call in calls:
        disk.see(call)
    disk.end()
    return disk.found


class _Disk:
    def __init__(self, home: Path) -> None:
        self.found: list[str] = []
        self._warehouse, self._serving = home / "warehouse", home / "serving"
        self._dirty: set[Path] = set()
        self._names: set[Path] = set()

    def see(self, call: Call) -> None:
        path = Path(call.path)
        if path.is_relative_to(self._warehouse):
            if call.name in _WRITES:
                self._require_durable_serving(f"{call.name} to {path.name}")
        elif call.name in _WRITES:
            self._dirty.add(path)
        elif call.name in _SYNCS:
            self._dirty.discard(path)
            self._names = {name for name in self._names if name.parent != path}
        elif call.name == "mkdir":
            self._names.add(path)
        elif call.name in ("rename", "link") and call.target:
            self._give_name(path, Path(call.target), moves=call.name == "rename")
        elif call.name == "unlink":
            self._dirty.discard(path)
            self._names.discard(path)

    def _give_name(self, source: Path, target: Path, *, moves: bool) -> None:
        if source in self._dirty:
            self.found.append(f"{target.name} takes its name before its content is durable")
        logs = [one.name for one in self._dirty if one.name.endswith("-wal")]
        self.found += [f"{target.name} takes its name before what {log} promised is durable" for log in logs]
        if target.suffix == ".duckdb":
            self._require_durable_serving(f"the rename to {target.name}")
        self._names.add(target)
        if moves:
            self._dirty.discard(source)

    def _require_durable_serving(self, what: str) -> None:
        waiting = [name for name in self._names if name.is_relative_to(self._serving)]
        self.found += [f"{what} comes before the name {name} is durable" for name in sorted(waiting)]

    def end(self) -> None:
        self.found += [f"the name {name} is not durable at the end" for name in sorted(self._names)]
        visible = [path for path in self._dirty if not path.name.startswith(".")]
        self.found += [f"the content of {path} is not durable at the end" for path in sorted(visible)]
