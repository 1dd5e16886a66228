"""The entry point of `klinehouse`; the commands are in `commands/`."""

import logging
import sys
from typing import Annotated

import stamina
import typer

from ingestion.errors import ConfigurationError, KlinehouseError
from klinehouse.app import app
from klinehouse.commands import bus, health, history, live, parity, system, warehouse
from klinehouse.output import print_error

__all__ = ["app", "bus", "health", "history", "live", "main", "parity", "system", "warehouse"]


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
    except (KlinehouseError, OSError) as error:
        if "--debug" in arguments:
            raise
        shown = _of_the_disk(error) if isinstance(error, OSError) else error
        print_error(shown, as_json="--json" in arguments)
        sys.exit(shown.exit_code)


def _of_the_disk(error: OSError) -> ConfigurationError:
    """A home that cannot be read or written, a full disk: named, with what to do."""
    where = f"{error.filename}: " if error.filename else ""
    return ConfigurationError(
        f"{where}{error.strerror or error}.",
        "Check KLINEHOUSE_HOME, its permissions and the space left; what has landed is kept.",
    )


if __name__ == "__main__":
    main()
