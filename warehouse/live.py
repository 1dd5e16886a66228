"""The warehouse as the streaming run writes it: bars that have just closed, computed and published in one go.

Opening the file, and writing what changed back to it on closing, would cost more than computing a handful of bars. So
it stays open, and locked, from batch to batch, and is given away as soon as somebody else waits for it.
"""

import duckdb
from filelock import BaseFileLock

from ingestion.microbatch import Stretch
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings
from warehouse import dbt, raw_source, serving
from warehouse.build import build
from warehouse.dbt import Window
from warehouse.engine import acquire, is_wanted, open_warehouse
from warehouse.serving import Published, ServedFile


class LiveWarehouse:
    """One writer, in one process, that keeps the warehouse while nobody else wants it. Not for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._zone = settings, RawZone(settings.raw_root)
        self._lock: BaseFileLock | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._served: list[ServedFile] = []

    def apply(self, stretch: Stretch) -> Published:
        """Compute the bars of a stretch, and what remembers them, and publish. Running it again changes nothing.

        Raises WarehouseBusy, and BuildFailed when dbt fails.
        """
        connection = self._taken()
        if not self._served or not _is_built(connection):
            return self._begin(stretch)
        window = Window(*stretch.window)
        raw_source.prepare_live(connection, self._zone, self._settings.interval, stretch)
        dbt.run(self._settings, dbt.live_args(window, self._settings.interval))
        published, self._served = serving.publish_bars(self._settings, connection, self._served)
        return published

    def give_way(self) -> None:
        """Give the warehouse away if somebody waits for it; `apply` takes it again."""
        if self._lock is not None and is_wanted(self._settings):
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.release()
        self._lock = self._connection = None
        self._served = []

    def _taken(self) -> duckdb.DuckDBPyConnection:
        if self._lock is None:
            self._lock = acquire(self._settings)
            self._served = serving.served_files(self._settings)
        if self._connection is None:
            self._connection = open_warehouse(self._settings)
        return self._connection

    def _begin(self, stretch: Stretch) -> Published:
        """The first bars of a home: all tables come into being, empty ones too."""
        self.close()
        build(self._settings, Window.around(*stretch.window))
        return serving.publish(self._settings)


def _is_built(connection: duckdb.DuckDBPyConnection) -> bool:
    found = connection.execute(
        "select count(*) from duckdb_tables() where schema_name = 'crypto_analytics' and table_name = ?",
        [serving.BARS],
    ).fetchone()
    return found is not None and found[0] > 0
