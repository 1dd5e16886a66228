"""Appending streamed bars to `crypto_raw.klines_stream` by the Storage Write API: readable once it is acknowledged.

The default stream delivers at least once; staging takes each bar once. (`tabledata.insertAll` would do the same for
twice the price, and without the free 2 TiB a month.)
"""

import os
from types import TracebackType
from typing import Self

import grpc  # type: ignore[import-untyped]
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.cloud.bigquery_storage_v1.writer import AppendRowsStream

from ingestion.klines import KLINE_SCHEMA
from warehouse.bigquery.client import RAW, STORAGE_EMULATOR, explained

_TIMEOUT = 30.0
_ATTEMPTS = 4
# Arrow's decimals must have the digits of NUMERIC.
_NUMERIC = pa.decimal128(38, 9)
_SCHEMA = pa.schema(
    [pa.field(field.name, _NUMERIC if pa.types.is_decimal(field.type) else field.type) for field in KLINE_SCHEMA]
)


class Appender:
    """One open stream, opened anew after an error. Not for several threads."""

    def __init__(self, project: str) -> None:
        self._table = f"projects/{project}/datasets/{RAW}/tables/klines_stream"
        host = os.environ.get(STORAGE_EMULATOR)
        with explained(f"table {RAW}.klines_stream"):
            if host is None:
                self._client = BigQueryWriteClient()  # type: ignore[no-untyped-call]
            else:
                transport = BigQueryWriteGrpcTransport(channel=grpc.insecure_channel(host))
                self._client = BigQueryWriteClient(transport=transport)  # type: ignore[no-untyped-call]
        self._stream: AppendRowsStream | None = None

    def append(self, rows: pa.Table) -> None:
        """Append rows in KLINE_SCHEMA; returns when they can be read. Raises WarehouseUnavailable."""
        if not rows.num_rows:
            return
        (batch,) = rows.cast(_SCHEMA).combine_chunks().to_batches()
        request = types.AppendRowsRequest(
            arrow_rows=types.AppendRowsRequest.ArrowData(
                rows=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            )
        )
        with explained(f"table {RAW}.klines_stream"):
            for attempt in range(_ATTEMPTS):
                try:
                    self._open().send(request).result(timeout=_TIMEOUT)  # type: ignore[no-untyped-call]
                except (GoogleAPICallError, TimeoutError, OSError):
                    self.close_stream()
                    if attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return

    def _open(self) -> AppendRowsStream:
        if self._stream is None:
            schema = types.ArrowSchema(serialized_schema=_SCHEMA.serialize().to_pybytes())
            template = types.AppendRowsRequest(
                write_stream=f"{self._table}/streams/_default",
                arrow_rows=types.AppendRowsRequest.ArrowData(writer_schema=schema),
            )
            self._stream = AppendRowsStream(self._client, template)
        return self._stream

    def close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        self.close_stream()
        self._client.transport.close()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
