"""Fit what an engine adds to its kernels to whole runs that were measured: batches, full queues, closed loops.

Every run is predicted by a closed form of its two phases, so that thousands of predictions fit into a fit; the planner and the
simulator, which answer for the same rows later, have the same phases under them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.chip import Chip, capped_chip
from ..hardware_specs.cluster import meshes, parse_pool
from ..hardware_specs.errors import SpecError
from ..models.catalogue import get_model
from ..models.formats import default_formats
from ..models.sizes import ceil_div
from ..simulator.cost.calibrated import Fit, Residual, chip_engine, kernels_of
from ..simulator.cost.constants import Constants
from ..simulator.cost.engines import default_kv, get_engine, spreads_prompts
from ..simulator.cost.fit import RANGES
from ..simulator.cost.machine import Machine, make_machine
from ..simulator.cost.memory import DEFAULT_MEMORY_SHARE
from ..simulator.cost.phases import PhaseSetting, bind, mixed_pass_s, price_mixed, price_phase
from ..simulator.cost.price import Engine, StepKind, StepPrice, host_time_s, pass_time_s, price_pass
from ..simulator.types import PhaseName, Workload
from .cases import is_holdout
from .loads import PhaseSeconds, batch_at_once, scaled_rates, steady
from .measured_case import MeasuredCase, parse_case
from .metrics import Outcome, Quantities, Target, parse_target

Vector = NDArray[np.float64]

# Batches among which a queue's is the best that fits.
_LADDER = tuple(float(b) for b in sorted({round(1.15**k) for k in range(56)}))
# Errors beyond this count less: rows of a table that another code path, or a mistake, made.
_SOFT_LOG = 0.1
_STEP = 1e-2
_NINE_OF_TEN = 0.9
_MOST_EVALUATIONS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A pass taken apart by what an engine's constants scale, each (n,) seconds over a run's batches.

    `launches_s` is the fixed time of measured kernels, `fixed_s` that of the others; `n_untimed` of the `n_kernels` were not
    measured, and are launched at `kernel_launch_s` each; `bubbles` is the scheduled pass over the bare one, above 1 in a
    pipeline.
    """

    seconds: Mapping[str, Vector]
    launches_s: Vector
    fixed_s: Vector
    n_sequences: Vector
    n_kernels: float
    n_untimed: float
    bubbles: Vector

    def pass_s(self, constants: Constants) -> Vector:
        """Seconds of a pass under an engine's constants; what `price_pass` adds up to."""
        launched_s = constants.kernel_launch_s * self.n_untimed + constants.launch_share * self.launches_s
        kernels_s = (
            launched_s
            + self.fixed_s
            + sum(self.seconds[kind] * getattr(constants, f"{kind}_slowdown") for kind in self.seconds)
        )
        host_s = host_time_s(constants, kernels_s, n_sequences=self.n_sequences, n_kernels=self.n_kernels)
        return np.asarray(self.bubbles * (kernels_s + host_s), float)


