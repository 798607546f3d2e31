"""Serving as a library call: a plan under traffic."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..hardware_specs.errors import SpecError
from ..models.description import Model
from ..simulator.engine.deployment import Autoscaling, EngineOptions, Failures, Preemption, Speculation
from ..simulator.engine.policies import get_scheduler
from ..simulator.engine.routers import get_router
from ..simulator.report import Report
from ..simulator.run import simulate as run_simulation
from ..simulator.types import Slo
from ..simulator.workload.arrival import Traffic
from ..simulator.workload.gaps import ArrivalProcess, DayCurve, Modulated, parse_process
from ..simulator.workload.lengths import Empirical, Fixed, Lengths, LogNormal, UniformRatio, read_lengths
from ..simulator.workload.presets import Preset, TaskTraffic, get_preset
from ..simulator.workload.synthetic import ClosedLoop, SyntheticTraffic
from ..simulator.workload.traces import read_sharegpt, read_trace
from .deploy import ServingOptions, deploy
from .drafts import price_draft
from .encoders import encoder_s
from .explain import read_result
from .result import PlanResult

_DEFAULT_REQUESTS = 1000


def simulate(
    plan: PlanResult | Path | str,
    *,
    rank: int = 1,
    model: Model | None = None,
    traffic: Traffic | ClosedLoop | None = None,
    trace: Path | str | None = None,
    skip_bad_rows: bool = False,
    rate_per_s: float | None = None,
    concurrency: int | None = None,
    n_requests: int | None = None,
    arrivals: str = "poisson",
    burstiness: float = 1.0,
    modulated: Sequence[tuple[float, float]] | None = None,
    day_rates_per_s: Sequence[float] | None = None,
    lengths: Lengths | str | None = None,
    workload: str | None = None,
    priority_shares: Sequence[float] = (1.0,),
    scheduler: str = "chunked",
    router: str = "least-outstanding",
    replicas: int | None = None,
    prefill_replicas: int | None = None,
    decode_replicas: int | None = None,
    max_sequences: int | None = None,
    token_budget: int | None = None,
    prefix_caching: bool = True,
    preemption: Preemption = "recompute",
    speculation: Speculation | None = None,
    draft: str | None = None,
    autoscaling: Autoscaling | None = None,
    failures: Failures | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    step_scale: float = 1.0,
    warmup_requests: int = 0,
    until_s: float | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> Report:
    """Serve traffic by a plan, request by request.

    Parameters
    ----------
    plan : what `plan` or `estimate` returned, or the file it was written to
    rank : which of its plans
    traffic : any stream of requests; else one of `trace`, `rate_per_s`, `concurrency`, `modulated` and `day_rates_per_s`
        says what comes
    trace : file of recorded requests
    rate_per_s : open traffic by `arrivals` (poisson, gamma with `burstiness`, even); infinity sends everything at once
    concurrency : users who send their next request when the last is answered
    modulated : (requests a second, mean dwell in seconds) of each state, one after the other
    day_rates_per_s : rates at equally spaced times of a day, the first at midnight
    n_requests : 1000 unless said, or all of a trace
    lengths : ``fixed`` as the plan's workload (default), ``uniform:0.8``, ``lognormal:1.0``, a CSV of pairs, or
        ShareGPT conversations as ``FILE.json:4`` (characters a token)
    workload : a preset by name, see `shardwise.simulator.workload.presets`; `n_requests` counts its tasks then
    scheduler, router : by name, see `shardwise.simulator.engine`
    draft : a smaller model that writes drafts, priced on the plan's chips: ``NAME``, ``NAME:TOKENS``, ``NAME:TOKENS:ACCEPTANCE``
    replicas : copies of the model, in place of the plan's
    token_budget, max_sequences : tokens of a pass, requests of a replica at a time; as vLLM takes them unless said
    ttft_s, tpot_s : limits by which goodput is counted; `ttft_s` is the deadline of the deadline scheduler
    step_scale : factor on every step time, as fitted to a measured run
    until_s : stop after so many simulated seconds
    seed : the same gives the same report to the last bit

    Raises
    ------
    SpecError : what does not exist, does not fit, or is no number
    """
    result = plan if isinstance(plan, PlanResult) else read_result(Path(plan))
    asked = TrafficRequest(
        trace=None if trace is None else Path(trace),
        skip_bad_rows=skip_bad_rows,
        rate_per_s=rate_per_s,
        concurrency=concurrency,
        n_requests=n_requests,
        arrivals=arrivals,
        burstiness=burstiness,
        modulated=None if modulated is None else tuple(modulated),
        day_rates_per_s=None if day_rates_per_s is None else tuple(day_rates_per_s),
        lengths=lengths,
        workload=workload,
        priority_shares=tuple(priority_shares),
    )
    get_router(router)
    if draft is not None and speculation is not None:
        raise SpecError("a draft model says what speculation costs; leave --speculate out, or --draft")
    drafted = None if draft is None else price_draft(result, rank, draft, model=model)
    options = ServingOptions(
        engine=EngineOptions(
            scheduler=get_scheduler(scheduler),
            prefix_caching=prefix_caching,
            preemption=preemption,
            speculation=speculation if drafted is None else drafted.speculation,
            ttft_limit_s=ttft_s,
        ),
        router=router,
        replicas=replicas,
        prefill_replicas=prefill_replicas,
        decode_replicas=decode_replicas,
        max_sequences=max_sequences,
        token_budget=token_budget,
        step_scale=step_scale,
        mask_s_per_element=0.0 if workload is None else get_preset(workload).mask_s_per_element,
        held_bytes=0.0 if drafted is None else drafted.held_bytes,
        cache_share=1.0 if drafted is None else drafted.cache_share,
        autoscaling=autoscaling,
        failures=failures,
    )
    if warmup_requests < 0 or (until_s is not None and not until_s > 0):
        raise SpecError(f"warm-up of {warmup_requests} requests until {until_s} s: neither may be negative")
    return run_simulation(
        deploy(result, options, rank=rank, model=model),
        traffic if traffic is not None else make_traffic(asked, result, rank=rank),
        seed=seed,
        slo=Slo(ttft_s=ttft_s, tpot_s=tpot_s),
        warmup_requests=warmup_requests,
        until_s=until_s,
        advance=advance,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRequest:
    """What a user says of the traffic; fields as in `simulate`."""

    trace: Path | None = None
    skip_bad_rows: bool = False
    rate_per_s: float | None = None
    concurrency: int | None = None
    n_requests: int | None = None
    arrivals: str = "poisson"
    burstiness: float = 1.0
    modulated: tuple[tuple[float, float], ...] | None = None
    day_rates_per_s: tuple[float, ...] | None = None
    lengths: Lengths | str | None = None
    workload: str | None = None
    priority_shares: tuple[float, ...] = (1.0,)


def make_traffic(asked: TrafficRequest, result: PlanResult, *, rank: int = 1) -> Traffic | ClosedLoop:
    """The traffic that was asked for; lengths are the plan's workload unless said.

    Raises
    ------
    SpecError : none or several ways of saying what comes
    """
    ways = {
        "--trace": asked.trace,
        "--rate": asked.rate_per_s,
        "--concurrency": asked.concurrency,
        "--modulated": asked.modulated,
        "--day-curve": asked.day_rates_per_s,
    }
    said = [name for name, value in ways.items() if value is not None]
    if len(said) != 1:
        raise SpecError(f"say what comes by one of {', '.join(ways)}, not {' and '.join(said) or 'none'}")
    if asked.workload is not None:
        return _tasks(asked, get_preset(asked.workload), result, rank)
    if asked.trace is not None:
        return read_trace(asked.trace, skip_bad_rows=asked.skip_bad_rows, limit=asked.n_requests)
    n_requests = _DEFAULT_REQUESTS if asked.n_requests is None else asked.n_requests
    lengths = parse_lengths(asked.lengths, result)
    if asked.concurrency is not None:
        return ClosedLoop(n_users=asked.concurrency, lengths=lengths, n_requests=n_requests)
    return SyntheticTraffic(
        process=_process(asked), lengths=lengths, n_requests=n_requests, priority_shares=asked.priority_shares
    )


def _tasks(asked: TrafficRequest, preset: Preset, result: PlanResult, rank: int) -> TaskTraffic:
    """Tasks of a preset, in its lengths unless others are said."""
    if asked.trace is not None or asked.concurrency is not None:
        said = "--trace" if asked.trace is not None else "--concurrency"
        raise SpecError(f"workload {preset.name!r} says what a task is, not {said}; say when they come by --rate")
    if asked.priority_shares != (1.0,):
        raise SpecError(f"workload {preset.name!r} has no priorities; leave --priorities out")
    own = preset.lengths if asked.lengths is None else None
    return TaskTraffic(
        process=_process(asked),
        preset=preset,
        lengths=own or parse_lengths(asked.lengths, result),
        n_tasks=_DEFAULT_REQUESTS if asked.n_requests is None else asked.n_requests,
        delay_s=0.0
        if preset.encoder is None
        else encoder_s(preset.encoder, preset.encoder_tokens, result.of_rank(rank)),
    )


def _process(asked: TrafficRequest) -> ArrivalProcess:
    if asked.modulated is not None:
        rates, dwells = zip(*asked.modulated, strict=True)
        return Modulated(rates_per_s=rates, dwells_s=dwells)
    if asked.day_rates_per_s is not None:
        return DayCurve(rates_per_s=asked.day_rates_per_s)
    return parse_process(asked.arrivals, math.nan if asked.rate_per_s is None else asked.rate_per_s, asked.burstiness)


def parse_lengths(text: Lengths | str | None, result: PlanResult) -> Lengths:
    """Lengths by name: ``fixed``, ``uniform:RATIO``, ``lognormal:CV``, or from a file.

    A file is a CSV of pairs, or ``FILE.json:CHARS``: ShareGPT conversations at so many characters a token.

    Raises
    ------
    SpecError : none of these
    """
    if text is not None and not isinstance(text, str):
        return text
    n_in, n_out = result.workload.input_tokens, result.workload.output_tokens
    name, _, number = (text or "fixed").partition(":")
    if name == "fixed" and not number:
        return Fixed(input_tokens=n_in, output_tokens=n_out)
    if name in ("uniform", "lognormal"):
        value = _number(text or "", number)
        if name == "uniform":
            return UniformRatio(input_tokens=n_in, output_tokens=n_out, ratio=value)
        return LogNormal(input_mean=n_in, output_mean=n_out, input_cv=value, output_cv=value)
    if name.endswith(".json"):
        return Empirical(read_sharegpt(Path(name), _number(text or "", number)))
    return read_lengths(Path(text or ""))


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise SpecError(
            f"lengths {text!r}: write e.g. uniform:0.8, lognormal:1.0, fixed, pairs.csv or sharegpt.json:4"
        ) from None
