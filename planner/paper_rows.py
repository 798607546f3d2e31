"""The paper's conclusions as checks on the planner and on the reproduced tables.

A check returns whether the conclusion holds and what we get; where the paper states no more than a time that the model
does not claim to meet, it returns None and our figures are printed beside the paper's.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import groupby
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..hardware_specs.units import format_seconds
from ..models.catalogue import get_model
from ..models.layouts import LAYOUTS
from ..validate.compared import Compared, largest_error
from ..validate.published import Claim, Pope2022, Timing, load_pope2022
from ..validate.reproduce import (
    GpuRun,
    Reproduction,
    gpu_seconds,
    predict_timing_s,
    published_mfu,
    reproduce_pope2022,
)
from ..validate.volumes import best_2d_mesh, crossing_tokens, ffn_model, ffn_volume_bytes, max_context_tokens
from .api import plan
from .result import Plan, PlanResult

Verdict = Literal["holds", "differs", "printed"]

_MODEL, _SLICE, _CHIPS, _SMALLEST_AXIS = "palm-540b", "tpu-v4:4x4x4", 64, 4
_BATCHES = tuple(2**i for i in range(11))
# The axes a model's heads are cut over if they are to divide on 64 chips unpadded: 48 over 16.
_FEWER_AXES = ("y", "z")
# Figure 3 is read off to five digits; a printed share of Table D.2 to half a percent.
_FIGURE_TOLERANCE, _PRINTED_SHARE, _TABLE1_TOLERANCE = 1e-3, 0.005, 0.015


class PaperRow(BaseModel):
    """One conclusion: what the paper says, what we get, and whether they agree."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    source: str
    paper: str
    ours: str
    verdict: Verdict


class Finding(BaseModel):
    """What a check found; `holds` None is printed only."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    holds: bool | None
    ours: str


def paper_rows(report: Reproduction | None = None) -> tuple[PaperRow, ...]:
    """Every conclusion of the paper, checked; `report` saves computing the tables again."""
    made = report if report is not None else reproduce_pope2022()
    return tuple(check_row(claim, made) for claim in load_pope2022().claims)


def check_row(claim: Claim, report: Reproduction) -> PaperRow:
    """One conclusion, checked."""
    found = CHECKS[claim.id](report) if claim.id in CHECKS else _timings(claim)
    verdict: Verdict = "printed" if found.holds is None else "holds" if found.holds else "differs"
    return PaperRow(id=claim.id, source=claim.source, paper=claim.says, ours=found.ours, verdict=verdict)


def _timings(claim: Claim) -> Finding:
    """The times a conclusion quotes, beside ours."""
    parts = [
        f"{row.id} {format_seconds(predict_timing_s(row))} ({format_seconds(row.value_s)})" for row in claim.timings
    ]
    return Finding(holds=None, ours=", ".join(parts))


@cache
def _paper() -> Pope2022:
    return load_pope2022()


def _timing(row_id: str) -> Timing:
    return next(row for row in _paper().timings if row.id == row_id)


def _changed_s(row_id: str, *, head_axes: tuple[str, ...] | None = None, **changes: object) -> float:
    """Seconds of a timed phase with something changed."""
    return predict_timing_s(_timing(row_id).model_copy(update=changes), head_axes=head_axes)


@cache
def _plan(prefill_batch: int, decode_batch: int, weights: str = "bf16", decode_on: str | None = None) -> Plan:
    """What the planner chooses for the paper's request: 2048 tokens in, 64 out, on 64 chips."""
    return _result(_MODEL, _SLICE, prefill_batch, decode_batch, weights, decode_on).best


def _result(
    model: str, on: str, prefill_batch: int, decode_batch: int, weights: str = "bf16", decode_on: str | None = None
) -> PlanResult:
    return plan(
        model,
        on,
        input_tokens=2048,
        output_tokens=64,
        prefill_batch=prefill_batch,
        decode_batch=decode_batch,
        weights=weights,
        decode_on=decode_on,
        top=1,
    )