_SCALED: tuple[StepKind, ...] = (
    "matmul", "attention", "latent", "scan", "experts", "pointwise", "collective"
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Run:
    """Batches that share their phases and mesh, priced together."""

    chip: Chip
    machine: Machine
    settings: Mapping[PhaseName, PhaseSetting]
    mixes: bool
    batches: list[float] = field(default_factory=list)
    parts: dict[str, _Parts] = field(default_factory=dict)
    held_bytes: Vector = field(default_factory=lambda: np.zeros(0))

    def price(self, engine: Engine) -> None:
        """Price both phases of every batch once, with every slowdown at 1."""
        batch = np.array(self.batches)
        for phase, setting in self.settings.items():
            n_micro = float(setting.pp) if phase == "decode" else 1.0
            price = price_phase(setting, self.machine, batch, engine, n_microbatches=n_micro)
            program, sizes = bind(setting, self.machine, ceil_div(batch, n_micro), (), engine)
            steps = price_pass(program, sizes, setting.formats, self.machine, engine, pp=setting.pp)
            self.parts[phase] = _taken_apart(steps, batch, np.asarray(price.pass_s))
            self.held_bytes = np.broadcast_to(np.asarray(price.memory.total), batch.shape)
        if self.mixes:
            setting = self.settings["decode"]
            n_micro = float(setting.pp)
            steps = price_mixed(setting, self.machine, ceil_div(batch, n_micro), engine)
            step_s = mixed_pass_s(setting, self.machine, batch, engine, n_microbatches=n_micro)
            self.parts["mixed"] = _taken_apart(steps, batch, np.asarray(step_s))


def _taken_apart(steps: Sequence[StepPrice], batch: Vector, scheduled_s: Vector) -> _Parts:
    seconds: dict[str, Vector] = {kind: np.zeros(len(batch)) for kind in _SCALED}
    fixed, launches = np.zeros(len(batch)), np.zeros(len(batch))
    n_kernels = n_untimed = 0.0
    for step in steps:
        if step.part == "pass":
            continue
        busy = step.count * (np.maximum(step.compute_s, step.memory_s) + step.comm_s)
        scaled = step.kind in seconds
        if scaled:
            seconds[step.kind] = seconds[step.kind] + busy
        started = step.count * np.asarray(step.overhead_s)
        launches = launches + (started if step.timed is not None else 0.0)
        fixed = fixed + (0.0 if step.timed is not None else started) + (0.0 if scaled else busy)
        n_kernels += float(step.count)
        if step.timed is None and step.kind not in ("collective", "other"):
            n_untimed += float(step.count)
    return _Parts(
        seconds=seconds,
        launches_s=launches,
        fixed_s=fixed,
        n_sequences=batch,
        n_kernels=n_kernels,
        n_untimed=n_untimed,
        bubbles=scheduled_s / np.asarray(pass_time_s(steps)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCase:
    """A measured row, and where among the priced batches its answer lies."""

    id: str
    source: str
    case: MeasuredCase
    target: Target
    value: float
    run: int
    places: tuple[int, ...]
    n_replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRows:
    """Rows of one engine, ready to be predicted again and again."""

    engine: str
    runs: tuple[_Run, ...]
    cases: tuple[EngineCase, ...]
    skipped: Mapping[str, int]

    def predict(self, constants: Constants) -> Vector:
        """Every row's prediction in its own unit, (n,); nan where nothing fits."""
        passes = [{phase: parts.pass_s(constants) for phase, parts in run.parts.items()} for run in self.runs]
        return np.array([_answer(case, passes[case.run], self.runs[case.run]) for case in self.cases])


def engine_rows(rows: Sequence[Mapping[str, str]], engine: str) -> EngineRows:
    """Rows of a measured table, all of one engine, that a closed form answers."""
    keyed: dict[tuple[object, ...], int] = {}
    runs: list[_Run] = []
    cases: list[EngineCase] = []
    skipped: dict[str, int] = {}
    for row in rows:
        try:
            target = parse_target(row["metric"], row["unit"])
            case = parse_case(row, target.metric)
            cases.append(_place(row, case, target, engine, runs, keyed))
        except SpecError as reason:
            text = " ".join(str(reason).split())
            skipped[text] = skipped.get(text, 0) + 1
    profile = get_engine(engine)
    for run in runs:
        run.price(chip_engine(profile.runs, run.chip, profile))
    return EngineRows(engine=engine, runs=tuple(runs), cases=tuple(cases), skipped=skipped)


def _place(
    row: Mapping[str, str],
    case: MeasuredCase,
    target: Target,
    engine: str,
    runs: list[_Run],
    keyed: dict[tuple[object, ...], int],
) -> EngineCase:
    if case.load == "rate":
        raise SpecError("requests at a rate have no closed form")
    if case.load == "queue" and not target.metric.is_rate:
        raise SpecError("a time under a queue depends on how many requests it holds")
    n_replicas = case.dp or 1
    n_chips = (case.n_chips or (case.tp or 1) * (case.pp or 1)) // n_replicas
    if case.tp is None and n_chips > 1:
        raise SpecError("the row does not say how the model was cut")
    tp, pp = case.tp or n_chips, case.pp or 1
    key = (
        case.model,
        case.hardware,
        case.power_w,
        tp,
        pp,
        (case.ep or 1) > 1,
        case.weights,
        case.kv_dtype,
        case.input_tokens,
        case.output_tokens,
    )
    if key not in keyed:
        runs.append(_run(case, tp, pp, engine))
        keyed[key] = len(runs) - 1
    run = runs[keyed[key]]
    users = float(-(-(case.n_requests or 1) // n_replicas))
    wanted = [*_LADDER] if case.load == "queue" else [users]
    if case.load == "closed loop":
        wanted = [b for b in _LADDER if b < wanted[0]] + wanted
    for batch in wanted:
        if batch not in run.batches:
            run.batches.append(batch)
    return EngineCase(
        id=row.get("id", ""),
        source=row.get("source", ""),
        case=case,
        target=target,
        value=float(row["value"]),
        run=keyed[key],
        places=tuple(run.batches.index(batch) for batch in wanted),
        n_replicas=n_replicas,
    )


def _run(case: MeasuredCase, tp: int, pp: int, engine: str) -> _Run:
    chip, model = get_chip(case.hardware), get_model(case.model)
    stack = get_engine(engine).stack
    if stack is not None and kernels_of(chip, stack) is None:
        raise SpecError(f"no kernels were measured on {chip.name} or a chip like it")
    if case.power_w is not None:
        chip = capped_chip(chip, case.power_w)
    slice_ = replace(parse_pool(f"{chip.name}:{tp * pp}")[0], chip=chip)
    usable = [mesh for mesh in meshes(slice_, pp, 1) if mesh.sizes == (1, tp, 1)]
    if not usable:
        raise SpecError(f"tp={tp} pp={pp} lies on no mesh of {slice_}")
    workload = Workload(input_tokens=case.input_tokens, output_tokens=max(case.output_tokens, 1))
    settings: dict[PhaseName, PhaseSetting] = {}
    for phase in ("prefill", "decode"):
        settings[phase] = PhaseSetting(
            model=model,
            phase=phase,
            layout="ws-1d-allreduce",
            attention="heads",
            experts="expert" if (case.ep or 1) > 1 else "tensor",
            formats=default_formats(model, case.weights, case.kv_dtype or default_kv(engine, case.weights)),
            workload=workload,
            pp=pp,
        )
    return _Run(chip=chip, machine=make_machine(chip, usable[:1]), settings=settings, mixes=get_engine(engine).mixes)


def _answer(case: EngineCase, passes: Mapping[str, Vector], run: _Run) -> float:
    """One row from the seconds of its run's phases: at its batch, or at the best that fits."""
    asked = case.case
    if asked.load == "batch":
        (place,) = case.places
        seconds = _seconds(asked, passes["prefill"][place], passes["decode"][place])
        return _read(case, batch_at_once(seconds, n_requests=int(run.batches[place])))
    limit = run.chip.hbm_bytes.value * DEFAULT_MEMORY_SHARE
    fitting = [place for place in case.places if run.held_bytes[place] <= limit]
    if not fitting:
        return math.nan
    if asked.load == "closed loop":
        return _read(case, _steady(asked, passes, run, max(fitting, key=lambda place: run.batches[place])))
    made = [_steady(asked, passes, run, place) for place in fitting]
    return _read(case, max(made, key=lambda quantities: quantities.requests_per_s or 0.0))


def _steady(asked: MeasuredCase, passes: Mapping[str, Vector], run: _Run, place: int) -> Quantities:
    """An engine that is kept full with a batch."""
    one = passes["prefill"][run.batches.index(1.0)]
    seconds = _seconds(asked, one, passes["decode"][place])
    spread = asked.load == "queue" or spreads_prompts(run.settings["decode"].model)
    mixed_s = float(passes["mixed"][place]) if "mixed" in passes and spread else None
    return steady(seconds, n_sequences=int(run.batches[place]), mixed_s=mixed_s)


def _seconds(asked: MeasuredCase, prefill_s: float, step_s: float) -> PhaseSeconds:
    return PhaseSeconds(
        prefill_s=float(prefill_s),
        step_s=float(step_s),
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
    )


def _conformal_log(sizes: Sequence[float]) -> float:
    """The size of error that one more row stays below with a chance of 90 %, whatever errors are distributed like.

    References
    ----------
    [Lei2018] split conformal inference: the ceil(0.9 (n + 1))-th smallest of n.

    >>> _conformal_log([0.1, 0.4, 0.2, 0.3])
    0.4
    """
    place = math.ceil(_NINE_OF_TEN * (len(sizes) + 1))
    return float(sorted(sizes)[min(place, len(sizes)) - 1])


def _read(case: EngineCase, quantities: Quantities) -> float:
    scaled = scaled_rates(quantities, case.n_replicas / case.case.n_beams)
    n_users = (case.case.n_requests or 1) if case.case.load != "queue" else 1
    n_chips = case.case.n_chips or (case.case.tp or 1) * (case.case.pp or 1) * case.n_replicas
    outcome = Outcome(
        expected=scaled, quick=scaled, slow=None, n_chips=n_chips, n_nodes=-(-n_chips // 8), n_users=n_users
    )
    return case.target.read(outcome).predicted


def fit_engine(rows: EngineRows, free: Sequence[str], *, command: str, after: Fit | None = None) -> Fit:
    """Fit an engine's constants over the measured kernels of each row's own chip; a third of the rows judges.

    Parameters
    ----------
    after : a fit to other rows whose constants stay as they are; what comes out speaks for the rows of both
    """
    from scipy.optimize import least_squares

    profile, known = get_engine(rows.engine), {} if after is None else dict(after.constants)
    values = np.array([case.value for case in rows.cases])
    start, low, high = (np.array([RANGES[name][i] for name in free]) for i in range(3))

    def constants_at(z: Vector) -> Constants:
        named = dict(zip(free, (float(v) for v in z * start), strict=True))
        return replace(profile.runs.constants, **(known | named))

    judged = np.array([is_holdout(case.id) for case in rows.cases])

    def left(z: Vector) -> Vector:
        ratio = np.log(rows.predict(constants_at(z)) / values)
        return np.where(np.isnan(ratio) | judged, 0.0, ratio)

    found = least_squares(
        left,
        np.ones(len(free)),
        bounds=(low / start, high / start),
        loss="soft_l1",
        f_scale=_SOFT_LOG,
        diff_step=np.full(len(free), _STEP),
        max_nfev=_MOST_EVALUATIONS,
    )
    best = constants_at(found.x)
    predicted = rows.predict(best)
    residuals = [
        Residual(id=case.id, source=case.source, measured_s=case.value, predicted_s=float(f"{value:.5g}"))
        for case, value in zip(rows.cases, predicted, strict=True)
        if math.isfinite(value)
    ]
    held_out = [row for row in residuals if is_holdout(row.id)] or residuals
    own_log = round(_conformal_log([abs(row.log_ratio) for row in held_out]), 4)
    return Fit(
        chip="",
        engine=rows.engine,
        form="least squares on ln(predicted / measured) of two rows of three; the third row of three makes the interval",
        command=command,
        free=(*known, *free),
        constants=known | {name: float(f"{getattr(best, name):.4g}") for name in free},
        interval_log=own_log if after is None else after.interval_log,
        experts_interval_log=None if after is None else own_log,
        residuals=(*residuals, *(() if after is None else after.residuals)),
    )
