"""A paper's tables beside what the cost model says: volumes, memory, utilisation, times it was fitted on, times it was not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.cluster import meshes, parse_pool
from ..models.catalogue import get_model
from ..models.layouts import get_layout
from ..simulator.cost.calibrated import Calibration, calibration_of
from ..simulator.cost.fit import FitCase, predict_case_s
from ..simulator.cost.machine import make_machine
from ..simulator.cost.memory import DEFAULT_MEMORY_SHARE
from ..simulator.cost.phases import PhasePrice, PhaseSetting, engine_microbatches, model_flop_utilization, price_phase
from ..simulator.types import PhaseName, Workload
from .cases import fit_cases, formats_of, judged_cases, timing_case
from .compared import STRICT, Compared, ErrorTable, compared, largest_error, median_error
from .published import OutOfMemory, Pope2022, TableD2Row, Timing, load_pope2022
from .volumes import figure3_rows, switch_rows, table1_rows

_SOFTWARE = "fastertransformer"
_PHASES: tuple[PhaseName, ...] = ("prefill", "decode")


class BatchOrder(BaseModel):
    """Deployments of one batch from the quickest to the slowest."""

    model_config = STRICT
    batch: int
    published: tuple[str, ...]
    ours: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both agree."""
        return self.published == self.ours


class MemoryVerdict(BaseModel):
    """Whether a deployment ran out of memory, and the bytes a chip we say it needs of those it may use."""

    model_config = STRICT
    tp: int
    input: int
    output: int
    batch: int
    ran_out: bool
    needs_bytes: float
    limit_bytes: float

    @property
    def same(self) -> bool:
        """Whether we say so too."""
        return self.ran_out == (self.needs_bytes > self.limit_bytes)


class Reproduction(BaseModel):
    """Everything published that can be put beside a number of ours."""

    model_config = STRICT
    citation: str
    title: str
    figure3: tuple[Compared, ...]
    switch_points: tuple[Compared, ...]
    table1: tuple[Compared, ...]
    mfu: tuple[Compared, ...]
    fitted: ErrorTable
    held_out: ErrorTable
    fastertransformer: ErrorTable
    fastertransformer_order: tuple[BatchOrder, ...]
    out_of_memory: tuple[MemoryVerdict, ...]


def reproduce_pope2022() -> Reproduction:
    """Every table of the paper that the project carries."""
    paper = load_pope2022()
    gpu_rows = fastertransformer_rows(paper)
    chip = parse_pool(f"{paper.hardware.chip}:1")[0].chip
    calibration = calibration_of(chip)
    return Reproduction(
        citation=paper.citation,
        title=paper.title,
        figure3=figure3_rows(paper),
        switch_points=switch_rows(paper),
        table1=table1_rows(paper),
        mfu=tuple(_mfu_row(row) for row in paper.table_d2),
        fitted=_error_table(_case_rows(fit_cases(), calibration), calibration),
        held_out=_error_table(_case_rows(judged_cases(), calibration), calibration),
        fastertransformer=_error_table(gpu_rows, None),
        fastertransformer_order=_orders(gpu_rows),
        out_of_memory=tuple(_memory_verdict(row) for row in paper.out_of_memory),
    )


def published_mfu(model: str, chip: str, n_chips: int, tokens: float, seconds: float) -> float:
    """MFU of a published time, by our definition."""
    peak = get_chip(chip).peak_flop_per_s(formats_of("bf16").matmul)
    return float(model_flop_utilization(get_model(model), tokens, n_chips * peak * seconds))


def _mfu_row(row: TableD2Row) -> Compared:
    """A printed MFU of Table D.2 (20 tokens in, 8 out) beside the one its printed time has."""
    tokens = row.batch * {"prefill": 20, "generate": 8, "total": 28}[row.phase]
    ours = published_mfu(row.model, row.chip, row.chips, tokens, row.value_s)
    name = f"{_deployment(row)} {row.phase} batch {row.batch}"
    return compared(name, "Table D.2", row.model, "ratio", row.mfu, ours)


def _deployment(row: TableD2Row) -> str:
    """The software and parallelism of a cell, in the paper's words."""
    if row.tp is None:
        return row.model
    return f"TP{row.tp}" if row.pp in (None, 1) else f"PP{row.pp}/TP{row.tp}"


def _case_rows(cases: Sequence[FitCase], calibration: Calibration) -> tuple[Compared, ...]:
    return tuple(
        compared(
            case.id,
            case.source,
            case.source.removeprefix("Pope2022 "),
            "s",
            case.measured_s,
            predict_case_s(case, calibration.engine),
        )
        for case in cases
    )