def _runs(choices: Mapping[int, str]) -> str:
    """Equal choices of successive batches, as ranges."""
    parts = []
    for choice, group in groupby(choices, key=lambda batch: choices[batch]):
        batches = list(group)
        span = f"{batches[0]}" if len(batches) == 1 else f"{batches[0]}-{batches[-1]}"
        parts.append(f"{choice} at {span}")
    return ", ".join(parts)


def _decode_layouts(report: Reproduction) -> Finding:
    """Decode that shares its weights with the prefill of one sequence, as in Table 2; and decode by itself."""
    shared = {batch: _plan(1, batch).decode.ffn for batch in _BATCHES}
    alone = {batch: _plan(1, batch, decode_on=_SLICE).decode.ffn for batch in _BATCHES}
    holds = all(ffn == "ws-2d" for chosen in (shared, alone) for batch, ffn in chosen.items() if batch >= _CHIPS)
    return Finding(holds=holds, ours=f"{_runs(shared)} beside prefill; decode alone {_runs(alone)}")


def _single_prefill(report: Reproduction) -> Finding:
    layout = _plan(1, 64, "int8").prefill.layout
    return Finding(holds=layout == "ws-2d/heads", ours=layout)


def _large_prefill(report: Reproduction) -> Finding:
    layout = _plan(512, 512).prefill.layout
    return Finding(holds=layout == "wg-xyz/batch", ours=layout)


def _prefill_crossover(report: Reproduction) -> Finding:
    """The first batch, in whole sequences a chip, whose gathered prefill is the quicker."""
    batches = range(_CHIPS, 513, _CHIPS)
    first = next(b for b in batches if _changed_s("fig7-wg-xyz-64", batch=b) < _changed_s("fig7-ws-2d-64", batch=b))
    model = get_model(_MODEL)
    tokens = crossing_tokens(ffn_model(model.d_model, model.d_ff), "ws-2d", "wg-xyz", _paper().fig3.mesh)
    told = f"by time ws-2d at {(first - _CHIPS) * 2048:,}, wg-xyz from {first * 2048:,}; by volume alone from {tokens:,.0f}"
    return Finding(holds=None, ours=told)


def _switch_points(report: Reproduction) -> Finding:
    worst = max(largest_error(report.figure3), largest_error(report.switch_points))
    points = ", ".join(f"{row.ours:,.0f}" for row in report.switch_points)
    return Finding(holds=worst <= _FIGURE_TOLERANCE, ours=f"changes at {points}; 56 volumes within {worst:.2%}")


def _one_against_two(report: Reproduction) -> Finding:
    """Volumes of 1D and of the best 2D mesh at F = 4E."""
    model, tokens = ffn_model(4096, 16384), 1024.0
    ratios = {}
    for n_chips in (4, 16, 64, 256):
        one = ffn_volume_bytes(model, "ws-1d", {"x": float(n_chips)}, tokens)
        ratios[n_chips] = best_2d_mesh(model, n_chips, tokens)[1] / one
    holds = all((ratio < 1.0) == (n_chips > 16) for n_chips, ratio in ratios.items())
    told = ", ".join(f"{ratio:.2f} on {n_chips}" for n_chips, ratio in ratios.items())
    return Finding(holds=holds, ours=f"2D / 1D volume {told} chips")


def _one_against_two_steps(report: Reproduction) -> Finding:
    """Figure 6: the steps themselves."""
    parts = []
    for n_chips in (64, 128, 256):
        two, one = (_pair(report.fitted.rows, f"fig6-{layout}-{n_chips}") for layout in ("ws-2d", "ws-1d"))
        parts.append(f"{n_chips} chips {two} against {one}")
    return Finding(holds=None, ours="; ".join(parts))


def _pair(rows: tuple[Compared, ...], row_id: str) -> str:
    """Ours, and the published time in brackets."""
    row = next(row for row in rows if row.id == row_id)
    return f"{format_seconds(row.ours)} ({format_seconds(row.published)})"


def _best_mesh(report: Reproduction) -> Finding:
    x, _ = best_2d_mesh(ffn_model(4096, 16384), _CHIPS, 1024.0)
    return Finding(holds=x == 4.0, ours=f"X = {x:.0f}, YZ = {_CHIPS / x:.0f}")


