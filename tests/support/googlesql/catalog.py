"""The tables, types and functions that GoogleSQL is told of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from googlesql.service import Service
from zetasql.wasi._pb2.zetasql.proto import simple_catalog_pb2
from zetasql.wasi._pb2.zetasql.public import function_pb2, type_pb2

KINDS = {
    "STRING": type_pb2.TYPE_STRING,
    "BYTES": type_pb2.TYPE_BYTES,
    "INT64": type_pb2.TYPE_INT64,
    "FLOAT64": type_pb2.TYPE_DOUBLE,
    "BOOL": type_pb2.TYPE_BOOL,
    "NUMERIC": type_pb2.TYPE_NUMERIC,
    "BIGNUMERIC": type_pb2.TYPE_BIGNUMERIC,
    "TIMESTAMP": type_pb2.TYPE_TIMESTAMP,
    "DATETIME": type_pb2.TYPE_DATETIME,
    "DATE": type_pb2.TYPE_DATE,
    "TIME": type_pb2.TYPE_TIME,
    "JSON": type_pb2.TYPE_JSON,
    "INTERVAL": type_pb2.TYPE_INTERVAL,
}
_NAMES = {kind: name for name, kind in KINDS.items()}
# Names of BigQuery's API for what its SQL calls otherwise.
_API_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
# Other words for INT64 that BigQuery's SQL knows. (DECIMAL and BOOLEAN the analyzer knows itself.)
_INTEGERS = ("INT", "SMALLINT", "INTEGER", "BIGINT", "TINYINT", "BYTEINT")

Type = type_pb2.TypeProto
Path = tuple[str, ...]
Columns = Sequence[tuple[str, Type]]


def type_of(field: Mapping[str, Any]) -> Type:
    """The type of a column as BigQuery's API describes it."""
    found = Type()
    if field.get("mode") == "REPEATED":
        found.type_kind = type_pb2.TYPE_ARRAY
        found.array_type.element_type.CopyFrom(type_of({**field, "mode": "NULLABLE"}))
        return found
    name = _API_NAMES.get(field["type"], field["type"])
    if name == "STRUCT":
        found.type_kind = type_pb2.TYPE_STRUCT
        for member in field["fields"]:
            found.struct_type.field.add(field_name=member["name"], field_type=type_of(member))
    else:
        found.type_kind = KINDS[name]
    return found


def type_named(name: str) -> Type:
    """The type of a query parameter, such as STRING or ARRAY<STRING>."""
    element = name.removeprefix("ARRAY<").removesuffix(">")
    return type_of({"type": element, "mode": "NULLABLE" if element == name else "REPEATED"})


def name_of(found: Type) -> str:
    """A type as SQL writes it."""
    if found.type_kind == type_pb2.TYPE_ARRAY:
        return f"ARRAY<{name_of(found.array_type.element_type)}>"
    if found.type_kind == type_pb2.TYPE_STRUCT:
        members = (f"{member.field_name} {name_of(member.field_type)}".strip() for member in found.struct_type.field)
        return f"STRUCT<{', '.join(members)}>"
    return _NAMES[found.type_kind]


def catalog(
    service: Service, tables: Mapping[Path, Columns], variables: Mapping[str, Type] | None = None
) -> simple_catalog_pb2.SimpleCatalogProto:
    """BigQuery's functions and types, these tables, and a script's variables."""
    found = simple_catalog_pb2.SimpleCatalogProto(name="root")
    found.builtin_function_options.language_options.CopyFrom(service.language)
    for name in _INTEGERS:
        found.named_type.add(name=name).type.type_kind = type_pb2.TYPE_INT64
    for name in ("max_by", "min_by"):
        _add_choice(found, name)
    for name, kind in (variables or {}).items():
        found.constant.add(name_path=[name], type=kind)
    for path, columns in _by_every_name(tables).items():
        _add_table(found, path, columns)
    return found


def _add_choice(found: simple_catalog_pb2.SimpleCatalogProto, name: str) -> None:
    """An aggregate `name(value, key)` of the value's type, which BigQuery has and GoogleSQL's own library has not."""
    function = found.custom_function.add(name_path=[name], group="BigQuery", mode=function_pb2.FunctionEnums.AGGREGATE)
    signature = function.signature.add()
    signature.return_type.kind = function_pb2.ARG_TYPE_ANY_1
    signature.return_type.num_occurrences = 1
    for kind in (function_pb2.ARG_TYPE_ANY_1, function_pb2.ARG_TYPE_ANY_2):
        signature.argument.add(kind=kind, num_occurrences=1)


def _by_every_name(tables: Mapping[Path, Columns]) -> dict[Path, Columns]:
    """Tables by all that BigQuery takes for their name: without the project, and any parts in common backquotes."""
    return {
        tuple(".".join(part) for part in grouping): columns
        for path, columns in tables.items()
        for named in {path, path[1:] or path}
        for grouping in _groupings(named)
    }


def _groupings(path: Path) -> Iterator[list[Path]]:
    if not path:
        yield []
    for length in range(1, len(path) + 1):
        for rest in _groupings(path[length:]):
            yield [path[:length], *rest]


def _add_table(found: Any, path: Path, columns: Iterable[tuple[str, Type]]) -> None:
    for part in path[:-1]:
        found = next((each for each in found.catalog if each.name == part), None) or found.catalog.add(name=part)
    table = found.table.add(name=path[-1])
    for name, kind in columns:
        table.column.add(name=name, type=kind)
