"""A row of a measured table as a question to a predictor: what was run, on what, under which load."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.chip import Chip
from ..hardware_specs.errors import SpecError
from ..models.catalogue import get_model
from .lengths import RequestLengths, parse_number, request_lengths
from .metrics import Metric, Phases

Load = Literal["batch", "closed loop", "rate", "queue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCase:
    """What was run; rows that differ only in what they measured make equal cases.

    Parameters
    ----------
    model, hardware : catalogue names
    n_chips, tp, pp, dp, ep, moe_tp : None where the row does not say; of a mixture of experts tp and dp are those of attention,
        ep chips hold different experts and moe_tp chips a part of each
    power_w : what the chips' power is held below, None for their rating
    weights, kv_dtype : None for the model's own
    input_tokens, output_tokens : means over the requests
    input_cv, output_cv : standard deviation over mean of the lengths, 0 where all are alike
    load : a batch at once, a closed loop of users, requests at a rate, or everything queued
    n_requests : the batch, or the users; None for a rate and for a queue
    rate_per_s : requests a second, None under any other load
    n_beams : sequences that a request decodes side by side; each counts as a request of its own with its part of the prompt,
        which all of them share
    phases : what a batch's figure is made of; both under any other load
    is_rate : a throughput was measured, so what the row leaves open is chosen for throughput
    mesh : sizes of the mesh axes where the degrees alone do not say how a replica is cut
    """

    model: str
    hardware: str
    power_w: float | None
    n_chips: int | None
    tp: int | None
    pp: int | None
    dp: int | None
    ep: int | None
    moe_tp: int | None
    weights: str | None
    kv_dtype: str | None
    framework: str
    framework_version: str
    input_tokens: int
    output_tokens: int
    input_cv: float
    output_cv: float
    load: Load
    n_requests: int | None
    rate_per_s: float | None
    n_beams: int
    prefill_layout: str | None
    decode_layout: str | None
    phases: Phases
    is_rate: bool
    mesh: str | None = None


def parse_case(row: Mapping[str, str], metric: Metric) -> MeasuredCase:
    """Read a row.

    Raises
    ------
    SpecError : why the row cannot be predicted
    """
    model = get_model(_text(row, "model"))
    chip = get_chip(_text(row, "hardware"))
    if note_of(row, "mode") == "disagg":
        raise SpecError("prefill and decode ran on pools of their own, and no column says how the chips were split")
    load, n_requests, rate_per_s = _load(row, metric)
    # a phase is priced alone where it ran alone: in a batch at once, or as prompts that queue for nothing else
    alone = load == "batch" or (load == "queue" and metric.is_rate)
    phases: Phases = metric.phases if alone else ("prefill", "decode")
    lengths = _lengths(row, model.name, phases)
    tp, pp = (_count(row, name) for name in ("tp", "pp"))
    n_chips, dp, ep = (_count(row, name, zero_is_blank=True) for name in ("n_chips", "dp", "ep"))
    return MeasuredCase(
        model=model.name,
        hardware=chip.name,
        power_w=power_cap_w(_text(row, "hardware"), chip),
        n_chips=n_chips,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        moe_tp=_noted_count(row, "moe_tp"),
        weights=_weights(row, chip),
        kv_dtype=_format(row, "kv_dtype"),
        framework=_text(row, "framework"),
        framework_version=_text(row, "framework_version"),
        input_tokens=round((lengths.input_tokens or 0) / lengths.n_beams),
        output_tokens=lengths.output_tokens or 0,
        input_cv=lengths.input_cv,
        output_cv=lengths.output_cv,
        load=load,
        n_requests=n_requests,
        rate_per_s=None if rate_per_s is None else rate_per_s * lengths.n_beams,
        n_beams=lengths.n_beams,
        prefill_layout=_text(row, "prefill_layout") or None,
        decode_layout=_text(row, "decode_layout") or None,
        phases=phases,
        is_rate=metric.is_rate,
    )


# Part of the rated power that chips are held to where a table says no more than that they are: Splitwise's (section 4.7).
_CAPPED_SHARE = 0.5


def power_cap_w(text: str, chip: Chip) -> float | None:
    """The power cap that a name of hardware carries in brackets.

    >>> from ..hardware_specs.catalogue import get_chip
    >>> power_cap_w("A100-SXM4-80GB (330W cap, NVLink)", get_chip("a100-80gb-sxm"))
    330.0
    """
    if not re.search(r"\(.*\bcap", text, re.IGNORECASE):
        return None
    watts = re.search(r"(\d+) ?W\b", text)
    if watts is not None:
        return float(watts[1])
    return None if chip.tdp_w is None else _CAPPED_SHARE * chip.tdp_w.value


def _text(row: Mapping[str, str], column: str) -> str:
    return row.get(column, "").strip()


def note_of(row: Mapping[str, str], key: Literal["mode", "moe_tp"]) -> str | None:
    """The value of ``key=`` in the notes, of which no more than these two may be used."""
    found = re.search(rf"(?:^|[;\s]){key}=([^;\s]+)", _text(row, "notes"))
    return found[1] if found else None


def _format(row: Mapping[str, str], column: str) -> str | None:
    text = _text(row, column)
    return None if text.lower() in ("", "auto", "unset") else text


def _weights(row: Mapping[str, str], chip: Chip) -> str | None:
    """The format the weights are run in.

    MLPerf's logs name the format of the weights as they were handed out; submissions quantise them on their own, to 8-bit
    floats on every chip that multiplies those.
    """
    stated = _format(row, "weights_dtype")
    handed_out = _text(row, "framework_version").startswith("MLPerf") and (stated or "").lower() in ("fp16", "bf16")
    return "fp8" if handed_out and "fp8" in chip.dense_flop_per_s else stated


def _count(row: Mapping[str, str], column: str, *, zero_is_blank: bool = False) -> int | None:
    text = _text(row, column)
    number = parse_number(text)
    if not text or (zero_is_blank and number == 0):
        return None
    if number is None or not math.isfinite(number) or number < 1 or number != int(number) or number > 1e9:
        raise SpecError(f"{column}={text!r} is no count; write a whole number of at least 1, or leave it blank")
    return int(number)


def _noted_count(row: Mapping[str, str], key: Literal["moe_tp"]) -> int | None:
    text = note_of(row, key)
    return int(text) if text is not None and text.isdecimal() and int(text) > 0 else None


def _load(row: Mapping[str, str], metric: Metric) -> tuple[Load, int | None, float | None]:
    """Requests at a rate, else users in a closed loop, else a batch, else a queue of everything."""
    rate = _text(row, "qps")
    number = parse_number(rate)
    queued = "inf" in rate.lower()
    if rate and not queued:
        if number is None or not (math.isfinite(number) and number > 0):
            raise SpecError(f"qps={rate!r} is no rate; write a positive number, inf, or leave it blank")
        return "rate", None, number
    if (users := _count(row, "concurrency")) is not None:
        return "closed loop", users, None
    if (batch := _count(row, "batch")) is not None:
        return "batch", batch, None
    if queued or metric.is_rate:
        return "queue", None, None
    raise SpecError("a latency needs a batch or a concurrency")


def _lengths(row: Mapping[str, str], model: str, phases: Phases) -> RequestLengths:
    """Input and output tokens; the output may be missing where only prompts were read."""
    found = request_lengths(_text(row, "input_len"), _text(row, "output_len"), model)
    if not found.input_tokens:
        blank = found.input_tokens is None
        raise SpecError("input_len is blank" if blank else "input_len is 0, so there is no prompt to read")
    if found.output_tokens is None and "decode" in phases:
        raise SpecError("output_len is blank")
    if "decode" in phases and not found.output_tokens:
        raise SpecError("output_len is 0, so no token is decoded")
    return found