def _one_copy(report: Reproduction) -> Finding:
    """The stored forms, and that the planner's phases share their weights though their layouts differ."""
    names = ("ws-2d", "wg-x", "wg-xy", "wg-xyz")
    forms = {str(LAYOUTS[name].stored) for name in names}
    best = _plan(512, 512)
    shared = best.shared and best.prefill.memory.weights == best.decode.memory.weights
    told = f"{' and '.join(sorted(forms))} in all four; {best.prefill.ffn} then {best.decode.ffn} on one copy"
    return Finding(holds=len(forms) == 1 and shared, ours=told)


def _decode_attention(report: Reproduction) -> Finding:
    chosen = {batch: _plan(1, batch).decode.attention for batch in _BATCHES}
    holds = all(attention == "batch" for batch, attention in chosen.items() if batch >= _SMALLEST_AXIS)
    return Finding(holds=holds, ours=_runs(chosen))


def _prefill_attention(report: Reproduction) -> Finding:
    """A short batch has fewer sequences than the smallest axis has chips: cutting it brings nothing."""
    chosen = {batch: _plan(batch, 512).prefill.attention for batch in _BATCHES if batch <= 512}
    holds = all(attention == "heads" for batch, attention in chosen.items() if batch < _SMALLEST_AXIS)
    return Finding(holds=holds, ours=_runs(chosen))


def _longest_contexts(report: Reproduction) -> Finding:
    told = ", ".join(f"{row.ours:,.0f}" for row in report.table1)
    return Finding(holds=largest_error(report.table1) <= _TABLE1_TOLERANCE, ours=told)


def _head_sharded_cache(report: Reproduction) -> Finding:
    """Ratio of cache bytes a token, the inverse of that of contexts."""
    paper = _paper()
    heads = {
        row.model: max_context_tokens(paper, row)
        for row in paper.table1
        if row.attention == "heads" and row.batch == 512
    }
    ratio = heads["palm-540b-multihead-padded"] / heads["palm-540b-padded"]
    return Finding(holds=ratio == 2.0, ours=f"{ratio:.6g} times")


def _serial_block(report: Reproduction) -> Finding:
    serial, parallel = (_changed_s("table2-decode-512", model=name) for name in ("palm-540b-serial", "palm-540b"))
    return Finding(holds=None, ours=f"{serial / parallel - 1.0:+.1%}")


def _padded_heads(report: Reproduction) -> Finding:
    """The latency plan of Table 2 with 48 heads: padded over all axes, or attention replicated over one of them."""
    row = "table2-decode-64"
    padded, fewer = _changed_s(row, model=_MODEL), _changed_s(row, model=_MODEL, head_axes=_FEWER_AXES)
    chosen = _plan(1, 64, "int8")
    heads = {phase.n_heads_padded for phase in (chosen.prefill, chosen.decode)}
    large = [_changed_s("table2-decode-512", model=_MODEL, head_axes=axes) for axes in (None, _FEWER_AXES)]
    told = (
        f"int8 decode of 64: {padded / fewer - 1.0:+.1%} against replicated attention, the plan pads to {max(heads)}; "
        f"bf16 decode of 512: {large[0] / large[1] - 1.0:+.1%}"
    )
    return Finding(holds=padded < fewer and heads == {_CHIPS}, ours=told)


def _interactive(report: Reproduction) -> Finding:
    best = plan(
        _MODEL, _SLICE, input_tokens=2048, output_tokens=64, weights="int8", ttft_s=0.5, tpot_s=0.03, top=1
    ).best
    told = f"int8, TTFT 500 ms, TPOT 30 ms: prefill batch {best.prefill.batch}, decode batch {best.decode.batch}"
    return Finding(holds=best.prefill.batch < best.decode.batch, ours=told)


def _throughput(report: Reproduction) -> Finding:
    best = _plan(512, 512)
    holds = best.prefill.ffn.startswith("wg-") and best.decode.ffn == "ws-2d"
    return Finding(holds=holds, ours=f"{best.prefill.layout}, then {best.decode.layout}")


