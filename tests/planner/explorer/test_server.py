"""The server answers its own page on its own machine, with the sentences of the terminal, and nobody else."""

import asyncio
import json
from typing import Any

import pytest
from shardwise.planner.explorer import Offer, Question, make_offer, make_sheet
from shardwise.planner.explorer.server import App, is_loopback

GOOD = "model=gpt2&chip=l40s&counts=1,2&input_tokens=128&output_tokens=16"


@pytest.fixture(scope="module")
def offer() -> Offer:
    return make_offer(models=["gpt2"], chips=["l40s"], counts=[1, 2], input_tokens=[128], output_tokens=[16])


@pytest.fixture
def app(offer: Offer) -> App:
    return App(offer, "<p>page</p>")


class Reply:
    """What an application sent for one request."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start, body = messages
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = body["body"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(app: App, path: str, query: str = "", method: str = "GET", **headers: str) -> Reply:
    """One request, as a server passes it on."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    named = {"host": "127.0.0.1:8321"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
    }
    asyncio.run(app(scope, receive, send))
    return Reply(sent)


def test_a_question_is_answered_by_its_sheet(app: App) -> None:
    reply = ask(app, "/api/sheet", GOOD)
    question = Question(model="gpt2", chip="l40s", counts=(1, 2), input_tokens=128, output_tokens=16)
    want = make_sheet(question).model_dump(mode="json", exclude={"wall_s"})
    assert reply.status == 200
    assert {name: value for name, value in reply.json.items() if name != "wall_s"} == want
    assert reply.headers["content-type"] == "application/json"


def test_a_question_that_was_answered_is_not_computed_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(app, "/api/sheet", GOOD)

    def broken(_: Question) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("shardwise.planner.explorer.server.make_sheet", broken)
    assert ask(app, "/api/sheet", GOOD).body == first.body


def test_only_so_many_answers_are_kept(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwise.planner.explorer.server._KEPT_SHEETS", 2)
    for n in (1, 2, 3):
        ask(app, "/api/sheet", GOOD.replace("input_tokens=128", f"input_tokens={n}"))
    assert [question.input_tokens for question in app._sheets] == [2, 3]


def test_the_page_is_at_the_root(app: App) -> None:
    reply = ask(app, "/")
    assert (reply.status, reply.body) == (200, b"<p>page</p>")
    assert reply.headers["x-frame-options"] == "DENY"
    assert ask(app, "/", method="HEAD").body == b""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("gpt2", "gpt9", "no model 'gpt9'"),
        ("l40s", "l9000", "no chip 'l9000'"),
        ("input_tokens=128", "input_tokens=many", "input_tokens='many' is no whole number"),
        ("input_tokens=128", "input_tokens=-1", "input_tokens='-1' is no whole number"),
        ("input_tokens=128", "input_tokens=2000", "1024 positions"),
        ("input_tokens=128", "input_tokens=0", "at least one input token"),
        ("output_tokens=16", "output_tokens=1e3", "output_tokens='1e3' is no whole number"),
        ("counts=1,2", "counts=", "counts='' is no whole number"),
        ("counts=1,2", "counts=64", "this server plans for up to 2"),
        ("counts=1,2", "counts=0", "no pool"),
        ("&counts=1,2", "", "the question lacks counts"),
        ("model=gpt2", "model=gpt2&weights=int7", "no dtype 'int7'"),
        ("model=gpt2", "model=gpt2&model=gpt2", "there twice"),
        ("model=gpt2", "model=gpt2&rate=5", "unknown field 'rate'"),
        ("model=gpt2", f"model={'x' * 5000}", "longer than 4096"),
        ("model=gpt2", "model=%00%ff", "no model"),
    ],
)
def test_bad_input_is_one_sentence_and_no_traceback(app: App, old: str, new: str, sentence: str) -> None:
    reply = ask(app, "/api/sheet", GOOD.replace(old, new))
    assert reply.status == 400
    assert list(reply.json) == ["error"]
    assert sentence in reply.json["error"]
    assert "Traceback" not in reply.json["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "192.168.0.7:8321", "0.0.0.0", "", "localhost.evil.example"]
)
def test_a_request_under_a_name_that_is_not_this_machine_s_is_refused(app: App, host: str) -> None:
    for path in ("/", "/api/sheet"):
        reply = ask(app, path, GOOD, host=host)
        assert reply.status == 403
        assert "answers to localhost and 127.0.0.1 alone" in reply.json["error"]


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8321", "127.8.8.8:80"])
def test_every_name_of_this_machine_will_do(app: App, host: str) -> None:
    assert ask(app, "/", host=host).status == 200


def test_a_page_of_another_site_gets_no_answer(app: App) -> None:
    for site in ("cross-site", "same-site"):
        reply = ask(app, "/api/sheet", GOOD, sec_fetch_site=site)
        assert reply.status == 403
        assert "another site" in reply.json["error"]
    assert ask(app, "/api/sheet", GOOD, sec_fetch_site="same-origin").status == 200


def test_other_paths_and_methods_are_told_what_there_is(app: App) -> None:
    assert ask(app, "/etc/passwd").status == 404
    assert "/api/sheet" in ask(app, "/nothing").json["error"]
    assert ask(app, "/", method="POST").status == 405


def test_a_fault_of_ours_is_logged_and_told_without_its_insides(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Question) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("shardwise.planner.explorer.server.make_sheet", broken)
    reply = ask(app, "/api/sheet", GOOD)
    assert reply.status == 500
    assert b"inside" not in reply.body
    assert "ZeroDivisionError" in caplog.text


def test_the_application_starts_and_stops_with_its_server(app: App) -> None:
    sent: list[str] = []
    waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.com", "127.0.0.1.evil.example", ""])
def test_what_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)
