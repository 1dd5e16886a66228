"""Appending streamed bars to `crypto_raw.klines_stream` by the Storage Write API: readable once it is acknowledged.

The default stream delivers at least once; staging takes each bar once. (`tabledata.insertAll` would do the same for
twice the price, and without the free 2 TiB a month.)
"""

import os
import time
from types import TracebackType
from typing import Self

import grpc
import pyarrow as pa
from google.api_core.exceptions import (
    GoogleAPICallError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    from_grpc_status,
)
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport

from ingestion.klines import KLINE_SCHEMA
from warehouse.bigquery.client import RAW, STORAGE_EMULATOR, explained

_TIMEOUT = 30.0
# With doubled waits in between: what lasts longer than eight seconds is for whoever starts the run again.
_ATTEMPTS = 5
_FIRST_WAIT = 0.5
_HOPELESS = (InvalidArgument, NotFound, PermissionDenied, Unauthenticated)
# A request may have 10 MB; a row has 250 bytes at most.
_ROWS = 20_000
# Arrow's decimals must have the digits of NUMERIC.
_NUMERIC = pa.decimal128(38, 9)
_SCHEMA = pa.schema(
    [pa.field(field.name, _NUMERIC if pa.types.is_decimal(field.type) else field.type) for field in KLINE_SCHEMA]
)


class Appender:
    """A call for each append, on one channel. (The client's own long-lived stream saves a round trip, and waits for
    minutes where nobody answers.) Not for several threads."""

    def __init__(self, project: str) -> None:
        self._stream = f"projects/{project}/datasets/{RAW}/tables/klines_stream/streams/_default"
        host = os.environ.get(STORAGE_EMULATOR)
        with explained(f"table {RAW}.klines_stream"):
            if host is None:
                self._client = BigQueryWriteClient()
            else:
                transport = BigQueryWriteGrpcTransport(channel=grpc.insecure_channel(host))
                self._client = BigQueryWriteClient(transport=transport)

    def append(self, rows: pa.Table) -> None:
        """Append rows in KLINE_SCHEMA; returns when they can be read. Raises WarehouseUnavailable."""
        schema = types.ArrowSchema(serialized_schema=_SCHEMA.serialize().to_pybytes())
        for batch in rows.cast(_SCHEMA).combine_chunks().to_batches(max_chunksize=_ROWS):
            content = types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
            told = types.AppendRowsRequest.ArrowData(writer_schema=schema, rows=content)
            with explained(f"table {RAW}.klines_stream"):
                self._send(types.AppendRowsRequest(write_stream=self._stream, arrow_rows=told))

    def _send(self, request: types.AppendRowsRequest) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                self._call(request)
            except _HOPELESS:
                raise
            except GoogleAPICallError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_FIRST_WAIT * 2**attempt)
            else:
                return

    def _call(self, request: types.AppendRowsRequest) -> None:
        place = (("x-goog-request-params", f"write_stream={self._stream}"),)
        answers = self._client.append_rows(iter([request]), retry=None, timeout=_TIMEOUT, metadata=place)
        for answer in answers:
            if answer.error.code:
                raise from_grpc_status(answer.error.code, answer.error.message)

    def close(self) -> None:
        self._client.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
