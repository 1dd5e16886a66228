"""How `klinehouse status` speaks."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from klinehouse.output import cell, err, megabytes, out, print_table

if TYPE_CHECKING:
    from warehouse.status import BusStatus, Status


def print_status(found: "Status") -> None:
    columns = ["layer", "symbol", "interval", "rows", "first open", "last close", "size", "files", "from"]
    rows = [
        (
            *(one.layer, one.symbol, one.interval, one.rows, one.first_open_time, one.last_close_time),
            *(megabytes(one.bytes), one.files, ", ".join(one.sources)),
        )
        for one in found.series
    ]
    print_table(f"{found.home}: data of {found.environment or 'nothing yet'}", columns, rows)
    _print_live(found)
    if found.bus:
        _print_bus(found.bus)
    for note in found.quarantined:
        err.print(f"quarantined: {note['url']}: {note['reason']}", soft_wrap=True, markup=False)


def _print_live(found: "Status") -> None:
    if not found.live:
        return
    columns = ["symbol", "interval", "bars", "files", "last close", "received"]
    rows = [
        (one.symbol, one.interval, one.bars, one.files, one.last_close_time, _ago(one.last_received_at))
        for one in found.live
    ]
    print_table("Came live, and history has not taken over", columns, rows)


def _print_bus(bus: "BusStatus") -> None:
    if bus.problem:
        err.print(bus.problem, style="yellow", soft_wrap=True, markup=False)
        return
    since = f", the oldest published {_ago(bus.waiting_since)}" if bus.waiting_since else ""
    out.print(
        f"On the bus: {cell(bus.waiting)} waiting{since}; {cell(bus.dead_letters)} dead letters.", highlight=False
    )
    if bus.dead_letters:
        err.print("`klinehouse dlq list` tells why they could not be landed.")


def _ago(at: datetime) -> str:
    """How long before now, in the unit that a person would say it in."""
    seconds = max((datetime.now(UTC) - at).total_seconds(), 0)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
