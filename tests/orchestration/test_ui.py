"""The UI as a person sees it: a real web server, a real daemon, a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from support.backfilled import Backfilled

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Where to put pictures for the README; none are kept without it.
PICTURES = os.environ.get("KLINEHOUSE_TEST_PICTURES")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

LAUNCH = """
mutation Launch($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""

STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""


def wait_for(what: str, happened: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = happened()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.5)
    raise AssertionError(f"{what} did not happen within {seconds} s")


class Ui:
    """A running `klinehouse up`."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, query: str, variables: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own server on loopback
            f"{self.address}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.loads(response.read())["data"]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C would; where SIGINT is ignored (a job in the background) its children do not hear of that."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def ui(backfilled: Backfilled) -> Iterator[Ui]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = backfilled.settings
    environment = {
        "KLINEHOUSE_HOME": str(settings.home),
        "KLINEHOUSE_ARCHIVE_URL": settings.archive_url,
        "KLINEHOUSE_SYMBOLS": ",".join(settings.symbols),
        "KLINEHOUSE_START": settings.start.isoformat(),
        "KLINEHOUSE_UI_PORT": str(port),
    }
    with (
        (settings.home / "up.log").open("w") as log,
        subprocess.Popen(
            [str(Path(sys.executable).with_name("klinehouse")), "up", "--no-live"],
            env=os.environ | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        found = Ui(f"http://127.0.0.1:{port}")
        try:
            loaded = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
            wait_for("the UI", lambda: found.ask(loaded, {})["repositoriesOrError"].get("nodes"))
            yield found
        finally:
            _stop(process)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser.new_page(viewport={"width": 1500, "height": 950})
        browser.close()


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.wait_for_timeout(1500)  # let the layout's animation end
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def test_the_asset_graph_is_shown(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/asset-groups")
    expect(page.get_by_text("ingestion", exact=True).first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(2000)  # the graph takes keys once it is laid out
    page.keyboard.press("Alt+KeyE")  # expand all groups
    for name in ("raw_klines", "stg_klines", "dim_symbols", "serving"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
    picture(page, "asset-graph")


def test_the_main_table_shows_its_partitions_and_a_chart(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/assets/market_data_unified?view=partitions&partition=2020-09")
    expect(page.get_by_text("dagster/partition_row_count").first).to_be_visible(timeout=60_000)
    page.get_by_text("[Show Markdown]").click()
    chart = page.locator("img[src^='data:image/png;base64,']")
    expect(chart).to_be_visible(timeout=30_000)
    assert chart.evaluate("image => image.naturalWidth") == 640
    picture(page, "chart")


def test_the_checks_of_the_main_table_are_shown(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/assets/market_data_unified?view=checks")
    for check in ("complete", "fresh", "market_data_unified_ohlc_rules"):
        expect(page.get_by_text(check, exact=True).first).to_be_visible(timeout=60_000)
    picture(page, "checks")


def test_a_backfill_of_two_partitions_is_run_by_the_daemon(ui: Ui) -> None:
    """The two smallest partitions of the running instance: a symbol's first months."""
    keys = ["2020-08|SOLUSDT", "2020-09|SOLUSDT"]
    launched = ui.ask(
        LAUNCH, {"backfill": {"assetSelection": [{"path": ["raw_klines"]}], "partitionNames": keys, "tags": []}}
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def status() -> str | None:
        found = ui.ask(STATUS, {"id": launched["backfillId"]})["partitionBackfillOrError"]["status"]
        return found if found in {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED"} else None

    assert wait_for("the end of the backfill", status) == "COMPLETED_SUCCESS"
    runs = ui.ask(
        "query R($tag: ExecutionTag!) { runsOrError(filter: {tags: [$tag]}) { ... on Runs { results { status } } } }",
        {"tag": {"key": "dagster/backfill", "value": launched["backfillId"]}},
    )["runsOrError"]["results"]
    assert [run["status"] for run in runs] == ["SUCCESS"], "one run for both months of the symbol"
