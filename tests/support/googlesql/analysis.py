"""Analysis of statements and scripts, one after the other over tables that they may add to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from googlesql.catalog import Columns, Path, Type, catalog, name_of, type_named, type_of
from googlesql.scripts import Assignment, Declaration, NotCovered, parsed, statements
from googlesql.service import Refused, Service
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

Parameters = Sequence[tuple[str | None, str]]

_CREATE_WITH_COLUMNS = (
    "ResolvedCreateTableStmtProto",
    "ResolvedCreateTableAsSelectStmtProto",
    "ResolvedCreateViewStmtProto",
    "ResolvedCreateMaterializedViewStmtProto",
)


def analyze(
    service: Service, texts: Sequence[str], described: Mapping[str, Any], parameters: Sequence[Parameters] | None
) -> list[dict]:
    """For each text `{error, columns}`: what is wrong with it or None, and the columns of its last query."""
    tables = {
        tuple(name.split(".")): [(field["name"], type_of(field)) for field in fields]
        for name, fields in described.items()
    }
    declared = [None] * len(texts) if parameters is None else parameters
    return [_analyzed(_Script(service, tables, own), text) for text, own in zip(texts, declared, strict=True)]


def _analyzed(script: "_Script", text: str) -> dict:
    columns: Columns = ()
    try:
        parts = list(statements(text))
        if not parts:
            return {"error": "No statement", "columns": []}
        for part in parts:
            columns = script.take(part)
    except (Refused, NotCovered) as error:
        return {"error": str(error), "columns": []}
    return {"error": None, "columns": [(name, name_of(kind)) for name, kind in columns]}


class _Script:
    """A script as far as it has been read: its variables, and the tables of all scripts."""

    def __init__(self, service: Service, tables: dict[Path, Columns], parameters: Parameters | None) -> None:
        self._service = service
        self._tables = tables
        self._parameters = parameters
        self._variables: dict[str, Type] = {}

    def take(self, statement: str) -> Columns:
        """Analyze the next statement; the columns of its result if it is a query."""
        found = parsed(statement)
        if found is None:
            return self._sql(statement)
        try:
            self._declare(found) if isinstance(found, Declaration) else self._assign(found)
        except Refused as error:
            raise Refused(f"{error} (of: {' '.join(statement.split())})") from error
        return ()

    def _declare(self, found: Declaration) -> None:
        if found.type is None:
            kind = self._sql(f"select {found.value}")[0][1]
        else:
            kind = self._sql(f"select cast(null as {found.type})")[0][1]
            if found.value is not None:
                self._sql(f"select ({found.value})", [kind])
        self._variables |= dict.fromkeys(found.names, kind)

    def _assign(self, found: Assignment) -> None:
        """The value must become the variable's type, or a struct's fields those of several."""
        fields = f"select each.* from (select ({found.value}) as each)"
        self._sql(
            fields if found.of_struct else f"select ({found.value})", [self._variable(name) for name in found.names]
        )

    def _variable(self, name: str) -> Type:
        if name not in self._variables:
            raise Refused(f"Undeclared variable: {name}")
        return self._variables[name]

    def _sql(self, statement: str, targets: Iterable[Type] = ()) -> Columns:
        options = self._service.options()
        options.target_column_types.extend(targets)
        self._tell_parameters(options)
        request = messages.AnalyzeRequest(
            options=options,
            simple_catalog=catalog(self._service, self._tables, self._variables),
            sql_statement=statement,
        )
        node = _node(self._service.call("Analyze", request, messages.AnalyzeResponse).resolved_statement)
        if node.DESCRIPTOR.name in _CREATE_WITH_COLUMNS:
            columns = [(column.name, column.type) for column in _field(node, "column_definition_list")]
            if columns:
                self._tables[tuple(_field(node, "name_path"))] = columns
        if node.DESCRIPTOR.name == "ResolvedQueryStmtProto":
            return [(column.name, column.column.type) for column in node.output_column_list]
        return ()

    def _tell_parameters(self, options: Any) -> None:
        if self._parameters is None:
            return
        options.allow_undeclared_parameters = False
        for name, kind in self._parameters:
            if name is None:
                options.parameter_mode = 1  # positional
                options.positional_query_parameters.append(type_named(kind))
            else:
                options.query_parameters.add(name=name, type=type_named(kind))


def _node(message: Any) -> Any:
    """The message itself inside those that say of which kind it is."""
    while "node" in message.DESCRIPTOR.oneofs_by_name and message.WhichOneof("node"):
        message = getattr(message, message.WhichOneof("node"))
    return message


def _field(message: Any, name: str) -> Any:
    """A field of a message, or of the ones that it inherits from."""
    while name not in message.DESCRIPTOR.fields_by_name:
        message = message.parent
    return getattr(message, name)
