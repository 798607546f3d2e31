"""A real browser for the explorer's page, where there is one, and what it did while a page was open."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shardwise

ROOT = Path(shardwise.__file__).resolve().parent
# Screenshots that a build keeps.
ARTEFACTS = Path(os.environ.get("SHARDWISE_ARTEFACTS", ROOT / "build" / "screenshots"))
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


class Visit:
    """A page in the browser: what it asked of whom, and what it complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))

    def open(self, address: str) -> "Visit":
        """Go to an address and wait for the answer."""
        self.page.goto(address)
        self.page.wait_for_selector("body[data-state='done']")
        return self

    def answered(self, act: Callable[[], object]) -> "Visit":
        """Do something, and wait until the page has answered it."""
        before = self.page.evaluate("Number(document.body.dataset.answers)")
        act()
        done = f"Number(document.body.dataset.answers) > {before} && document.body.dataset.state === 'done'"
        return self.until(done)

    def until(self, condition: str) -> "Visit":
        """Wait until the page says so; by evaluation from outside, which its policy allows."""
        deadline = time.monotonic() + 60.0
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.005)
        return self

    def set(self, key: str, value: str) -> "Visit":
        """Set a control and wait for the answer."""
        place = self.page.locator(f"#{key}")
        if place.evaluate("node => node.tagName") == "SELECT":
            return self.answered(lambda: place.select_option(value))
        return self.answered(lambda: (place.fill(value), place.press("Enter")))

    def text(self, where: str) -> str:
        """The text of an element."""
        return str(self.page.locator(where).inner_text())

    def keep(self, name: str) -> Path:
        """Take a screenshot of the whole page for the build."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTEFACTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or the reason why its tests are left out.

    It is closed at the end of its module: while it is open, its driver's event loop is the thread's.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open pages, each in a context of its own."""
    contexts = []

    def make(width: str = "desktop", **options: Any) -> Visit:
        x, y = WIDTHS[width]
        context = browser.new_context(viewport={"width": x, "height": y}, **options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        return Visit(context.new_page())

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def offline_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explorer with a small grid in it."""
    from shardwise.planner.explorer import Start, make_offer, write_explorer

    offer = make_offer(
        models=["llama-3.1-8b"],
        chips=["h100-sxm", "l40s"],
        counts=[1, 2, 4],
        input_tokens=[512, 2048],
        output_tokens=[128],
        weights=["own", "fp8"],
    )
    start = Start(model="llama-3.1-8b", chip="h100-sxm", input_tokens=2048, output_tokens=128, tpot_s=0.02)
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    write_explorer(offer, start, path, made_by="shardwise whatif plan.json --interactive -o explorer.html")
    return path


@pytest.fixture(scope="session")
def live_address() -> Iterator[str]:
    """A server on a free port, in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'shardwise[serve]'")
    from shardwise.planner.cli.serve import listen, make_app

    listener = listen("127.0.0.1", 0)
    app = make_app("llama-3.1-8b", "h100-sxm", 2048, 128, 4)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
