"""The entry point of `klinehouse`; the commands are in `commands/`."""

import logging
import sys
from typing import Annotated

import stamina
import typer

from ingestion.errors import KlinehouseError
from klinehouse.app import app
from klinehouse.commands import health, history, system, warehouse
from klinehouse.output import print_error

__all__ = ["app", "health", "history", "main", "system", "warehouse"]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Exact crypto candles and indicators: land, build, publish, query."""


def main() -> None:
    """Entry point: errors of ours become one line and their exit code; `--debug` lets tracebacks through."""
    arguments = sys.argv[1:]
    # Retries are logged, not printed: stamina would write them to standard output, between the answer's lines.
    stamina.instrumentation.set_on_retry_hooks([stamina.instrumentation.LoggingOnRetryHook])
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        app()
    except KlinehouseError as error:
        if "--debug" in arguments:
            raise
        print_error(error, as_json="--json" in arguments)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
