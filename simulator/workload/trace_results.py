"""Results of load generators: what was sent, and the times that were measured."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.errors import SpecError

_Request = tuple[float, int, int, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """Requests in order of arrival, with the times measured for each; all (n,).

    `ttft_s` and `e2e_s` count from the arrival.
    """

    format: str
    arrival_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    ttft_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]


def measured_run(name: str, requests: Iterable[_Request], path: Path) -> MeasuredRun:
    """Requests as (arrival, input, output, ttft, e2e) in seconds and tokens, put in order and begun at 0.

    Raises
    ------
    SpecError : none of them has tokens and times
    """
    kept = sorted(r for r in requests if r[1] >= 1 and r[2] >= 1 and all(map(math.isfinite, r)) and 0 < r[3] <= r[4])
    if not kept:
        raise SpecError(f"{path}: no request with tokens and times; was it written with per-request details?")
    arrival, n_in, n_out, ttft, e2e = (np.array(column) for column in zip(*kept, strict=True))
    return MeasuredRun(
        format=name,
        arrival_s=arrival - arrival[0],
        input_tokens=n_in.astype(np.int64),
        output_tokens=n_out.astype(np.int64),
        ttft_s=ttft,
        e2e_s=e2e,
    )


def read_results(document: Any, path: Path) -> MeasuredRun:
    """A load generator's JSON: ``vllm bench serve --save-detailed``, GuideLLM version 2, or inference-perf per request.

    Raises
    ------
    SpecError : none of these
    """
    for name, (is_it, requests) in _RESULTS.items():
        if is_it(document):
            try:
                return measured_run(name, list(requests(document)), path)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise SpecError(
                    f"{path}: results of {name} without {error}; write them with per-request details"
                ) from error
    raise SpecError(f"{path} is JSON, but no results of {', '.join(_RESULTS)}")


def _is_vllm(document: Any) -> bool:
    return isinstance(document, dict) and "total_input_tokens" in document


def _vllm(document: Any) -> Iterable[_Request]:
    """Lists in seconds: start_times, input_lens, output_lens, ttfts, itls."""
    columns = (document[name] for name in ("start_times", "input_lens", "output_lens", "ttfts", "itls"))
    for start, n_in, n_out, ttft, gaps in zip(*columns, strict=True):
        yield float(start), int(n_in), int(n_out), float(ttft), float(ttft) + float(sum(gaps))


def _is_guidellm(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("benchmarks"), list)


def _guidellm(document: Any) -> Iterable[_Request]:
    """Of benchmarks[0].requests.successful.

    Read are request_start_time, prompt_tokens, output_tokens, time_to_first_token_ms (ms) and request_latency (s).
    """
    for request in document["benchmarks"][0]["requests"]["successful"]:
        start = request.get("request_start_time", request.get("start_time"))
        ttft_s = float(request["time_to_first_token_ms"]) / 1e3
        yield (
            float(start),
            int(request["prompt_tokens"]),
            int(request["output_tokens"]),
            ttft_s,
            float(request["request_latency"]),
        )


def _is_inference_perf(document: Any) -> bool:
    return (
        isinstance(document, list) and bool(document) and isinstance(document[0], dict) and "start_time" in document[0]
    )


def _inference_perf(document: Any) -> Iterable[_Request]:
    """Of per_request_lifecycle_metrics.json; requests with an error are left out.

    Read are start_time, info.request_metrics.text.input_tokens (older: info.input_tokens) and, of info.response_metrics,
    output_tokens and output_token_times.
    """
    for request in document:
        info, start = request["info"], float(request["start_time"])
        answer = info.get("response_metrics") or info
        times = answer.get("output_token_times")
        if request.get("error") is None and times:
            text = (info.get("request_metrics") or {}).get("text") or info
            first, last = float(times[0]) - start, float(times[-1]) - start
            yield start, int(text["input_tokens"]), int(answer["output_tokens"]), first, last


_RESULTS: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Iterable[_Request]]]] = {
    "vllm-bench": (_is_vllm, _vllm),
    "guidellm": (_is_guidellm, _guidellm),
    "inference-perf": (_is_inference_perf, _inference_perf),
}


def conversation_lengths(document: Any, chars_per_token: float) -> tuple[tuple[int, int], ...]:
    """Lengths of the first question and answer of every conversation, by a stated number of characters a token.

    Raises
    ------
    SpecError : no such pair
    """
    if not chars_per_token > 0:
        raise SpecError(f"{chars_per_token} characters a token: write a positive number, e.g. 4")
    pairs = []
    for talk in document if isinstance(document, list) else ():
        turns: Any = talk.get("conversations", ()) if isinstance(talk, dict) else ()
        if len(turns) > 1 and turns[0].get("from") == "human" and turns[1].get("from") == "gpt":
            asked, answered = (max(1, round(len(turn.get("value", "")) / chars_per_token)) for turn in turns[:2])
            pairs.append((asked, answered))
    if not pairs:
        raise SpecError("no conversation that begins with a human and is answered by gpt")
    return tuple(pairs)


def load_json(text: str, path: Path) -> Any:
    """A whole JSON document.

    Raises
    ------
    SpecError : it is none
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise SpecError(f"{path} is no JSON: {error}") from error