def _decode_costs(model: str) -> dict[int, float]:
    """Chip-seconds a token of decode at batch 512, by chips that hold the model."""
    costs = {}
    for n_chips in (8, 16, 32, 64, 128):
        plans = _result(model, f"tpu-v4:{n_chips}", 1, 512).plans
        if plans and plans[0].decode.cost_chip_s_per_token is not None:
            costs[n_chips] = plans[0].decode.cost_chip_s_per_token
    return costs


@cache
def _cheapest_decode() -> dict[str, tuple[int, float]]:
    """Chips and chip-seconds a token of the cheapest decode, by model."""
    costs = {model: _decode_costs(model) for model in (_MODEL, "palm-62b", "palm-8b")}
    return {model: min(found.items(), key=lambda item: item[1]) for model, found in costs.items()}


def _cheapest_chips(report: Reproduction) -> Finding:
    told = ", ".join(f"{n_chips} for {model}" for model, (n_chips, _) in _cheapest_decode().items())
    return Finding(holds=None, ours=f"batch 512: {told}")


def _cheapest_cost(report: Reproduction) -> Finding:
    told = ", ".join(f"{cost * 1e3:.4g}" for _, cost in _cheapest_decode().values())
    return Finding(holds=None, ours=f"batch 512: {told} chip-ms")


def _utilization(report: Reproduction) -> Finding:
    worst = largest_error(report.mfu)
    told = f"{len(report.mfu)} cells of Table D.2 within {worst:.4f} of what is printed in whole percent"
    return Finding(holds=worst <= _PRINTED_SHARE, ours=told)


def _more_gpus(report: Reproduction) -> Finding:
    """Quicker, but by less than twice: at a lower MFU."""
    times: dict[str, list[float]] = {"TP16": [], "TP32": []}
    for row in report.fastertransformer.rows:
        if row.group in times:
            times[row.group].append(row.ours)
    ratios = [wide / narrow for wide, narrow in zip(times["TP32"], times["TP16"], strict=True)]
    told = f"TP32 / TP16 latency {min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} batches"
    return Finding(holds=all(0.5 < ratio < 1.0 for ratio in ratios), ours=told)


def _out_of_memory(report: Reproduction) -> Finding:
    rows = report.out_of_memory
    told = ", ".join(
        f"{row.input}/{row.output} batch {row.batch} {row.needs_bytes / row.limit_bytes:.1%}"
        for row in rows
        if row.ran_out
    )
    most = max(row.needs_bytes / row.limit_bytes for row in rows if not row.ran_out)
    return Finding(
        holds=all(row.same for row in rows), ours=f"of the memory: {told}; those that ran at most {most:.1%}"
    )


def _pipeline(report: Reproduction) -> Finding:
    run = GpuRun(model="mt-nlg-530b", chip="a100-80gb-sxm", tp=8, pp=3, input=128, output=8, batch=256)
    tokens = float(run.batch * (run.input + run.output))
    mfu = published_mfu(run.model, run.chip, run.tp * run.pp, tokens, gpu_seconds(run))
    slowest = report.fastertransformer_order[0].ours[-1]
    return Finding(holds=None, ours=f"PP3/TP8 MFU {mfu:.2f} at 128/8, batch 256; slowest at batch 1: {slowest}")


CHECKS: dict[str, Callable[[Reproduction], Finding]] = {
    "L1": _decode_layouts,
    "L2": _single_prefill,
    "L3": _large_prefill,
    "L4": _prefill_crossover,
    "L5": _switch_points,
    "L6": _one_against_two,
    "L7": _one_against_two_steps,
    "L8": _best_mesh,
    "L9": _one_copy,
    "A1": _decode_attention,
    "A2": _prefill_attention,
    "A3": _longest_contexts,
    "A4": _head_sharded_cache,
    "S1": _serial_block,
    "S2": _padded_heads,
    "P2": _interactive,
    "P3": _throughput,
    "P4": _cheapest_chips,
    "P5": _cheapest_cost,
    "M1": _utilization,
    "F1": _more_gpus,
    "F2": _out_of_memory,
    "F3": _pipeline,
}
