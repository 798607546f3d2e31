"""The answer to "how many chips for this traffic": the number, why, how sure, what it costs, how to start it."""

from ...hardware_specs.errors import SpecError
from ...hardware_specs.units import format_seconds
from ..result import Binds, LoadEnd, Plan, PlanResult, UnderLoad
from .money_text import cost_lines, price_lines
from .text import console, load_table, origin, phases_table, print_lines

_BINDS: dict[Binds, str] = {
    "memory": "too little memory",
    "saturation": "too slow",
    "TTFT": "TTFT is missed",
    "TPOT": "TPOT is missed",
}


def print_answer(result: PlanResult) -> None:
    """Everything a person needs who asked for a rate, the number of chips first."""
    plan = result.best
    load = plan.under_load
    assert load is not None
    out = console()
    out.print(_question(result), highlight=False)
    lines = [
        ("chips", _chips(result)),
        *_why(result),
        ("first token", _limit("TTFT", result.ttft_s, load)),
        ("each token", _limit("TPOT", result.tpot_s, load)),
        ("most traffic", _most(load)),
    ]
    if plan.cost is not None:
        lines += cost_lines(plan.cost)
    print_lines([*lines, *price_lines(plan), ("priced by", origin(plan.decode))])
    out.print(
        phases_table(result.plans, title="\nhow the model is cut, and the batches this traffic makes on the mean")
    )
    out.print(load_table(result.plans), highlight=False)
    _print_start(result)


# What starts plans that were priced as an engine, by the first word of its name; vLLM for all others.
_TARGETS = ("sglang", "trtllm")


def _print_start(result: PlanResult) -> None:
    """The command that starts the first plan, and how to check it."""
    from ..export import export_plan

    engine, out = result.best.decode.engine, console()
    target = next((name for name in _TARGETS if engine.startswith(name)), "vllm")
    try:
        made = export_plan(result, target)
    except SpecError as error:
        out.print(f"\nno command to start it: {error}", highlight=False, markup=False)
        return
    lines = [line for line in made.text.splitlines() if line and not line.startswith(("#", "set "))]
    out.print(f"\nstart it ({made.engine} {made.version}):\n", highlight=False)
    for line in lines:
        out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    out.print(
        f"\nWith --json > plan.json, `shardwise export plan.json --to {target}` writes this with what the engine does otherwise "
        "than planned, `--to kserve` or `llm-d` a manifest, `--load vllm-bench` the test; `shardwise check` lays its results "
        "beside these figures.",
        highlight=False,
    )


def _question(result: PlanResult) -> str:
    work = result.workload
    limits = " and ".join(
        f"{what} in {format_seconds(value)}"
        for what, value in (("the first token", result.ttft_s), ("each next one", result.tpot_s))
        if value is not None
    )
    asked = f", {limits} for {result.attainment:.2f} of them" if limits else ""
    return (
        f"{result.model} on {result.on}: {result.rate_per_s:.4g} requests/s of {work.input_tokens} tokens in and "
        f"{work.output_tokens} out (Poisson){asked}\n"
    )


def _chips(result: PlanResult) -> str:
    """The number, and its ends."""
    size, plan = result.pool_size, result.best
    assert size is not None
    what = (
        f"{plan.n_chips} {plan.decode.chip}"
        if plan.shared
        else f"{plan.prefill.slice} to read, {plan.decode.slice} to write"
    )
    if size.n_chips_low == size.n_chips_high:
        return f"{what}; as many at both ends of the 90 % interval of step times"
    ends = (
        f"{size.n_chips_low} to {size.n_chips_high}"
        if size.n_chips_high
        else f"{size.n_chips_low} to more than the pool has"
    )
    return f"{what}; {ends} at the ends of the 90 % interval of step times"


def _why(result: PlanResult) -> list[tuple[str, str]]:
    size = result.pool_size
    if size is None:
        return []
    others = [
        f"{tried.n_chips} ({_BINDS[tried.binds] if tried.binds else 'carry it'})"
        for tried in size.tried
        if tried.n_chips != size.n_chips
    ]
    lines = [("why not fewer", size.why_not_fewer)]
    return [*lines, ("also tried", ", ".join(others))] if others else lines


def _limit(name: str, limit_s: float | None, load: UnderLoad) -> str:
    """What is reached of a time, its ends, and what is allowed."""
    p50, p99 = f"{name.lower()}_p50_s", f"{name.lower()}_p99_s"
    if getattr(load, p99) is None:
        return "an answer has one token"
    shown = f"{name} {format_seconds(getattr(load, p50))} in the middle, {format_seconds(getattr(load, p99))} at p99"
    ends = [_time(end, p99) for end in (load.quick, load.slow)]
    if load.quick is not None:
        shown += f" ({ends[0]} to {ends[1]})"
    return shown if limit_s is None else f"{shown}; {format_seconds(limit_s)} is allowed"


def _time(end: LoadEnd | None, name: str) -> str:
    return "?" if end is None else format_seconds(getattr(end, name))


def _most(load: UnderLoad) -> str:
    shown = f"{load.highest_rate_per_s:.4g} requests/s within the limits"
    if load.quick is not None:
        slow = "?" if load.slow is None else f"{load.slow.highest_rate_per_s:.4g}"
        shown += f" ({slow} to {load.quick.highest_rate_per_s:.4g})"
    return f"{shown}, {load.saturation_per_s:.4g} without any"


def is_rated(plans: tuple[Plan, ...]) -> bool:
    """Whether plans were made for a rate."""
    return bool(plans) and plans[0].under_load is not None
