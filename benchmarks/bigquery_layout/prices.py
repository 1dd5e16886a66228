"""List prices of Google Cloud in US dollars, each with where it stands and how far it was checked.

They change: compare them with the pages before a decision. BigQuery's are those of the multi-regions, compute's those
of europe-west1. What runs is billed by the second and shown for a month of 730.5 hours.
"""

from dataclasses import dataclass

GIB, TIB = 1 << 30, 1 << 40
DAYS_PER_MONTH = 365.25 / 12
EUR_PER_USD = 0.86  # the European Central Bank's 1 EUR = 1.1665 USD, rounded; taxes and discounts are left out

BIGQUERY = "https://cloud.google.com/bigquery/pricing"
PUBSUB = "https://cloud.google.com/pubsub/pricing"
CLOUD_RUN = "https://cloud.google.com/run/pricing"
STORAGE = "https://cloud.google.com/storage/pricing"
COMPUTE = "https://cloud.google.com/compute/vm-instance-pricing"

# Nothing was asked of Google for this: `checked` says what stood in public copies and quotations of those pages.
_US = "2026: quoted for the US multi-region; the EU's was not found, taken to be the same"
_NOT_CHECKED = "not checked here"


@dataclass(frozen=True)
class Price:
    """US dollars per unit; `free` units a month cost nothing."""

    usd: float
    unit: str
    source: str
    checked: str
    free: float = 0.0

    def of(self, units: float) -> float:
        """Dollars a month, beyond what is free."""
        return max(units - self.free, 0.0) * self.usd


QUERY = Price(6.25, "TiB read", BIGQUERY, _US, free=1)
ACTIVE = Price(0.02, "GiB-month, logical", BIGQUERY, _US, free=10)
LONG_TERM = Price(0.01, "GiB-month, logical, 90 days unchanged", BIGQUERY, _US)
STORAGE_WRITE = Price(0.025, "GiB appended", BIGQUERY, _US, free=2048)
BUCKET = Price(0.026, "GiB-month, Standard, EU multi-region", STORAGE, _NOT_CHECKED)
THROUGHPUT = Price(40 / 1024, "GiB published or delivered", PUBSUB, "2026-09-20: quoted", free=10)
KEPT_MESSAGES = Price(0.27, "GiB-month unacknowledged after a day", PUBSUB, "2026-09-20: quoted")
CLOUD_RUN_CPU = Price(0.000018, "vCPU-second, always allocated", CLOUD_RUN, "2026-10-08: quoted", free=240_000)
CLOUD_RUN_MEMORY = Price(0.000002, "GiB-second, always allocated", CLOUD_RUN, "2026-10-08: quoted", free=450_000)
E2_SMALL = Price(0.0184, "hour of e2-small (2 GB)", COMPUTE, "quoted, undated")
E2_MEDIUM = Price(0.0369, "hour of e2-medium (4 GB)", COMPUTE, "quoted, undated")

PRICES = {
    "on-demand queries": QUERY,
    "active storage": ACTIVE,
    "long-term storage": LONG_TERM,
    "Storage Write API": STORAGE_WRITE,
    "bucket": BUCKET,
    "Pub/Sub throughput": THROUGHPUT,
    "Pub/Sub storage": KEPT_MESSAGES,
    "Cloud Run CPU": CLOUD_RUN_CPU,
    "Cloud Run memory": CLOUD_RUN_MEMORY,
    "collector": E2_SMALL,
    "Dagster": E2_MEDIUM,
}
