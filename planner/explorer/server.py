"""The explorer answered live: a small ASGI application for one machine's own browser.

It listens to nobody else: a request must name a loopback host, so that a foreign page cannot reach it under a name of its
own, and one that a foreign page sends is refused.
"""

import asyncio
import ipaddress
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from ...hardware_specs.errors import SpecError
from .question import Offer, Question
from .sheet import make_sheet

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_KEPT_SHEETS = 512
_TEXT_FIELDS = ("model", "chip", "weights", "kv_dtype")
_NUMBER_FIELDS = ("input_tokens", "output_tokens")
_MAX_QUERY_BYTES = 4096
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)

_log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    status: int
    body: bytes
    kind: bytes = b"application/json"


def _failed(status: int, sentence: str) -> _Reply:
    return _Reply(status=status, body=json.dumps({"error": sentence}).encode())


class App:
    """The application: ``/`` is the page, ``/api/sheet`` answers a question; nothing is kept but answers.

    Parameters
    ----------
    offer : what the page offers; its largest count of chips is the largest that is planned for
    page : the page's text
    """

    def __init__(self, offer: Offer, page: str) -> None:
        self._most_chips = max(count for chip in offer.chips for count in chip.counts)
        self._page = page.encode()
        self._sheets: OrderedDict[Question, bytes] = OrderedDict()
        # the planner computes on one core, and a second question would only slow the first
        self._planner = asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            reply = await self._reply(scope)
        except Exception:
            _log.exception("a question failed")
            reply = _failed(500, "the planner failed on this question; the server's log says where")
        headers = [*_HEADERS, (b"content-type", reply.kind), (b"content-length", str(len(reply.body)).encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Message) -> _Reply:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _foreign(headers)
        if refused is not None:
            return _failed(403, refused)
        if scope["method"] not in ("GET", "HEAD"):
            return _failed(405, f"{scope['method']} is not answered; use GET")
        if scope["path"] == "/":
            return _Reply(status=200, body=self._page, kind=b"text/html; charset=utf-8")
        if scope["path"] != "/api/sheet":
            return _failed(404, f"nothing is at {scope['path']}; the page is at /, answers at /api/sheet")
        try:
            return _Reply(status=200, body=await self.sheet(read_question(scope["query_string"], self._most_chips)))
        except SpecError as error:
            return _failed(400, str(error))

    def warm(self, question: Question) -> None:
        """Answer a question before anybody asks it: what the planner reads from files is in memory from then on.

        Raises
        ------
        SpecError : as in `make_sheet`
        """
        self._sheets[question] = _answer(question)

    async def sheet(self, question: Question) -> bytes:
        """The answer to a question, from those that were given before where it is among them."""
        async with self._planner:
            if question not in self._sheets:
                self._sheets[question] = await asyncio.to_thread(_answer, question)
            self._sheets.move_to_end(question)
            if len(self._sheets) > _KEPT_SHEETS:
                self._sheets.popitem(last=False)
            return self._sheets[question]


def _answer(question: Question) -> bytes:
    return make_sheet(question).model_dump_json().encode()


async def _live(receive: Receive, send: Send) -> None:
    """Start and stop with the server."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _foreign(headers: Mapping[str, str]) -> str | None:
    """Why a request does not come from this machine's own browser, on a page of ours; None where it does."""
    host = headers.get("host", "")
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    if not is_loopback(name):
        return f"the request names the host {host!r}; this server answers to localhost and 127.0.0.1 alone"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "the request comes from a page of another site; open this server's own page"
    return None


def read_question(query: bytes, most_chips: int) -> Question:
    """Read a question from a query.

    Raises
    ------
    SpecError : a field is missing, unknown, twice there, or no number; or it asks for more chips than the server plans for
    """
    if len(query) > _MAX_QUERY_BYTES:
        raise SpecError(f"a query of {len(query)} bytes is longer than {_MAX_QUERY_BYTES}")
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    fields = dict(pairs)
    known = ("counts", *_TEXT_FIELDS, *_NUMBER_FIELDS)
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise SpecError(f"unknown field {unknown[0]!r}; known: {', '.join(known)}")
    if len(pairs) > len(fields):
        raise SpecError("a field is there twice; give each once")
    numbers: dict[str, Any] = {name: _whole(name, fields[name]) for name in _NUMBER_FIELDS if name in fields}
    if "counts" in fields:
        numbers["counts"] = tuple(_whole("counts", part) for part in fields["counts"].split(","))
        if max(numbers["counts"]) > most_chips:
            raise SpecError(
                f"counts={fields['counts']} asks for {max(numbers['counts'])} chips; this server plans for up to "
                f"{most_chips}, start it with a larger --max-chips"
            )
    try:
        return Question(**{name: fields[name] for name in _TEXT_FIELDS if name in fields}, **numbers)
    except ValidationError as error:
        missing = ", ".join(str(entry["loc"][0]) for entry in error.errors())
        raise SpecError(f"the question lacks {missing}; known: {', '.join(known)}") from None


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise SpecError(f"{name}={text!r} is no whole number; write e.g. 2048")
    return int(text)
