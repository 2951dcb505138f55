"""A library of many assets from end to end: indexed with thumbnails in one run, then searched through the page's server.

    python benchmarks/web.py [--assets 1000] [--searchers 50] [--requests 20] [--model clip-gs-tiny] [--library FOLDER]

Writes variants of the bundled objects (stretched and recoloured: each a content of its own), indexes them with thumbnails in
one run, and starts `splatsense serve` on the library. Prints, for this machine: how many assets were indexed in a second, the
time until the server answers, latencies of a search as the page sends it (60 results), for new words and for words that were
searched before, alone and by many at once, how many requests failed, and the server's largest memory. Where
Chromium and playwright are installed, also the time from the last key to the first result in the browser.
"""

import argparse
import http.client
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from shared.targets import judged

from library import write_variants  # of the benchmark beside this one
from splatsense.library import Library

WORDS = (
    "chair", "table", "lamp", "sofa", "plant", "shelf", "cup", "horse", "door",
    "basket", "bottle", "desk", "towel", "piano",
)  # fmt: skip
COLOURS = (
    "red", "green", "blue", "white", "black", "brown", "yellow", "grey", "old",
    "modern", "wooden", "metal", "small", "tall",
)  # fmt: skip
PERCENTILES = (50, 90, 99, 100)
INDEXED, FIRST_RESULT, MEMORY = 15, 300, 1500  # wanted with 10,000 assets on 2 cores: assets/s, ms, MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=int, default=1000)
    parser.add_argument("--searchers", type=int, default=50)
    parser.add_argument("--requests", type=int, default=20, help="of each searcher")
    parser.add_argument("--model", default="clip-gs-tiny")
    parser.add_argument("--library", type=Path, help="keep the variants and their library in this folder, and use them again")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}\n{' '.join(['python', *sys.argv])}\n")
    with tempfile.TemporaryDirectory() as temporary:
        library = make_library(arguments.library or Path(temporary), arguments.assets, arguments.model)
        start = time.perf_counter()
        command = [sys.executable, "-m", "splatsense", "serve", str(library), "--port", "0", "--model", arguments.model]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = next(word for word in server.stdout.readline().split() if word.startswith("http://"))
                print(f"start of the server: {time.perf_counter() - start:.1f} s")
                measure(address, arguments.searchers, arguments.requests)
                first_result_in_browser(address)
                print(judged("largest memory of the server", memory(server.pid, "VmHWM"), "MB", MEMORY))
            finally:
                server.terminate()


def make_library(folder: Path, count: int, model: str) -> Path:
    """Index variants of the bundled objects in one run; those that are indexed already stay."""
    write_variants(folder / "variants", count)
    with Library(folder / "library", model) as library:
        start = time.perf_counter()
        report = library.add(folder / "variants", progress=False, draw=True)
        seconds = time.perf_counter() - start
        if report.failed:
            raise SystemExit(f"{report.failed[0][0]}: {report.failed[0][1]}")
        print(f"{len(library):,} assets; {report.indexed:,} indexed with thumbnails in {seconds:,.0f} s", flush=True)
        if report.indexed:
            print(judged("indexed with thumbnails", report.indexed / seconds, "assets/s", INDEXED, at_least=True), flush=True)
        return library.path


def measure(address: str, searchers: int, requests: int) -> None:
    """Print latencies alone and by many at once."""
    new = [f"a {colour} {word}" for colour in COLOURS for word in WORDS]
    alone = [search(address, words) for words in new[:60]]
    report("new words, alone", alone)
    report("known words, alone", [search(address, words) for words in new[:60]])
    times: list[float] = []
    failures: list[str] = []

    def one(number: int) -> None:
        for request in range(requests):
            try:
                times.append(search(address, new[(number * 7 + request * 13) % len(new)]))
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(searchers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    report(f"{searchers} searchers at once", times)
    print(f"  {len(times) / seconds:,.0f} searches/s")
    print(judged(f"failed of {searchers * requests:,} requests", len(failures), "", 0))
    for failure in failures[:3]:
        print(f"  {failure}")


def search(address: str, words: str) -> float:
    """Seconds of one search as the page sends it."""
    body = json.dumps({"parts": [{"text": words}], "limit": 60})
    start = time.perf_counter()
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=60)
    try:
        connection.request("POST", "/api/search", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        content = json.loads(reply.read())
        if reply.status != 200 or len(content["results"]) == 0:
            raise ValueError(f"{reply.status} {content}")
    finally:
        connection.close()
    return time.perf_counter() - start


def first_result_in_browser(address: str) -> None:
    """Print the time from the last key to the first result, with the page's own pause before it searches."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("no Chromium or no playwright: the browser was not measured")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address)
        page.locator("#results .card").first.wait_for()
        times = []
        for words in ("a purple chair", "the broken lamp", "one big horse", "some yellow plant", "any round table"):
            page.locator("#status").evaluate("element => { element.textContent = '' }")
            page.fill("#words", words[:-1])
            page.locator("#status", has_text="best first").wait_for()
            page.locator("#status").evaluate("element => { element.textContent = '' }")
            page.locator("#words").evaluate(MARK)
            page.locator("#words").press_sequentially(words[-1])
            page.locator("#status", has_text="best first").wait_for()
            times.append(page.locator("#results").evaluate("() => window.shown - window.typed") / 1e3)
        browser.close()
    report("browser, last key to first result", times)
    print(judged("browser, last key to first result, slowest", max(times) * 1e3, "ms", FIRST_RESULT))


MARK = """input => {
  input.addEventListener("input", () => { window.typed = performance.now(); }, { once: true });
  const observer = new MutationObserver(() => { window.shown = performance.now(); observer.disconnect(); });
  observer.observe(document.querySelector("#results"), { childList: true });
}"""


def report(name: str, seconds: list[float]) -> None:
    """One line of percentiles in milliseconds."""
    values = np.percentile(seconds, PERCENTILES) * 1e3 if seconds else [float("nan")] * len(PERCENTILES)
    shown = ", ".join(f"p{percentile} {value:.0f}" for percentile, value in zip(PERCENTILES, values, strict=True))
    print(f"{name} ({len(seconds)}): {shown} ms")


def memory(pid: int, field: str) -> float:
    """Megabytes of a process: VmHWM is the most it had in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1e3
    return float("nan")


if __name__ == "__main__":
    main()
