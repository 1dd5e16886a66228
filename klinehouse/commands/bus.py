"""Commands about the message bus: bus init, bus status, listen, dlq."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ingestion.bus import dead_letters
from ingestion.bus.dead_letters import DeadLetter
from ingestion.bus.open import init_bus, open_bus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, MONITORING, TOPOLOGY, Bus, Message, Received
from ingestion.errors import UsageError
from ingestion.messages import NoKline, decode, encode
from ingestion.settings import load_settings
from klinehouse import bus_report
from klinehouse.app import Json, app, examples, show_banner
from klinehouse.output import err, out, print_json, print_table

bus_app = typer.Typer(help="Set up the message bus, and see what waits on it.", no_args_is_help=True)
dlq_app = typer.Typer(help="Dead letters: messages that could not be landed, with the reason.", no_args_is_help=True)
app.add_typer(bus_app, name="bus")
app.add_typer(dlq_app, name="dlq")

_MOST = 1_000_000

Letter = Annotated[str, typer.Argument(metavar="ID", help="Id of a dead letter, from `klinehouse dlq list`.")]


@bus_app.command("init", epilog=examples("klinehouse bus init", "KLINEHOUSE_BUS=pubsub klinehouse bus init"))
def init(json: Json = False) -> None:
    """Create what the bus lacks; what is there is compared, and never changed."""
    settings = load_settings()
    created = init_bus(settings)
    if json:
        print_json({"bus": settings.bus, "created": created})
        return
    for name in created:
        out.print(f"created {name}", highlight=False, soft_wrap=True)
    if not created:
        out.print("Everything is there.")


@bus_app.command("status", epilog=examples("klinehouse bus status", "klinehouse bus status --json"))
def status(json: Json = False) -> None:
    """Show what each subscription has not acknowledged."""
    settings = load_settings()
    with open_bus(settings) as bus:
        found = [(one, bus.backlog(one.name)) for one in TOPOLOGY]
    show_banner(settings)
    rows = [(one.name, one.topic, backlog.messages, backlog.leased, backlog.oldest) for one, backlog in found]
    columns = ["subscription", "topic", "messages", "leased", "oldest"]
    if json:
        print_json({"bus": settings.bus, "subscriptions": [dict(zip(columns, row, strict=True)) for row in rows]})
    else:
        print_table(f"{settings.bus} bus", columns, rows)


@app.command(
    epilog=examples(
        "klinehouse listen", "klinehouse listen --symbols BTCUSDT --count 3 --json", "klinehouse listen --waiting"
    )
)
def listen(
    count: Annotated[int | None, typer.Option(min=1, help="End after so many klines. Default: at Ctrl-C.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="End after so many seconds.")] = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Also what was published before now (up to 7 days).")
    ] = False,
    symbols: Annotated[str | None, typer.Option(help="Only these symbols, separated by commas.")] = None,
    json: Json = False,
) -> None:
    """Print closed klines as they pass over the bus. Nothing else is disturbed: this has a subscription of its own.

    Two listeners share that subscription, and then see each kline once between them.
    """
    settings = load_settings(symbols=symbols)
    show_banner(settings)
    wanted = set(settings.symbols) if symbols else None
    since = None if waiting else datetime.now(UTC)
    if not json:
        out.print(bus_report.header(), style="bold", highlight=False, soft_wrap=True)
    with open_bus(settings) as bus:
        _listen(bus, lambda received: _show(received, wanted, json=json), since, timeout, count)


def _listen(
    bus: Bus, show: Callable[[Received], bool], since: datetime | None, timeout: float | None, count: int | None
) -> None:
    """Show messages as they come, from `since` on, until so many seconds have passed or so many were shown.

    What has been looked at is acknowledged, what was pulled beyond that is given back.
    """
    end = None if timeout is None else time.monotonic() + timeout
    left = count
    while left != 0 and (end is None or time.monotonic() < end):
        # Short enough for Ctrl-C to be obeyed.
        wait = 0.5 if end is None else max(0.0, min(0.5, end - time.monotonic()))
        received = bus.pull(MONITORING, max_messages=100, max_bytes=10_000_000, wait=wait)
        done = 0
        try:
            for one in received:
                if left == 0:
                    break
                if (since is None or one.published_at >= since) and show(one) and left is not None:
                    left -= 1
                done += 1
        finally:
            bus.acknowledge(MONITORING, [one.ack_id for one in received[:done]])
            bus.extend(MONITORING, [one.ack_id for one in received[done:]], 0)


def _show(received: Received, wanted: set[str] | None, *, json: bool) -> bool:
    """Whether it was one of the wanted klines, and was printed; what is none is told on standard error."""
    try:
        kline = decode(received.message)
    except NoKline as error:
        err.print(f"message {received.message_id}: {error.message}", markup=False, highlight=False, soft_wrap=True)
        return False
    if wanted is not None and kline.symbol not in wanted:
        return False
    if json:
        print_json(bus_report.kline_json(received, kline))
        sys.stdout.flush()
    else:
        out.print(bus_report.line(kline), highlight=False, soft_wrap=True)
    return True


@dlq_app.command("list", epilog=examples("klinehouse dlq list", "klinehouse dlq list --limit 1000 --json"))
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="How many at most, oldest first.")] = 100, json: Json = False
) -> None:
    """List dead letters with their reasons; they stay where they are."""
    with open_bus(load_settings()) as bus, dead_letters.borrowed(bus, limit) as letters:
        if json:
            print_json([bus_report.letter_json(letter) for letter in letters])
        elif letters:
            bus_report.print_letters(letters)
        else:
            out.print("No dead letters.")


@dlq_app.command("show", epilog=examples("klinehouse dlq show 17", "klinehouse dlq show 17 --save kline.json"))
def show(
    id: Letter,
    save: Annotated[Path | None, typer.Option(help="Write its data to this file, to correct and replay it.")] = None,
    json: Json = False,
) -> None:
    """Show one dead letter whole."""
    with open_bus(load_settings()) as bus, _found(bus, [id]) as (letter,):
        if save:
            save.write_bytes(letter.original.data)
        if json:
            print_json({**bus_report.letter_json(letter), **bus_report.data_json(letter.original)})
        else:
            bus_report.print_letter(letter)


@dlq_app.command(
    "replay",
    epilog=examples(
        "klinehouse dlq replay 17 18", "klinehouse dlq replay --all", "klinehouse dlq replay 17 --data kline.json"
    ),
)
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids of dead letters.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    data: Annotated[Path | None, typer.Option(help="Publish what this file holds in place of its data.")] = None,
    json: Json = False,
) -> None:
    """Publish dead letters again to where they came from, and remove them from the dead letters after that."""
    if bool(ids) == every:
        raise UsageError("Name dead letters or --all, and not both.", "`klinehouse dlq list` has their ids.")
    if data and (not ids or len(ids) != 1):
        raise UsageError("--data corrects one dead letter.", "Name its id: `klinehouse dlq replay ID --data FILE`.")
    corrected = _corrected(data) if data else None
    stay = 0
    with open_bus(load_settings()) as bus:
        if every:
            replayed, stay = dead_letters.replay_all(bus)
        else:
            with _found(bus, ids or []) as letters:
                for letter in letters:
                    dead_letters.replay(bus, letter, corrected or letter.original)
                replayed = len(letters)
    if json:
        print_json({"replayed": replayed, "left": stay})
    else:
        out.print(f"{replayed:,} replayed" + (f", {stay:,} left: they name no origin" if stay else "") + ".")


def _corrected(data: Path) -> Message:
    """What the file holds, which must be a kline: anything else would only become a dead letter again."""
    return encode(decode(Message(data.read_bytes())))


@dlq_app.command("purge", epilog=examples("klinehouse dlq purge --yes"))
def purge(
    yes: Annotated[bool, typer.Option("--yes", help="Really: they cannot be had back.")] = False, json: Json = False
) -> None:
    """Delete all dead letters."""
    with open_bus(load_settings()) as bus:
        if not yes:
            waiting = bus.backlog(DEAD_LETTERS_SUBSCRIPTION).messages
            raise UsageError(
                f"This deletes all dead letters, {waiting:,}, for good.", "Say so: `klinehouse dlq purge --yes`."
            )
        purged = dead_letters.purge(bus)
    if json:
        print_json({"purged": purged})
    else:
        out.print(f"{purged:,} deleted.")


@contextmanager
def _found(bus: Bus, ids: list[str]) -> Iterator[list[DeadLetter]]:
    """These dead letters, in this order; all are given back that nobody acknowledges."""
    with dead_letters.borrowed(bus, _MOST) as letters:
        by_id = {letter.received.message_id: letter for letter in letters}
        unknown = [one for one in ids if one not in by_id]
        if unknown:
            raise UsageError(
                f"There is no dead letter {', '.join(unknown)}.",
                "`klinehouse dlq list` has them; one that somebody else looks at comes back within a minute.",
            )
        yield [by_id[one] for one in dict.fromkeys(ids)]
