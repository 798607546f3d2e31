"""``serve`` listens on this machine alone and says why where it cannot."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from click.testing import Result
from shardwise.planner.cli import app
from typer.testing import CliRunner


def run(*arguments: str) -> Result:
    return CliRunner(env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}).invoke(app, ["serve", *arguments])


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "example.com", "::"])
def test_a_host_that_others_reach_is_refused(host: str) -> None:
    done = run("--host", host)
    assert done.exit_code == 2
    assert "is not this machine's own" in done.stderr
    assert "ssh -L" in done.stderr


def test_without_uvicorn_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = run()
    assert done.exit_code == 2
    assert "pip install 'shardwise[serve]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("no-such-model",), "no model 'no-such-model'"),
        (("gpt2", "--chip", "h9000"), "no chip 'h9000'"),
        (("gpt2", "--input", "2000"), "1024 positions"),
    ],
)
def test_what_the_page_cannot_open_with_is_refused_before_anything_listens(
    arguments: tuple[str, ...], sentence: str
) -> None:
    pytest.importorskip("uvicorn")
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert sentence in done.stderr


def test_a_port_that_is_taken_is_told() -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("gpt2", "--input", "64", "--output", "8", "--max-chips", "1", "--chip", "l40s", "--port", port)
    assert done.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A server of its own, as a user starts it."""
    pytest.importorskip("uvicorn")
    code = f"import sys; sys.path[:0] = {sys.path!r}; from shardwise.planner.cli import main; main()"
    options = ["gpt2", "--chip", "l40s", "--input", "64", "--output", "8", "--max-chips", "1", "--port", "0", "--json"]
    command = [sys.executable, "-c", code, "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        yield started
        started.terminate()


def address_of(server: subprocess.Popen[str]) -> str:
    """What it prints once it listens."""
    assert server.stdout is not None
    return str(json.loads(server.stdout.readline())["url"])


def test_ctrl_c_is_how_it_ends(server: subprocess.Popen[str]) -> None:
    urllib.request.urlopen(address_of(server), timeout=30)
    server.send_signal(signal.SIGINT)
    _, talk = server.communicate(timeout=30)
    assert (server.returncode, talk) == (0, "open it in a browser; Ctrl-C stops the server\n")


def test_the_server_gives_the_page_and_answers_it(server: subprocess.Popen[str]) -> None:
    address = address_of(server)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    page = urllib.request.urlopen(address, timeout=30)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b'<script type="application/json" id="page">' in page.read()
    query = "model=gpt2&chip=l40s&counts=1&input_tokens=64&output_tokens=8"
    sheet = json.load(urllib.request.urlopen(f"{address}api/sheet?{query}", timeout=30))
    assert sheet["plans"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}api/sheet?{query.replace('gpt2', 'gpt9')}", timeout=30)
    assert refused.value.code == 400
    assert "no model 'gpt9'" in json.load(refused.value)["error"]
