"""Questions that are a search of their own: pools up to a count, and prefill and decode on chips of their own."""

import numpy as np

from ...hardware_specs.errors import SpecError
from ...simulator.cost.money import spent_usd, usd_per_mtok
from ..api import answer
from ..request import make_request
from ..result import Objective, PhasePlan, Plan
from .answers import Table
from .question import Question

_WHAT_IF_FIGURES = ("link", "network", "hbm_bandwidth", "hbm", "flops", "price")


def needs_search(question: Question) -> bool:
    """Whether a question leaves open how many chips there are, or has two pools."""
    return question.decode_on is not None or (question.chips or "").startswith("..")


def answer_alone(question: Question, place: int, objective: Objective, table: Table) -> None:
    """Plan one question and write its row."""
    at = np.array([place])
    changed = [name for name in _WHAT_IF_FIGURES if getattr(question, name) is not None]
    if changed:
        named = " and ".join(name.replace("_", "-") for name in changed)
        pool = "with --decode-on" if question.decode_on is not None else f"of a pool up to {question.chips}"
        raise SpecError(f"{named} cannot be varied {pool}; name one count of chips, e.g. --vary chips=8")
    try:
        request = make_request(
            question.model,
            question.on,
            input_tokens=question.prompt_tokens,
            output_tokens=question.output_tokens or 0,
            decode_on=question.decode_on,
            prefill_batch=question.prefill_batch,
            decode_batch=question.decode_batch,
            weights=question.weights,
            kv_dtype=question.kv_dtype,
            page_size=question.page_size,
            prefill=question.prefill,
            decode=question.decode,
            tp=question.tp,
            pp=question.pp,
            dp=question.dp,
            ttft_s=question.ttft_s,
            tpot_s=question.tpot_s,
            objective=objective,
            engine=question.engine,
            bound=question.bound,
            memory_share=question.memory_share,
        )
        result = answer(request, top=1)
    except SpecError as error:
        table.refuse(at, str(error))
        return
    if not result.plans:
        table.refuse(at, result.nearest_miss or "no plan is feasible")
        return
    plan = result.plans[0]
    capacity_per_s = plan.output_tokens_per_s / max(question.output_tokens or 1, 1)
    if question.rate_per_s is not None and question.rate_per_s > capacity_per_s:
        table.refuse(at, f"{question.rate_per_s:.4g} requests/s are more than the chips answer: {capacity_per_s:.4g}")
        return
    table.put(at, plan_row(plan, capacity_per_s, question.rate_per_s))


def plan_row(plan: Plan, capacity_per_s: float, rate_per_s: float | None) -> dict[str, str | float | int | bool | None]:
    """A plan as a row of answers."""
    p, d = plan.prefill, plan.decode
    used = 1.0 if rate_per_s is None else rate_per_s / capacity_per_s
    usd_per_h = None if plan.cost is None else plan.cost.usd_per_h
    served_tokens_per_s = plan.output_tokens_per_s * used
    handoff = plan.request_latency_s - p.latency_s - d.latency_s
    ends = (p.latency_high_s, d.latency_high_s)
    high = None if None in ends else sum(end or 0.0 for end in ends) + handoff
    return {
        "fits": True,
        "slice": p.slice if plan.shared else f"{p.slice} + {d.slice}",
        "n_chips": plan.n_chips,
        "mesh": f"{d.mesh.x}x{d.mesh.y}x{d.mesh.z}",
        "tp": d.tp,
        "pp": d.pp,
        "dp": d.dp,
        "prefill_layout": p.layout,
        "decode_layout": d.layout,
        "prefill_batch": p.batch,
        "decode_batch": d.batch,
        "weights": d.weights,
        "kv_dtype": d.kv_dtype,
        "engine": d.engine,
        "ttft_s": p.step_s,
        "tpot_s": d.step_s,
        "request_latency_s": plan.request_latency_s,
        "request_latency_low_s": p.latency_low_s + d.latency_low_s + handoff,
        "request_latency_high_s": high,
        "prefill_latency_s": p.latency_s,
        "decode_latency_s": d.latency_s,
        "prefill_mfu": p.mfu,
        "decode_mfu": d.mfu,
        "chip_s_per_request": plan.chip_s_per_request,
        "prefill_chip_s_per_token": p.cost_chip_s_per_token,
        "decode_chip_s_per_token": d.cost_chip_s_per_token,
        "requests_per_s": capacity_per_s,
        "output_tokens_per_s": plan.output_tokens_per_s,
        "utilization": None if rate_per_s is None else used,
        "usd_per_h": usd_per_h,
        "usd_per_mtok_output": (
            None
            if usd_per_h is None or not served_tokens_per_s
            else float(usd_per_mtok(spent_usd(usd_per_h, 1.0), served_tokens_per_s))
        ),
        "hbm_bytes_per_chip": plan.hbm_bytes_per_chip,
        "hbm_limit_bytes": d.memory.limit,
        "weights_bytes": d.memory.weights,
        "kv_bytes": max(p.memory.kv_cache, d.memory.kv_cache),
        "work_bytes": max(_work(p), _work(d)),
        "prefill_bound": p.bound,
        "decode_bound": d.bound,
        "source": _source(p, d),
    }


def _work(phase: PhasePlan) -> float:
    return phase.memory.activations + phase.memory.gathered


def _source(*phases: PhasePlan) -> str:
    """The least sure source of any step."""
    sources = {step.source for phase in phases for step in phase.breakdown}
    return next(name for name in ("extrapolated", "bound", "fitted") if name in sources)
