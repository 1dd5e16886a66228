"""Queries on the reference executor, over tables that are given with them."""

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Context, Decimal
from typing import Any

from googlesql.catalog import catalog, name_of, type_of
from googlesql.service import Refused, Service
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages
from zetasql.wasi._pb2.zetasql.public import value_pb2

_SIMPLE = {"STRING": "string_value", "INT64": "int64_value", "FLOAT64": "double_value", "BOOL": "bool_value"}
_EPOCH = date(1970, 1, 1)
# NUMERIC is an integer of up to 38 digits, 9 of them after the point.
_NUMERIC = Context(prec=38)
_NUMERIC_SCALE = 9


def execute(service: Service, query: str, tables: Mapping[str, Any]) -> dict:
    """`{error, types, rows}`: the error or None; a TIMESTAMP is microseconds since 1970, DATE and NUMERIC are text."""
    request = messages.EvaluateQueryRequest(options=service.options())
    # The executor reads tables without a catalog around them only.
    for name in tables:
        query = query.replace("`" + name.replace(".", "`.`") + "`", f"`{name}`")
    request.sql = query
    described = {}
    for name, table in tables.items():
        kinds = list(table["columns"].values())
        described[(name,)] = [(column, type_of({"type": kind})) for column, kind in table["columns"].items()]
        content = request.table_content[name].table_data
        for row in table["rows"]:
            content.row.add(cell=[_to_value(value, kind) for value, kind in zip(row, kinds, strict=True)])
    request.simple_catalog.CopyFrom(catalog(service, described))
    try:
        response = service.call("EvaluateQuery", request, messages.EvaluateQueryResponse)
    except Refused as error:
        return {"error": str(error)}
    types = [name_of(column.type) for column in response.prepared.columns]
    rows = [
        [_from_value(cell, kind) for cell, kind in zip(row.cell, types, strict=True)]
        for row in response.content.table_data.row
    ]
    return {"error": None, "types": types, "rows": rows}


def _to_value(value: Any, kind: str) -> value_pb2.ValueProto:
    found = value_pb2.ValueProto()
    if value is None:
        return found
    match kind:
        case "TIMESTAMP":
            found.timestamp_value.FromMicroseconds(value)
        case "DATE":
            found.date_value = (date.fromisoformat(value) - _EPOCH).days
        case "NUMERIC":
            scaled = int(Decimal(value).scaleb(_NUMERIC_SCALE, _NUMERIC))
            found.numeric_value = scaled.to_bytes(scaled.bit_length() // 8 + 1, "little", signed=True)
        case _:
            setattr(found, _SIMPLE[kind], value)
    return found


def _from_value(found: value_pb2.ValueProto, kind: str) -> Any:
    if found.WhichOneof("value") is None:
        return None
    match kind:
        case "TIMESTAMP":
            return found.timestamp_value.ToMicroseconds()
        case "DATE":
            return (_EPOCH + timedelta(days=found.date_value)).isoformat()
        case "NUMERIC":
            return str(
                Decimal(int.from_bytes(found.numeric_value, "little", signed=True)).scaleb(-_NUMERIC_SCALE, _NUMERIC)
            )
        case _ if kind in _SIMPLE:
            return getattr(found, _SIMPLE[kind])
    raise ValueError(f"Results of type {kind} are not read here.")
