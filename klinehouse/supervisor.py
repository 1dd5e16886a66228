"""`klinehouse up`: the processes of one machine under one supervisor, their logs line by line with the names before."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import honcho.manager

from ingestion.settings import PREFIX, Settings
from orchestration.instance import prepare_home

# The collector may take 10 s to hand over what it has, and Dagster as long to end its runs.
honcho.manager.KILL_WAIT = 20

# Its other name, `dg dev`, wants a project of its own form.
_NO_ADVICE = "ignore:Function `dev_command` is superseded"

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Program:
    """One process: its name in the logs, its command line, and what its environment has besides ours."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        # In place of the shell that starts it, so that signals reach it.
        return f"exec {shlex.join(self.arguments)}"


def programs(settings: Settings, *, live: bool, exchange_options: Sequence[str] | None) -> list[Program]:
    """What to start: the simulated exchange if it has options, the collector if `live`, and Dagster."""
    klinehouse, dagster = (str(Path(sys.executable).with_name(name)) for name in ("klinehouse", "dagster"))
    home = {
        f"{PREFIX}HOME": str(settings.home),
        f"{PREFIX}ARCHIVE_URL": settings.archive_url,
        f"{PREFIX}STREAMING": str(live and settings.streaming),
    }
    found = []
    if exchange_options is not None:
        found.append(Program("exchange", [klinehouse, "simulate", *exchange_options], home))
    if live:
        found.append(Program("collector", [klinehouse, "collect", "--log-format", "text"], home))
    workspace = ["-w", str(_ROOT / "workspace.yaml"), "-h", settings.ui_host, "-p", str(settings.ui_port)]
    workspace += ["--log-level", "warning"]
    dagster_only = {"DAGSTER_HOME": str(prepare_home(settings)), "PYTHONWARNINGS": _NO_ADVICE}
    return [*found, Program("dagster", [dagster, "dev", *workspace], home | dagster_only)]


def supervise(programs: Sequence[Program]) -> int:
    """Run them until Ctrl-C, SIGTERM, or until one of them ends; then end the others. Returns the exit code."""
    manager = honcho.manager.Manager()
    for program in programs:
        environment = {**os.environ, **program.environment, "PYTHONUNBUFFERED": "1"}
        manager.add_process(program.name, program.command, env=environment, cwd=str(_ROOT))
    manager.loop()
    return int(manager.returncode or 0)
