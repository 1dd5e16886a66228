"""Files under one root, a local folder or any fsspec URL: each is there whole and durably, or not at all.

On a local disk a file is written under a hidden name, made durable (fsync), renamed, and its folder made durable, so a
kill or a power cut leaves the old file or the new one. An object store makes a whole object visible at once by itself,
and creates one only where there is none if that is asked for (on Google's by `ifGenerationMatch=0`).

Each request to an object store takes some 50 ms. So a file is read in one, which also makes it one version that is
read, whoever replaces it meanwhile; and what many files say is asked for many at a time.
"""

import glob
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

_GOOGLE = ("gs://", "gcs://")
# Longer than the footer of nearly every file; a longer one takes a second request.
_FOOTER = 1 << 16
_AT_A_TIME = 16

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


class Store:
    """Reads and writes under one root. Safe to share between threads and processes.

    Raises ConfigurationError where a permission, a bucket or credentials are missing, StorageUnavailable where an
    object store does not serve, and OSError where a disk does not.
    """

    def __init__(self, root: str) -> None:
        self.root_url = root
        self._on_google = root.startswith(_GOOGLE)
        with self._asking("list"):
            # Listings are asked for again each time: other processes write files too.
            self._fs, path = fsspec.core.url_to_fs(root, use_listings_cache=False, **self._options())
        self._root = str(path).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def _options(self) -> dict[str, Any]:
        if not self._on_google:
            return {}
        from ingestion.google_storage import options

        return options()

    @property
    def root(self) -> str:
        """The root as its own file system names it."""
        return self._root

    @property
    def is_local(self) -> bool:
        return self._local

    @property
    def protocol(self) -> str:
        """What addresses begin with, up to `://`."""
        return str(self._fs.unstrip_protocol("")).partition(":")[0]

    def content_at(self, address: str) -> bytes:
        """All of a file, by the address that DuckDB or BigQuery reads it by."""
        return self._content(str(self._fs._strip_protocol(address)))

    def each(self, look: Callable[[_Item], _Found], items: Iterable[_Item]) -> list[_Found]:
        """What `look` finds in each item, in their order; several at a time where a look is a request."""
        if self._local:
            return [look(item) for item in items]
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="store") as pool:
            return list(pool.map(look, items))

    def _listed(self, pattern: str) -> dict[str, dict[str, Any]]:
        """The files whose path under the root matches, and what the listing says of each."""
        with self._asking("list"):
            found: dict[str, dict[str, Any]] = self._fs.glob(f"{glob.escape(self._root)}/{pattern}", detail=True)
        return found

    def _address(self, path: str) -> str:
        """What DuckDB or BigQuery reads a file by."""
        return path if self._local else str(self._fs.unstrip_protocol(path))

    def _content(self, path: str) -> bytes:
        """All of a file; raises FileNotFoundError."""
        with self._asking("get"):
            return bytes(self._fs.cat_file(path))

    def _opened(self, path: str) -> Any:
        """A file to read, of which nothing changes any more; raises FileNotFoundError."""
        return self._fs.open(path, "rb") if self._local else pa.BufferReader(self._content(path))

    def _footer(self, path: str) -> pq.FileMetaData:
        """The footer of a Parquet file, read without the rest; raises FileNotFoundError."""
        if self._local:
            with self._opened(path) as file:
                return pq.read_metadata(file)
        with self._asking("get"):
            tail = self._fs.cat_file(path, start=-_FOOTER)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        return pq.read_metadata(pa.BufferReader(tail if length <= len(tail) else self._content(path)))

    def _write(self, path: str, content: bytes | pa.Buffer) -> None:
        """Write a file, in the place of the one that is there."""
        if self._local:
            write_durably(Path(path), content)
            return
        with self._asking("create"):
            self._fs.pipe_file(path, bytes(content))

    def _create(self, path: str, content: bytes | pa.Buffer) -> bool:
        """Write a file if there is none; False when there is, whoever else is writing at the same time. Also then it
        is durable."""
        if self._local:
            return write_durably(Path(path), content, keep_existing=True)
        try:
            with self._asking("create"):
                self._fs.pipe_file(path, bytes(content), mode="create")
        except FileExistsError:
            return False
        return True

    def _settle(self, path: str) -> None:
        """Make the name of a file durable that is there: who was killed while writing it may not have come to that."""
        if self._local:
            sync_folder(Path(path).parent)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError), self._asking("delete"):  # another process was first
            self._fs.rm_file(path)

    @contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        """Around a request to the store: its errors become ours."""
        if not self._on_google:
            yield
            return
        from ingestion.google_storage import explained

        with explained(f"storage.objects.{verb}", self.root_url):
            yield


def write_durably(path: Path, content: bytes | pa.Buffer, *, keep_existing: bool = False) -> bool:
    """Write a local file so that a kill or a power cut at any instant leaves the old content or the new.

    With `keep_existing` a file that is already there wins, whoever else is writing at the same time; False then.
    """
    make_folder(path.parent)
    # Half of the digits: a name has 255 bytes, of which one in quarantine may need 231.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        is_written = True
        if keep_existing:
            try:
                os.link(temporary, path)
            except FileExistsError:
                is_written = False
        else:
            temporary.rename(path)
        sync_folder(path.parent)
        return is_written
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
