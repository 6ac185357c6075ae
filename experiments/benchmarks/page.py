"""How long a report page takes to show, in headless Chromium.

    python -m experiments.benchmarks.page FOLDER/report.html [--repeats 5] [--json]

From the opening of the file until the turns and the first chart stand there: seconds, and seconds of processor time of the browser.
"""

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def shown(browser, page: Path) -> tuple[float, float]:
    """(seconds, processor seconds) of one opening in a fresh window."""
    processes = browser.new_browser_cdp_session()

    def used() -> float:
        return sum(process["cpuTime"] for process in processes.send("SystemInfo.getProcessInfo")["processInfo"])

    window = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    began, before = time.perf_counter(), used()
    window.goto(page.resolve().as_uri(), timeout=120_000)
    if window.locator("#turn-list").count():
        window.locator(".turn").first.wait_for()
    chart = window.locator(".chart").first
    if chart.count():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()
    took = time.perf_counter() - began, used() - before
    window.context.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    options = parser.parse_args()
    if not options.page.is_file():
        parser.error(f"{options.page}: no such page; python -m cso_lab.reporting.html FOLDER writes one")
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=_FLAGS)
        took = [shown(browser, options.page) for _ in range(options.repeats)]
        browser.close()
    wall, processor = (statistics.median(values) for values in zip(*took, strict=True))
    found = {"seconds": round(wall, 2), "processor_seconds": round(processor, 2), "bytes": options.page.stat().st_size}
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
