"""Measured requests: what load generators and engines write of each request they served.

What is read, times in seconds:

``vllm-bench``
    ``vllm bench serve --save-detailed``: the lists ``input_lens``, ``output_lens``, ``ttfts``, ``itls`` and ``start_times``.
``vllm-run``
    A line a request: ``input_toks``, ``output_toks``; ``arrival_time`` on the wall clock; ``queued_ts``, ``first_token_ts`` and
    ``last_token_ts`` on the engine's. The clocks are laid so that the request that is queued the soonest is so at once.
``guidellm``
    ``benchmarks.json`` with one benchmark: each of ``benchmarks[0].requests.successful`` has ``prompt_tokens``,
    ``output_tokens`` and ``info.timings`` with ``request_start``, ``first_token_iteration`` and ``last_token_iteration``.
``inference-perf``
    ``per_request_lifecycle_metrics.json``: each has ``start_time``, ``info.input_tokens`` (or
    ``info.request_metrics.text.input_tokens``), and in ``info`` or ``info.response_metrics`` the ``output_tokens`` and
    ``output_token_times``.

A request that failed, was cut off or was not streamed is a bad row.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from ...hardware_specs.errors import SpecError
from .trace_jsonl import objects
from .trace_rows import Answer, BadRow, Row, to_seconds, to_tokens

# How each tool's own report defines time per output token.
TPOT_DEFINITIONS = {
    "vllm-bench": "(e2e - TTFT) / (output tokens - 1)",
    "vllm-run": "(e2e - TTFT) / (output tokens - 1)",
    "guidellm": "e2e / output tokens, weighted by output tokens",
    "inference-perf": "(e2e - TTFT) / (output tokens - 1)",
}
_VLLM_LISTS = ("start_times", "input_lens", "output_lens", "ttfts", "itls")


def result_format(document: object) -> str | None:
    """The format of a document, or of the first line of one that has several."""
    if isinstance(document, dict):
        keys = document.keys()
        if "benchmarks" in keys:
            return "guidellm"
        if keys >= {"total_input_tokens"} or keys >= {"input_lens", "output_lens"}:
            return "vllm-bench"
        return "vllm-run" if keys >= {"input_toks", "queued_ts"} else None
    first = document[0] if isinstance(document, list) and document else None
    return "inference-perf" if isinstance(first, dict) and first.keys() >= {"start_time", "info"} else None


def read_results(name: str, lines: TextIO) -> Iterator[Row | BadRow]:
    """The requests in order of their start, those that cannot be read first.

    Raises
    ------
    SpecError : the document is not of that format
    """
    found = list(_READERS[name](lines))
    yield from (row for row in found if isinstance(row, BadRow))
    yield from sorted((row for row in found if isinstance(row, Row)), key=lambda row: row.time_s)


def _answered(place: int, start_s: float, tokens: tuple[object, object], first: object, last: object) -> Row:
    """A request with its start and the times of its first and last token, on one clock."""
    n_in, n_out = to_tokens(tokens[0], "input tokens"), to_tokens(tokens[1], "output tokens")
    if first is None:
        raise ValueError("no time of its first token; measure with streaming on")
    ttft_s = to_seconds(first, "time of the first token") - start_s
    e2e_s = to_seconds(last, "time of the last token") - start_s
    if not 0.0 <= ttft_s <= e2e_s:
        raise ValueError(f"its first and last token come {ttft_s:.6g} and {e2e_s:.6g} s after its start, out of order")
    return Row(place, start_s, n_in, n_out, answer=Answer(ttft_s, e2e_s))


def _vllm_bench(lines: TextIO) -> Iterator[Row | BadRow]:
    document = _document(lines, dict)
    missing = [name for name in _VLLM_LISTS if not isinstance(document.get(name), list)]
    if missing:
        raise SpecError(f"it has no list {', '.join(missing)}; run vllm bench serve with --save-detailed")
    lists = [document[name] for name in _VLLM_LISTS]
    if len({len(values) for values in lists}) > 1:
        raise SpecError(f"its lists {', '.join(_VLLM_LISTS)} differ in length")
    for place, (start, n_in, n_out, ttft, gaps) in enumerate(zip(*lists, strict=True), start=1):
        try:
            ttft_s = to_seconds(ttft, "ttfts")
            row = _answered(place, 0.0, (n_in, n_out), ttft_s, ttft_s + sum(to_seconds(gap, "itls") for gap in gaps))
            row.time_s = to_seconds(start, "start_times")
            yield row
        except (ValueError, TypeError) as error:
            yield BadRow(place, str(error))


def _vllm_run(lines: TextIO) -> Iterator[Row | BadRow]:
    found: list[tuple[int, float, dict[str, Any]]] = []
    handovers_s = []
    for place, line in objects(lines):
        if isinstance(line, BadRow):
            yield line
            continue
        try:
            arrival_s = to_seconds(line.get("arrival_time"), "arrival_time")
            handovers_s.append(to_seconds(line.get("queued_ts"), "queued_ts") - arrival_s)
            found.append((place, arrival_s, line))
        except ValueError as error:
            yield BadRow(place, str(error))
    shift_s = min(handovers_s, default=0.0)
    for place, arrival_s, line in found:
        tokens = line.get("input_toks"), line.get("output_toks")
        try:
            yield _answered(place, arrival_s + shift_s, tokens, line.get("first_token_ts"), line.get("last_token_ts"))
        except ValueError as error:
            yield BadRow(place, str(error))


def _guidellm(lines: TextIO) -> Iterator[Row | BadRow]:
    runs = _document(lines, dict).get("benchmarks")
    n = len(runs) if isinstance(runs, list) else 0
    if n != 1:
        raise SpecError(f"it holds {n} benchmarks, and one is replayed at a time; keep one in its list 'benchmarks'")
    groups = runs[0].get("requests") if isinstance(runs[0], dict) else None
    if not isinstance(groups, dict) or not isinstance(groups.get("successful"), list):
        raise SpecError("it has no list benchmarks[0].requests.successful; is it a benchmarks.json of GuideLLM?")
    place = 0
    for name in ("successful", "incomplete", "errored"):
        for request in groups.get(name) or []:
            place += 1
            yield _guidellm_row(place, request) if name == "successful" else BadRow(place, f"{name} in the benchmark")


def _guidellm_row(place: int, request: Any) -> Row | BadRow:
    try:
        timings = request["info"]["timings"]
        start_s = to_seconds(timings["request_start"], "request_start")
        tokens = request["prompt_tokens"], request["output_tokens"]
        return _answered(place, start_s, tokens, timings["first_token_iteration"], timings["last_token_iteration"])
    except KeyError as error:
        return BadRow(place, f"it has no {error}")
    except (ValueError, TypeError) as error:
        return BadRow(place, str(error))


def _inference_perf(lines: TextIO) -> Iterator[Row | BadRow]:
    for place, request in enumerate(_document(lines, list), start=1):
        try:
            yield _perf_row(place, request)
        except KeyError as error:
            yield BadRow(place, f"it has no {error}")
        except (ValueError, TypeError, AttributeError) as error:
            yield BadRow(place, str(error))


def _perf_row(place: int, request: Any) -> Row:
    if request.get("error"):
        raise ValueError("it failed in the benchmark")
    info = request["info"]
    n_in = info["input_tokens"] if "input_tokens" in info else info["request_metrics"]["text"]["input_tokens"]
    response = info.get("response_metrics") or info
    times = response.get("output_token_times") or response.get("chunk_times") or [None]
    start_s = to_seconds(request["start_time"], "start_time")
    return _answered(place, start_s, (n_in, response["output_tokens"]), times[0], times[-1])


def _document(lines: TextIO, kind: type) -> Any:
    """All of a file as one JSON document."""
    document = json.load(lines)
    if not isinstance(document, kind):
        raise SpecError(f"it holds a JSON {type(document).__name__}, not a {kind.__name__}")
    return document


_READERS = {"vllm-bench": _vllm_bench, "vllm-run": _vllm_run, "guidellm": _guidellm, "inference-perf": _inference_perf}
