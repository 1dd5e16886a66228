"""The native server: starting it, calling it, and the language that it is to understand."""

import ctypes
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages
from zetasql.wasi._pb2.zetasql.proto import options_pb2
from zetasql.wasi._pb2.zetasql.public import options_pb2 as language_pb2

_METHODS = "/zetasql.local_service.ZetaSqlLocalService/"
_CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
_START_SECONDS = 30
_CALL_SECONDS = 120
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_libc = ctypes.CDLL(None)

# What GoogleSQL can be and BigQuery is not.
_NOT_IN_BIGQUERY = (
    "TIMESTAMP_NANOS",
    "DML_RETURNING",
    "CHECK_CONSTRAINT",
    "WITH_GROUP_ROWS",
    "ARRAY_AGGREGATION_FUNCTIONS",
    "NULLIFZERO_ZEROIFNULL",
    "PI_FUNCTIONS",
)


class Refused(Exception):
    """GoogleSQL refuses what it was given; the message is its own."""


class Service:
    """Calls to the server, with BigQuery's language and UTC."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        request = messages.LanguageOptionsRequest(maximum_features=True)
        self.language = self.call("GetLanguageOptions", request, options_pb2.LanguageOptionsProto)
        self.language.product_mode = 1  # external: FLOAT64, and neither DOUBLE nor protocol buffers
        self.language.supported_statement_kinds[:] = []  # none named means all
        for name in _NOT_IN_BIGQUERY:
            self.language.enabled_language_features.remove(language_pb2.LanguageFeature.Value(f"FEATURE_{name}"))

    def options(self) -> options_pb2.AnalyzerOptionsProto:
        return options_pb2.AnalyzerOptionsProto(
            language_options=self.language,
            default_timezone="UTC",
            error_message_mode=1,  # one line, with the position
            allow_undeclared_parameters=True,
        )

    def call(self, method: str, request: Any, response: Any) -> Any:
        """One call; raises Refused when the server says why it does not do it."""
        stub = self._channel.unary_unary(
            _METHODS + method,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            return stub(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            raise Refused(error.details()) from error


@contextmanager
def running(server: str) -> Iterator[Service]:
    """The server on a loopback port of its own; it ends with this block, and with this process in any case."""
    with socket.create_server(("127.0.0.1", 0)) as trial:
        port = trial.getsockname()[1]
    process = subprocess.Popen(
        [server, "localhost", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL),
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=_CHANNEL) as channel:
            grpc.channel_ready_future(channel).result(timeout=_START_SECONDS)
            yield Service(channel)
    finally:
        process.kill()
        process.wait()
