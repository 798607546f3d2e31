"""How quickly the explorer answers a control, measured in a browser: from the change to the frame that shows the answer.

The same page from its grid (offline) and from the server (served), where questions are new to the server the first time and
known the second. Needs Chromium, playwright and uvicorn.
"""

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardwise.planner.cli.serve import listen, make_app
from shardwise.planner.explorer import Start, make_offer, write_explorer

_MODEL, _CHIP, _COUNTS = "llama-3.1-70b", "h100-sxm", (1, 2, 4, 8)
_GRID = {
    "input_tokens": [1024, 2048, 4096],
    "output_tokens": [256, 512],
    "weights": ["own", "fp8"],
    "kv_dtypes": ["own", "fp8"],
}
# What is changed, to what, and back: each change is one answer.
_CHANGES = {
    "chips": ("8", "any"),
    "batch": ("16", "any"),
    "ttft": ("800", ""),
    "tpot": ("25", ""),
    "price": ("5", "2"),
    "by": ("latency", "cost"),
    "input": ("4096", "1024"),
    "output": ("512", "256"),
    "weights": ("fp8", "own"),
    "kv": ("fp8", "own"),
}
_ROUNDS = 3
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Sets a control, waits for the answer and the two frames after it, and tells how long all of it took.
_CHANGE = """
([key, value]) => new Promise((resolve) => {
  const before = Number(document.body.dataset.answers);
  const control = document.getElementById(key);
  const begun = performance.now();
  const look = () => {
    if (Number(document.body.dataset.answers) > before && document.body.dataset.state === "done") {
      requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - begun)));
    } else setTimeout(look, 1);
  };
  control.value = value;
  control.dispatchEvent(new Event("input", { bubbles: true }));
  control.dispatchEvent(new Event("change", { bubbles: true }));
  look();
})
"""


def _measure(page: Any, address: str) -> dict[str, list[float]]:
    """Milliseconds of each change of a control, in the order they were made."""
    page.goto(address)
    page.wait_for_selector("body[data-state='done']")
    told: dict[str, list[float]] = {key: [] for key in _CHANGES}
    for _ in range(_ROUNDS):
        for key, values in _CHANGES.items():
            for value in values:
                told[key].append(page.evaluate(_CHANGE, [key, value]))
    return told


@contextmanager
def _served() -> Iterator[str]:
    """The address of a server of this process."""
    import uvicorn

    listener = listen("127.0.0.1", 0)
    app = make_app(_MODEL, _CHIP, 1024, 256, max(_COUNTS))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def _offline(folder: str) -> str:
    """The address of a page with a grid; says how long the grid took."""
    offer = make_offer(models=[_MODEL], chips=[_CHIP], counts=_COUNTS, **_GRID)
    path = Path(folder) / "explorer.html"
    started = time.perf_counter()
    start = Start(model=_MODEL, chip=_CHIP, input_tokens=1024, output_tokens=256)
    write_explorer(offer, start, path)
    n_sheets, seconds = len(list(offer.questions())), time.perf_counter() - started
    print(f"grid      {n_sheets} sheets in {seconds:.1f} s, {path.stat().st_size / 1e6:.1f} MB with plotly.js")
    return path.as_uri()


def _report(name: str, told: dict[str, list[float]]) -> None:
    """First answer and median of the later ones, for each control."""
    print(f"\n{name:9} {'first (ms)':>12} {'later, median':>14} {'largest':>9}")
    for key, times in told.items():
        print(f"{key:9} {max(times[:2]):12.0f} {statistics.median(times[2:]):14.0f} {max(times):9.0f}")


def main() -> None:
    """Measure and print."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("left out: playwright is not installed (pip install 'shardwise[dev]')")
        return
    if chromium is None:
        print("left out: no Chromium on this machine (apt-get install chromium)")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        _report("offline", _measure(page, _offline(folder)))
        with _served() as address:
            _report("served", _measure(page, address))
        browser.close()


if __name__ == "__main__":
    main()
