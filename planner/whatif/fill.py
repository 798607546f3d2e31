"""Chosen pairs written out as rows, and the sentence where there is none."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hardware_specs.cluster import Slice
from ...hardware_specs.prices import Kind, catalogue_price
from ...hardware_specs.units import format_bytes, format_seconds
from ...models.layouts import layout_text
from ...simulator.cost.calibrated import Calibration, calibration_of
from ...simulator.cost.money import spent_usd, usd_per_mtok
from ...simulator.cost.phases import model_flop_utilization
from ...simulator.types import PhaseName
from ..request import PlanRequest
from .answers import Table
from .blocks import Variants
from .choose import Best, Bounds, Index, Row
from .details import BOUNDS, Details, details_of, source_of
from .keys import Change
from .points import Column, Points
from .question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Pairs on one slice: `where` are their places in `best`, `at` in `points`; the others (n,) of them."""

    request: PlanRequest
    slice: Slice
    best: Best
    where: Index
    points: Points
    at: Index
    calibration: Calibration
    limit_bytes: Column
    asked: Sequence[Question]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phase:
    """One phase of chosen pairs, each column (n,)."""

    rows: list[Row]
    place: Index
    columns: dict[str, Column]
    details: Details

    def of(self, read: Callable[[Variants, int], Any]) -> NDArray[Any]:
        """Something of each pair's candidate."""
        values = {int(i): read(self.rows[i].priced.variants, self.rows[i].row) for i in np.unique(self.place)}
        return np.array([values[int(i)] for i in self.place], object)


_READ = ("latency_s", "pass_s", "batch", "weights_bytes", "kv_bytes", "work_bytes")


def fill_rows(table: Table, index: Index, chosen: Chosen) -> None:
    """Write the rows of chosen pairs at `index`."""
    prefill, decode = (_phase(chosen, name) for name in ("prefill", "decode"))
    for columns in (_cut(chosen, prefill, decode), _times(chosen, prefill, decode), _memory(chosen, prefill, decode)):
        table.put(index, columns)
    table.put(index, _cost(chosen, prefill, decode))


def _phase(chosen: Chosen, name: str) -> _Phase:
    rows: list[Row] = getattr(chosen.best, f"{name}_rows")
    place: Index = getattr(chosen.best, name)[chosen.where]
    columns = {read: np.empty(len(place)) for read in _READ}
    for i in np.unique(place):
        here = place == i
        for read, column in columns.items():
            column[here] = rows[i].column(read)[chosen.at[here]]
    roofline = calibration_of(chosen.slice.chip, chosen.request.engine, bound=True).engine
    points = chosen.points.take(chosen.at)
    details = details_of(rows, place, points, columns["latency_s"], chosen.calibration, roofline)
    return _Phase(rows=rows, place=place, columns=columns, details=details)


def _layout(variants: Variants, row: int) -> str:
    setting = variants.laid.setting
    return layout_text(setting.layout, setting.attention, setting.experts)


def _mesh(variants: Variants, row: int) -> str:
    return "x".join(map(str, variants.laid.meshes[variants.mesh[row]].sizes))


def _cut(chosen: Chosen, prefill: _Phase, decode: _Phase) -> dict[str, Any]:
    """How the model is cut."""
    setting = decode.rows[0].priced.variants.laid.setting
    return {
        "fits": True,
        "slice": str(chosen.slice),
        "n_chips": chosen.slice.n_chips,
        "mesh": decode.of(_mesh),
        "tp": decode.of(lambda v, row: v.laid.meshes[v.mesh[row]].tp),
        "pp": decode.of(lambda v, row: v.laid.setting.pp),
        "dp": decode.of(lambda v, row: v.laid.setting.dp),
        "prefill_layout": prefill.of(_layout),
        "decode_layout": decode.of(_layout),
        "prefill_batch": prefill.columns["batch"].astype(np.int64),
        "decode_batch": decode.columns["batch"].astype(np.int64),
        "weights": setting.formats.weights.name,
        "kv_dtype": setting.formats.kv.name,
        "engine": chosen.request.engine_name(chosen.slice),
    }


def _times(chosen: Chosen, prefill: _Phase, decode: _Phase) -> dict[str, Any]:
    """Seconds with their intervals, and what binds them."""
    p, d = prefill.details, decode.details
    handoff = chosen.best.latency_s[chosen.where] - prefill.columns["latency_s"] - decode.columns["latency_s"]
    far = p.extrapolated | d.extrapolated
    return {
        "ttft_s": prefill.columns["pass_s"],
        "tpot_s": decode.columns["pass_s"],
        "request_latency_s": chosen.best.latency_s[chosen.where],
        "request_latency_low_s": p.low_s + d.low_s + handoff,
        "request_latency_high_s": p.high_s + d.high_s + handoff,
        "prefill_latency_s": prefill.columns["latency_s"],
        "decode_latency_s": decode.columns["latency_s"],
        "prefill_bound": np.array(BOUNDS, object)[p.bound],
        "decode_bound": np.array(BOUNDS, object)[d.bound],
        "source": np.array([source_of(chosen.calibration, bool(one)) for one in far], object),
    }


