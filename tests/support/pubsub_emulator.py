"""Google's official Pub/Sub emulator, which comes with the Google Cloud command line; it needs Java.

It speaks the real protocol and differs in this: it does not delay the first redelivery, ignores filters, and loses
everything at its end.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import free_ports, serving

_JAR = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"


def unavailable() -> str | None:
    """Why there is no emulator here; None when there is one."""
    if shutil.which("java") is None:
        return "the Pub/Sub emulator needs Java"
    if _jar() is None:
        return "no Pub/Sub emulator: gcloud components install pubsub-emulator"
    return None


def _jar() -> Path | None:
    gcloud = shutil.which("gcloud")
    return max(Path(gcloud).resolve().parents[1].glob(_JAR), default=None) if gcloud else None


@contextmanager
def running() -> Iterator[str]:
    """A running emulator; its HOST:PORT on loopback."""
    port, iam_port = free_ports(2)
    command = ["java", "-jar", str(_jar()), "--host=127.0.0.1", f"--port={port}", f"--iam_port={iam_port}"]
    with serving(command, port):
        yield f"127.0.0.1:{port}"
