"""What waits in a subscription of Pub/Sub, which the service tells only through Cloud Monitoring."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import google.auth
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from ingestion.bus.port import Backlog
from ingestion.errors import BusUnavailable

_URL = "https://monitoring.googleapis.com/v3/projects/{project}/timeSeries"
_SCOPE = "https://www.googleapis.com/auth/monitoring.read"
# Metrics come once a minute, up to four minutes late.
_LOOK_BACK = timedelta(minutes=10)


def measured(project: str, subscription: str) -> Backlog:
    """The newest figures, a minute or more old; an empty backlog where there are none yet. Needs the role
    monitoring.viewer."""
    resource = f"the metrics of projects/{project}/subscriptions/{subscription}"
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        with AuthorizedSession(credentials) as session:
            messages, age = (
                _newest(session, project, subscription, metric)
                for metric in ("num_undelivered_messages", "oldest_unacked_message_age")
            )
    except (GoogleAuthError, OSError) as error:
        raise BusUnavailable(
            f"Cloud Monitoring does not tell {resource}: {error}",
            "Grant the account of these credentials monitoring.timeSeries.list (role monitoring.viewer).",
        ) from error
    oldest = datetime.now(UTC) - timedelta(seconds=age) if messages else None
    return Backlog(messages, oldest)


def _newest(session: Any, project: str, subscription: str, metric: str) -> int:
    now = datetime.now(UTC)
    answer = session.get(
        _URL.format(project=project),
        params={
            "filter": f'metric.type = "pubsub.googleapis.com/subscription/{metric}" '
            f'AND resource.labels.subscription_id = "{subscription}"',
            "interval.startTime": (now - _LOOK_BACK).isoformat(),
            "interval.endTime": now.isoformat(),
        },
        timeout=30,
    )
    answer.raise_for_status()
    return newest_point(answer.json())


def newest_point(answer: Mapping[str, Any]) -> int:
    """The last value of the only series of an answer; 0 where there is none."""
    series = answer.get("timeSeries", [])
    return int(series[0]["points"][0]["value"]["int64Value"]) if series else 0
