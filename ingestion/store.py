"""Files under one root, a local folder or any fsspec URL: each is there whole and durably, or not at all.

On a local disk a file is written under a hidden name, made durable (fsync), renamed, and its folder made durable, so a
kill or a power cut leaves the old file or the new one. An object store makes a whole object visible at once by itself.
"""

import glob
import os
import uuid
from contextlib import suppress
from pathlib import Path

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem


class Store:
    """Reads and writes under one root. Safe to share between threads and processes."""

    def __init__(self, root: str) -> None:
        # Listings are asked for again each time: other processes write files too.
        self.root_url = root
        self._fs, self._root = fsspec.core.url_to_fs(root, use_listings_cache=False)
        self._local = isinstance(self._fs, LocalFileSystem)

    @property
    def root(self) -> str:
        """The root as its own file system names it."""
        return str(self._root)

    def _glob(self, pattern: str) -> list[str]:
        return [str(path) for path in self._fs.glob(f"{glob.escape(self.root)}/{pattern}")]

    def _address(self, path: str) -> str:
        """What DuckDB or BigQuery reads a file by."""
        return path if self._local else str(self._fs.unstrip_protocol(path))

    def _write(self, path: str, content: bytes | pa.Buffer, *, keep_existing: bool = False) -> None:
        if self._local:
            write_durably(Path(path), content, keep_existing=keep_existing)
        else:
            self._fs.pipe_file(path, bytes(content), mode="create" if keep_existing else "overwrite")

    def _settle(self, path: str) -> None:
        """Make the name of a file durable that is there: who was killed while writing it may not have come to that."""
        if self._local:
            sync_folder(Path(path).parent)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):  # another process was first
            self._fs.rm_file(path)


def write_durably(path: Path, content: bytes | pa.Buffer, *, keep_existing: bool = False) -> None:
    """Write a local file so that a kill or a power cut at any instant leaves the old content or the new.

    With `keep_existing` a file that is already there wins, whoever else is writing at the same time.
    """
    make_folder(path.parent)
    # Half of the digits: a name has 255 bytes, of which one in quarantine may need 231.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_existing:
            with suppress(FileExistsError):
                os.link(temporary, path)
        else:
            temporary.rename(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, durably: each is a name in the one above."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