def _memory(chosen: Chosen, prefill: _Phase, decode: _Phase) -> dict[str, Any]:
    """Bytes on the fullest chip, while either phase works."""
    p, d = prefill.columns, decode.columns
    return {
        "hbm_bytes_per_chip": chosen.best.peak_bytes[chosen.where],
        "hbm_limit_bytes": chosen.limit_bytes,
        "weights_bytes": p["weights_bytes"],
        "kv_bytes": np.maximum(p["kv_bytes"], d["kv_bytes"]),
        "work_bytes": np.maximum(p["work_bytes"], d["work_bytes"]),
    }


def _cost(chosen: Chosen, prefill: _Phase, decode: _Phase) -> dict[str, Any]:
    """Chip-seconds, rates, utilisation and dollars."""
    n_chips, points = chosen.slice.n_chips, chosen.points.take(chosen.at)
    chip_s = chosen.best.chip_s[chosen.where]
    capacity_per_s = n_chips / chip_s
    asked_per_s = np.array([np.nan if q.rate_per_s is None else q.rate_per_s for q in chosen.asked])
    served_per_s = np.where(np.isnan(asked_per_s), capacity_per_s, asked_per_s)
    prices = {q.price: usd_per_h(chosen.slice.chip_name, q.price) for q in _first_of_each(chosen.asked)}
    dollars = n_chips * np.array([prices[q.price] for q in chosen.asked])
    setting = decode.rows[0].priced.variants.laid.setting
    peak = chosen.slice.chip.peak_flop_per_s(setting.formats.matmul) * n_chips * points.flop

    def mfu(phase: _Phase, name: PhaseName, tokens: Column) -> Any:
        # a model that generates nothing has a decode of no step
        capacity = np.where(phase.columns["pass_s"] > 0, peak * phase.columns["pass_s"], np.inf)
        return model_flop_utilization(setting.model, phase.columns["batch"] * tokens, capacity, name)

    def chip_s_per_token(phase: _Phase, tokens: Column) -> Any:
        return n_chips * phase.columns["latency_s"] / (phase.columns["batch"] * _some(tokens))

    return {
        "prefill_mfu": mfu(prefill, "prefill", points.input_tokens),
        "decode_mfu": mfu(decode, "decode", np.ones(len(chip_s))),
        "chip_s_per_request": chip_s,
        "prefill_chip_s_per_token": chip_s_per_token(prefill, points.input_tokens),
        "decode_chip_s_per_token": chip_s_per_token(decode, points.output_tokens),
        "requests_per_s": capacity_per_s,
        "output_tokens_per_s": capacity_per_s * points.output_tokens,
        "utilization": asked_per_s / capacity_per_s,
        "usd_per_h": dollars,
        "usd_per_mtok_output": usd_per_mtok(spent_usd(dollars, 1.0), served_per_s * _some(points.output_tokens)),
    }


def _some(tokens: Column) -> Column:
    """Tokens to lay a cost on; NaN where there are none."""
    return np.where(tokens > 0, tokens, np.nan)


def _first_of_each(asked: Sequence[Question]) -> list[Question]:
    """One question of each price."""
    return list({q.price: q for q in asked}.values())


def usd_per_h(chip: str, price: Change | str | None) -> float:
    """Price of a chip-hour as it was asked for, NaN where none is known."""
    kind: Kind = price if isinstance(price, str) else "on_demand"  # type: ignore[assignment]
    known = catalogue_price(chip, kind)
    usual = np.nan if known is None else known.usd_per_h
    if not isinstance(price, Change):
        return usual
    return price.value if price.value is not None else usual * (price.factor or 1.0)


def reason_of(question: Question, found: Sequence[Best], j: int, bounds: Bounds, refused: Counter[str]) -> str:
    """Why no pair will do at point `j`, with the nearest."""
    if not any(best.n_pairs[j] for best in found):
        return _nothing_lies(question, refused)
    least = min(float(best.least_bytes[j]) for best in found)
    limit = float(bounds.limit_bytes[j])
    if least > limit:
        return f"needs {format_bytes(least)} a chip, {format_bytes(limit)} may be used"
    for name, text in (("ttft", "TTFT"), ("tpot", "TPOT")):
        quickest = min(float(getattr(best, f"least_{name}_s")[j]) for best in found)
        asked = float(getattr(bounds, f"{name}_s")[j])
        if quickest > asked:
            return f"{text} {format_seconds(quickest)} at best, the limit is {format_seconds(asked)}"
    most, rate = max(float(best.most_rate_per_s[j]) for best in found), float(bounds.least_rate_per_s[j])
    if most == 0.0:
        return "no plan keeps both limits at once"
    return f"{rate:.4g} requests/s are more than the chips answer: {most:.4g} at best"


def _nothing_lies(q: Question, refused: Counter[str]) -> str:
    batches = [b for b in (q.prefill_batch, q.decode_batch) if b is not None]
    if q.dp is not None and any(batch % q.dp for batch in batches):
        return f"a batch of {' and '.join(map(str, dict.fromkeys(batches)))} does not divide over {q.dp} replicas"
    if refused:
        return "; ".join(sorted(refused))
    return "no mesh and layout of these chips are what was asked for"
