"""Clients of Google Pub/Sub, or of its emulator where PUBSUB_EMULATOR_HOST names one, and their errors explained."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthenticated
from google.api_core.retry import Retry, if_transient_error
from google.auth.exceptions import GoogleAuthError
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from ingestion.errors import BusUnavailable

EMULATOR = "PUBSUB_EMULATOR_HOST"
# As the clients have it for the service: an answer may be larger than gRPC's 4 MB.
_UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Clients:
    """Both clients of one project, and the full names of what is in it."""

    project: str
    publisher: PublisherClient
    subscriber: SubscriberClient

    @classmethod
    def of(cls, project: str) -> "Clients":
        """Raises BusUnavailable where there are no credentials; nothing is asked of the service yet."""
        host = os.environ.get(EMULATOR)
        with explained(f"projects/{project}", "any call"):
            if host is None:
                return cls(project, PublisherClient(), SubscriberClient())
            publisher = PublisherGrpcTransport(channel=grpc.insecure_channel(host, _UNBOUNDED))
            subscriber = SubscriberGrpcTransport(channel=grpc.insecure_channel(host, _UNBOUNDED))
            return cls(project, PublisherClient(transport=publisher), SubscriberClient(transport=subscriber))

    def topic(self, name: str) -> str:
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        return f"projects/{self.project}/subscriptions/{name}"

    def close(self) -> None:
        for client in (self.publisher, self.subscriber):
            client.transport.close()  # type: ignore[no-untyped-call]  # the library's


@contextmanager
def clients(project: str) -> Iterator[Clients]:
    opened = Clients.of(project)
    try:
        yield opened
    finally:
        opened.close()


def retry(seconds: float) -> Retry:
    """Try again what is worth it, for so long in all."""
    return Retry(predicate=if_transient_error, initial=0.1, maximum=5.0, timeout=seconds)


@contextmanager
def explained(resource: str, permission: str) -> Iterator[None]:
    """Errors of the service as BusUnavailable that names the resource, and the permission where that is what lacks."""
    try:
        yield
    except NotFound as error:
        raise BusUnavailable(
            f"Pub/Sub has no {resource}.", "`klinehouse bus init` creates the topics and subscriptions."
        ) from error
    except Forbidden as error:
        raise BusUnavailable(
            f"Pub/Sub denies {permission} on {resource}: {error.message}",
            f"Grant the account of these credentials a role with {permission} there.",
        ) from error
    except (Unauthenticated, GoogleAuthError) as error:
        raise BusUnavailable(
            f"There are no valid credentials for {resource}: {error}",
            "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
        ) from error
    except GoogleAPIError as error:
        where = os.environ.get(EMULATOR)
        raise BusUnavailable(
            f"{f'The emulator on {where}' if where else 'Pub/Sub'} does not serve {resource}: {error}",
            "Check the network and status.cloud.google.com, then try again; what was acknowledged is kept.",
        ) from error