def _error_table(rows: tuple[Compared, ...], calibration: Calibration | None) -> ErrorTable:
    """The rows with their summary; a calibration speaks for them only if it was made for this chip and software."""
    interval = None if calibration is None else calibration.interval_log
    within = None
    if interval is not None:
        within = sum(abs(math.log(row.ours / row.published)) <= interval for row in rows)
    return ErrorTable(
        origin="extrapolated" if calibration is None else calibration.origin,
        rows=rows,
        median_abs_error=median_error(rows),
        worst_abs_error=largest_error(rows),
        interval_log=interval,
        n_within=within,
    )


def quoted_case(row: Timing) -> FitCase:
    """A timed phase as a case, its model cut to the layers the figure has."""
    case = timing_case(row)
    if row.n_layers is None:
        return case
    (part,) = case.parts
    short = part.setting.model.model_copy(update={"n_layers": row.n_layers})
    return replace(case, parts=(replace(part, setting=replace(part.setting, model=short)),))


def predict_timing_s(row: Timing, *, head_axes: tuple[str, ...] | None = None) -> float:
    """Seconds of a timed phase on its best mesh; `head_axes` cuts the heads over fewer axes than all."""
    case = quoted_case(row)
    if head_axes is not None:
        (part,) = case.parts
        case = replace(case, parts=(replace(part, setting=replace(part.setting, head_axes=head_axes)),))
    return predict_case_s(case, calibration_of(case.slices[0].chip).engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRun:
    """FasterTransformer on A100s: Megatron's tensor parallelism, `pp` stages."""

    model: str
    chip: str
    tp: int
    pp: int
    input: int
    output: int
    batch: int


def gpu_prices(run: GpuRun) -> tuple[PhasePrice, PhasePrice]:
    """Prefill and decode of a run, with the constants of GPT-20B on one node; the network between nodes is at its bound."""
    (slice_,) = parse_pool(f"{run.chip}:{run.tp * run.pp}")
    engine = calibration_of(slice_.chip, _SOFTWARE).engine
    prefill, decode = (_gpu_setting(run, phase) for phase in _PHASES)
    usable = [mesh for mesh in meshes(slice_, run.pp) if get_layout(prefill.layout).names(mesh.sizes)]
    machine = make_machine(slice_.chip, usable)
    prices = []
    for setting, new_tokens in ((prefill, run.input), (decode, 1)):
        parts = engine_microbatches(run.batch, new_tokens, run.pp, engine.microbatch_tokens or run.batch * new_tokens)
        batch = np.full(len(usable), float(run.batch))
        prices.append(price_phase(setting, machine, batch, engine, n_microbatches=float(parts)))
    return prices[0], prices[1]


def _gpu_setting(run: GpuRun, phase: PhaseName) -> PhaseSetting:
    return PhaseSetting(
        model=get_model(run.model),
        phase=phase,
        layout="ws-1d-allreduce",
        attention="heads",
        formats=formats_of("fp16"),
        workload=Workload(input_tokens=run.input, output_tokens=run.output),
        pp=run.pp,
    )


def gpu_seconds(run: GpuRun) -> float:
    """Prefill and all output tokens."""
    return sum(float(np.min(price.latency_s)) for price in gpu_prices(run))


def fastertransformer_rows(paper: Pope2022) -> tuple[Compared, ...]:
    """MT-NLG on A100s under FasterTransformer, Table D.2."""
    rows = []
    for row in paper.table_d2:
        if row.tp is None:
            continue
        run = GpuRun(model=row.model, chip=row.chip, tp=row.tp, pp=row.pp or 1, input=20, output=8, batch=row.batch)
        rows.append(compared(f"batch {row.batch}", "Table D.2", _deployment(row), "s", row.value_s, gpu_seconds(run)))
    return tuple(rows)


def _orders(rows: Sequence[Compared]) -> tuple[BatchOrder, ...]:
    """Per batch, the deployments from the quickest on."""
    orders = []
    for name in dict.fromkeys(row.id for row in rows):
        same = [row for row in rows if row.id == name]
        published = tuple(row.group for row in sorted(same, key=lambda row: row.published))
        ours = tuple(row.group for row in sorted(same, key=lambda row: row.ours))
        orders.append(BatchOrder(batch=int(name.removeprefix("batch ")), published=published, ours=ours))
    return tuple(orders)


def _memory_verdict(row: OutOfMemory) -> MemoryVerdict:
    run = GpuRun(model=row.model, chip=row.chip, tp=row.tp, pp=1, input=row.input, output=row.output, batch=row.batch)
    needs = max(float(np.min(price.memory.total)) for price in gpu_prices(run))
    return MemoryVerdict(
        tp=row.tp,
        input=row.input,
        output=row.output,
        batch=row.batch,
        ran_out=row.ran_out,
        needs_bytes=needs,
        limit_bytes=get_chip(row.chip).hbm_bytes.value * DEFAULT_MEMORY_SHARE,
    )
