"""Errors a user meets: each says what is wrong, what to do, and carries the exit code of the command line."""

from typing import ClassVar


class KlinehouseError(Exception):
    """Base of all errors that are shown as one line and a remedy, without a traceback."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}"


class UsageError(KlinehouseError):
    """The command was called with arguments that make no sense."""

    exit_code = 2
    kind = "usage"


class ConfigurationError(KlinehouseError):
    """A setting, or what the home holds, does not allow what was asked."""

    exit_code = 3
    kind = "configuration"


class ExchangeRefused(KlinehouseError):
    """The exchange refused, or could not be reached after all retries."""

    exit_code = 4
    kind = "exchange_refused"


class DataQuarantined(KlinehouseError):
    """The run went on to its end, but some input was refused and put into quarantine."""

    exit_code = 5
    kind = "data_quarantined"


class WarehouseBusy(KlinehouseError):
    """Another process holds the warehouse for writing."""

    exit_code = 6
    kind = "warehouse_busy"


class BusUnavailable(KlinehouseError):
    """The message bus cannot be reached, or is not set up."""

    exit_code = 7
    kind = "bus_unavailable"


class StorageUnavailable(KlinehouseError):
    """The object store of the raw zone cannot be reached, or does not serve."""

    exit_code = 8
    kind = "storage_unavailable"
