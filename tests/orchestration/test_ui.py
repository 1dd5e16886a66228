"""`klinehouse up --simulate` and its UI as a person sees it: all of its real processes, and a real browser.

A start takes half a minute, so one serves all tests; they come in order, and the last of them stops it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from support.backfilled import Backfilled
from support.command import KLINEHOUSE, answer
from support.processes import of_sessions

from ingestion.settings import Settings
from klinehouse.app import free_port
from orchestration.instance import open_instance
from warehouse.serving import run_query

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Where to put pictures for the README; none are kept without it.
PICTURES = os.environ.get("KLINEHOUSE_TEST_PICTURES")

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


RUNS = """
query Runs($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId } } } }
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
    """A running `klinehouse up --simulate`, and the home that it works on."""

    def __init__(self, settings: Settings, process: subprocess.Popen[bytes]) -> None:
        self.settings, self.process = settings, process
        self.address = f"http://{settings.ui_host}:{settings.ui_port}"

    def log(self) -> str:
        return (self.settings.home / "up.log").read_text()

    def sessions(self) -> list[int]:
        """Each program of the supervisor leads a session, which its children stay in."""
        return [int(pid) for pid in re.findall(r"started \(pid=(\d+)\)", self.log())]

    def runs(self, job: str, *statuses: str) -> list[str]:
        """Ids of runs in one of these statuses, the newest first."""
        found = self.ask(RUNS, {"filter": {"pipelineName": job, "statuses": statuses}})["runsOrError"]["results"]
        return [run["runId"] for run in found]

    def newest_bar(self) -> Any:
        """When the newest published bar of BTCUSDT opened."""
        newest = "select max(open_time) from market_data_unified where symbol = 'BTCUSDT'"
        return run_query(self.settings, newest).rows[0][0]

    def health(self) -> Any:
        """What the collector says of itself; raises OSError when something is wrong."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.collector_port}/health", timeout=20) as answered:
            return json.loads(answered.read())["status"]

    def ask(self, query: str, variables: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.address}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())["data"]


@pytest.fixture(scope="module")
def ui(backfilled: Backfilled) -> Iterator[Ui]:
    settings = backfilled.settings.model_copy(update={"ui_port": free_port(), "collector_port": free_port()})
    named = {
        "HOME": settings.home,
        "SYMBOLS": ",".join(settings.symbols),
        "START": settings.start.isoformat(),
        "UI_PORT": settings.ui_port,
        "COLLECTOR_PORT": settings.collector_port,
    }
    with (
        (settings.home / "up.log").open("w") as log,
        subprocess.Popen(
            [KLINEHOUSE, "up", "--simulate", "--speed", "60"],
            env=os.environ | {f"KLINEHOUSE_{name}": str(value) for name, value in named.items()},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        found = Ui(settings, process)
        try:
            loaded = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
            wait_for("the UI", lambda: found.ask(loaded, {})["repositoriesOrError"].get("nodes"))
            yield found
        finally:
            for pid in of_sessions(found.sessions()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
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


@pytest.mark.browser
def test_the_asset_graph_is_shown(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/asset-groups")
    expect(page.get_by_text("ingestion", exact=True).first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(2000)  # the graph takes keys once it is laid out
    page.keyboard.press("Alt+KeyE")  # expand all groups
    for name in ("raw_klines", "stg_klines", "dim_symbols", "serving"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
    picture(page, "asset-graph")


@pytest.mark.browser
def test_the_main_table_shows_its_partitions_and_a_chart(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/assets/market_data_unified?view=partitions&partition=2020-09")
    expect(page.get_by_text("dagster/partition_row_count").first).to_be_visible(timeout=60_000)
    page.get_by_text("[Show Markdown]").click()
    chart = page.locator("img[src^='data:image/png;base64,']")
    expect(chart).to_be_visible(timeout=30_000)
    assert chart.evaluate("image => image.naturalWidth") == 640
    picture(page, "chart")


@pytest.mark.browser
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


def test_a_bar_that_closes_arrives_in_what_is_published(ui: Ui) -> None:
    first = ui.newest_bar()
    arrived = wait_for("another bar", lambda: ui.newest_bar() > first and ui.newest_bar())
    environment = {"home": str(ui.settings.home), "symbols": ",".join(ui.settings.symbols)}
    wait_for("both symbols", lambda: len(answer("status", **environment)["live"]) == 2)
    origin = answer("why", "BTCUSDT", "5m", f"{arrived:%Y-%m-%dT%H:%M}", **environment)
    assert (origin["stream"] != [], origin["answers"]) == (True, [])
    wait_for("a collector that is well", lambda: ui.health() == "ok")


def test_the_log_says_what_came_and_no_events_of_dagster(ui: Ui) -> None:
    wait_for("a batch", lambda: "readable after" in ui.log())
    assert re.search(r"dagster +\| until [\d-]+ [\d:]+: \d bars of \d series, readable after [\d.]+ s", ui.log())
    for noise in ("DEBUG", "SupersessionWarning", "ASSET_MATERIALIZATION"):
        assert noise not in ui.log()


@pytest.mark.browser
def test_the_live_asset_shows_its_batches_and_plots_their_lag(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/assets/live_klines?view=events")
    expect(page.get_by_text("system_lag_s", exact=True).first).to_be_visible(timeout=60_000)
    page.goto(f"{ui.address}/assets/live_klines?view=overview")
    page.get_by_role("button", name="Plots").click(timeout=60_000)
    for name in ("watermark_lag_s", "system_lag_s", "backlog"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
    expect(page.locator("canvas").first).to_be_visible()


@pytest.mark.browser
def test_the_sensors_of_the_live_path_are_on_and_the_others_off(ui: Ui, page: Page) -> None:
    page.goto(f"{ui.address}/automation")
    for name, is_on in (("keep_streaming", True), ("heal_missing", True), ("refresh_history", False)):
        switch = page.locator("[data-index]").filter(has_text=name).locator("input[type=checkbox]").last
        expect(switch).to_be_checked(checked=is_on, timeout=60_000)


@pytest.mark.browser
def test_a_batch_that_fails_is_a_failed_run_and_bars_go_on_once_the_cause_is_gone(ui: Ui, page: Page) -> None:
    damaged = max((Path(ui.settings.raw_root) / "klines/stream").iterdir()) / "0.parquet"
    damaged.write_bytes(b"this is no Parquet file")
    failed, *_ = wait_for("a failed run", lambda: ui.runs("stream", "FAILURE"))
    damaged.unlink()
    newest = ui.newest_bar()
    page.goto(f"{ui.address}/runs/{failed}")
    expect(page.get_by_text("Failure", exact=True).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("RUN_FAILURE").first).to_be_visible(timeout=30_000)
    wait_for("another bar", lambda: ui.newest_bar() > newest)


def test_ctrl_c_ends_the_streaming_run_in_order_and_leaves_no_process(ui: Ui) -> None:
    sessions = ui.sessions()
    assert len(sessions) == 3
    assert len(of_sessions(sessions)) > 5
    streaming, *_ = wait_for("the streaming run", lambda: ui.runs("stream", "STARTED"))
    ui.process.send_signal(signal.SIGINT)
    ui.process.wait(60)
    wait_for("the end of all processes", lambda: not of_sessions(sessions), 30)
    with open_instance(ui.settings) as instance:
        run = instance.get_run_by_id(streaming)
    assert run is not None
    assert run.status.value == "SUCCESS"
