"""The processes of this machine, as Linux tells them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def of_sessions(leaders: Sequence[int]) -> list[int]:
    """The pids of living processes in these sessions, each named by its leader's pid."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            pid, _, rest = stat.read_text().partition(" (")
            # Its name may hold anything, so the fields are counted from its end: state, parent, group, session.
            state, _, _, session = rest.rpartition(") ")[2].split()[:4]
            if int(session) in leaders and state not in "ZX":
                found.append(int(pid))
    return found
