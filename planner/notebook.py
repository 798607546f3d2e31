"""Results as notebooks show them."""

from typing import TYPE_CHECKING

from ..hardware_specs.html import html_table
from ..hardware_specs.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from .break_even import BreakEven
    from .result import PhasePlan, Plan, PlanCost, PlanResult

_PHASES = ("#", "phase", "slice", "layout", "mesh", "batch", "latency", "low", "high", "one pass", "MFU", "HBM a chip")


def result_html(result: "PlanResult") -> str:
    """Ranked plans, or why there is none."""
    work = result.workload
    asked = f"{result.model} on {result.on}, {work.input_tokens} tokens in, {work.output_tokens} out"
    if not result.plans:
        return html_table(["no feasible plan"], [[result.nearest_miss or ""]], asked)
    if result.rate_per_s is None:
        return html_table(_PHASES, _rows(result.plans), f"{asked}; best by {result.objective}")
    lines = [f"{asked}; {result.rate_per_s:.4g} requests/s"]
    size = result.pool_size
    if size is not None:
        high = size.n_chips_high or "more than the pool has"
        lines += [f"{size.n_chips} chips ({size.n_chips_low} to {high}); why not fewer: {size.why_not_fewer}"]
    return html_table(_PHASES, _rows(result.plans), "\n".join(lines)) + _loads_html(result.plans)


def plan_html(plan: "Plan") -> str:
    """Both phases, the load if there is one, and the cost."""
    parts = [html_table(_PHASES, _rows((plan,)), f"plan {plan.rank} on {plan.n_chips} chips")]
    if plan.under_load is not None:
        parts.append(_loads_html((plan,)))
    if plan.cost is not None:
        parts.append(cost_html(plan.cost))
    return "".join(parts)


def _rows(plans: "tuple[Plan, ...]") -> list[list[str]]:
    return [_phase_row(plan, phase) for plan in plans for phase in (plan.prefill, plan.decode)]


def _phase_row(plan: "Plan", phase: "PhasePlan") -> list[str]:
    mesh = f"{phase.mesh.x}x{phase.mesh.y}x{phase.mesh.z}"
    outside = "".join(f" {name}{n}" for name, n in (("pp", phase.pp), ("dp", phase.dp)) if n > 1)
    return [
        str(plan.rank),
        phase.phase,
        phase.slice,
        phase.layout,
        mesh + outside,
        str(phase.batch),
        format_seconds(phase.latency_s),
        format_seconds(phase.latency_low_s),
        "-" if phase.latency_high_s is None else format_seconds(phase.latency_high_s),
        format_seconds(phase.step_s),
        f"{phase.mfu:.3f}",
        format_bytes(phase.hbm_bytes_per_chip),
    ]


def _loads_html(plans: "tuple[Plan, ...]") -> str:
    rows = []
    for plan in plans:
        load = plan.under_load
        if load is None:
            continue
        times = (load.ttft_p50_s, load.ttft_p99_s, load.tpot_p50_s, load.tpot_p99_s)
        shown = ["-" if value is None else format_seconds(value) for value in times]
        dollars = "-" if load.usd_per_mtok is None else f"${load.usd_per_mtok:.2f}"
        rows.append(
            [plan.rank, plan.n_chips, *shown, f"{load.within_slo:.3f}", f"{load.highest_rate_per_s:.4g}", dollars]
        )
    columns = ("#", "chips", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "in limits", "most req/s", "$/Mtok output")
    return html_table(columns, rows, "under load, simulated")


def phase_html(phase: "PhasePlan") -> str:
    """Where the time of one pass goes, the longest step first."""
    steps = sorted(phase.breakdown, key=lambda step: -step.total_s)
    columns = ("step", "compute", "memory", "links", "fixed", "total", "source")
    rows = [
        [
            step.step,
            *map(format_seconds, (step.compute_s, step.memory_s, step.comm_s, step.overhead_s, step.total_s)),
            step.source,
        ]
        for step in steps
    ]
    return html_table(
        columns, rows, f"one pass of {phase.phase}, {phase.layout} on {phase.slice}: {format_seconds(phase.step_s)}"
    )


def cost_html(cost: "PlanCost") -> str:
    """Every figure of a cost that is known."""
    rows = [[name, f"{value:.6g}"] for name, value in cost if isinstance(value, float)]
    return html_table(("cost", "value"), rows)


def break_even_html(found: "BreakEven") -> str:
    """The pools, and which is cheapest at which rate."""
    pools = [
        [pool.name, f"{pool.usd_per_h:.2f}", f"{pool.capacity_per_s:.4g}", f"{pool.usd_per_mtok_full:.4g}"]
        for pool in found.pools
    ]
    stretches = [
        [
            f"{x.low_per_s:.4g}",
            f"{x.high_per_s:.4g}",
            x.name,
            x.copies,
            f"{x.utilization:.2f}",
            f"{x.usd_per_month:,.0f}",
        ]
        for x in found.stretches
    ]
    return html_table(("pool", "$/h", "carries req/s", "$/Mtok at full load"), pools) + html_table(
        ("req/s above", "up to", "cheapest", "copies", "load", "$/month"), stretches
    )
