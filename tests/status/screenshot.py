"""Takes the pictures of the status page in `docs/`: `python -m tests.status.screenshot`.

The overview, in English and in Chinese, is that of `headend demo` as anybody starts it; the meter
with its day is that of a simulated street whose journal reaches back to midnight.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.status.status_bench import Bench

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent
CHROMIUM = "/usr/bin/chromium"
START_S = 90.0
ROUNDS = 3  # of readings, so that the counters say something


def main() -> int:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=DOCS, help="the folder (default: docs)")
    into = parser.parse_args().into
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as url:
            take(browser, f"{url}/?lang=en", "light", into / "status-page.png")
            take(browser, f"{url}/?lang=zh", "dark", into / "status-page.zh-CN.png")
        with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
            meter = f"{bench.well.url}/meters/{bench.sunny}?lang=en"
            take(browser, meter, "light", into / "status-page-meter.png", height=900)
        browser.close()
    return 0


def take(browser: Browser, url: str, scheme: str, place: Path, *, height: int = 0) -> None:
    """One picture: the whole page, or its first `height` lines."""
    page = browser.new_page(
        viewport={"width": 1200, "height": height or 800},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page.goto(url)
    page.screenshot(path=place, full_page=not height)
    page.close()
    print(f"{place}: {place.stat().st_size // 1024} KiB")


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """A demo that has read some rounds; the address of its page."""
    log = folder / "demo.err"
    with log.open("wb") as err:
        process = subprocess.Popen(
            [BIN / "headend", "demo", "--json", "--dir", folder / "demo"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
    try:
        url = _wait(lambda: _address(log))
        _wait(lambda: _has_read(url))
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _address(log: Path) -> str | None:
    found = re.search(r"the status page is (http://\S+)", log.read_text())
    return found[1] if found else None


def _has_read(url: str) -> bool:
    """Whether every meter was read several times and every record is receipted."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            told = json.load(answer)
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return False
    jobs = [float(n) for n in re.findall(r"headend_poll_jobs_total\{.*\} (\S+)", text)]
    backlog = re.findall(r"headend_feed_backlog_records\{.*\} (\S+)", text)
    return told["state"] == "ok" and backlog == ["0.0"] and min(jobs, default=0) >= 2 * ROUNDS


def _wait(look):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    msg = f"did not come within {START_S:g} s"
    raise TimeoutError(msg)


if __name__ == "__main__":
    sys.exit(main())
