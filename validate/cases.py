"""Published timings as cases the cost model can be fitted to or judged by."""

import hashlib

from ..hardware_specs.cluster import parse_pool
from ..hardware_specs.dtypes import parse_dtype
from ..models.catalogue import get_model
from ..models.formats import Formats
from ..simulator.cost.fit import FitCase, FitPart
from ..simulator.cost.phases import PhaseSetting
from ..simulator.types import PhaseName, Workload
from .published import TableD2Row, Timing, load_fastertransformer, load_pope2022

_BOTH: tuple[PhaseName, ...] = ("prefill", "decode")


def formats_of(weights: str) -> Formats:
    """Weights in their own format, activations and cache in 16 bits."""
    bf16 = parse_dtype("bf16")
    return Formats(weights=parse_dtype(weights), activations=bf16, kv=bf16)


def timing_case(row: Timing) -> FitCase:
    """A row of a figure or table that states its layout."""
    setting = PhaseSetting(
        model=get_model(row.model),
        phase=row.phase,
        layout=row.ffn,
        attention=row.attention,
        formats=formats_of(row.weights),
        workload=Workload(input_tokens=row.input, output_tokens=row.output),
    )
    return FitCase(
        id=row.id,
        source=f"Pope2022 {row.source}",
        slices=parse_pool(f"tpu-v4:{row.chips}"),
        parts=(FitPart(setting=setting),),
        batch=float(row.batch),
        measured_s=row.value_s,
        per_pass=row.per_pass,
    )


def table_d2_case(row: TableD2Row) -> FitCase:
    """A TPU cell of Table D.2: 2D weight-stationary, attention as it is quickest."""
    workload = Workload(input_tokens=20, output_tokens=8)
    phases: tuple[PhaseName, ...] = {
        "prefill": ("prefill",),
        "generate": ("decode",),
        "total": ("prefill", "decode"),
    }[row.phase]  # type: ignore[assignment]
    parts = tuple(
        FitPart(
            setting=PhaseSetting(
                model=get_model(row.model),
                phase=phase,
                layout="ws-2d",
                attention="heads",
                formats=formats_of("bf16"),
                workload=workload,
            ),
            attention_open=True,
        )
        for phase in phases
    )
    return FitCase(
        id=f"d2-{row.model}-{row.phase}-{row.batch}",
        source="Pope2022 Table D.2",
        slices=parse_pool(f"{row.chip}:{row.chips}"),
        parts=parts,
        batch=float(row.batch),
        measured_s=row.value_s,
    )


def fit_cases() -> tuple[FitCase, ...]:
    """The rows TPU v4 is fitted on: Figures 6 and 7 and Table 2."""
    return tuple(timing_case(row) for row in load_pope2022().timings if row.use == "fit")


def judged_cases() -> tuple[FitCase, ...]:
    """The rows that judge that fit: Table 3, and Table D.2's TPU columns."""
    published = load_pope2022()
    tables = [timing_case(row) for row in published.timings if row.use == "judge"]
    return (*tables, *(table_d2_case(row) for row in published.table_d2 if row.chip == "tpu-v4"))


def fastertransformer_cases() -> tuple[FitCase, ...]:
    """GPT-20B on one DGX A100 under FasterTransformer, tensor parallel."""
    published = load_fastertransformer()
    model, formats = get_model(published.model), formats_of(published.weights)
    cases = []
    for tp, n_in, n_out, batch, ms in published.end_to_end_ms:
        workload = Workload(input_tokens=n_in, output_tokens=n_out)
        settings = (
            PhaseSetting(
                model=model,
                phase=phase,
                layout="ws-1d-allreduce",
                attention="heads",
                formats=formats,
                workload=workload,
            )
            for phase in _BOTH
        )
        cases.append(
            FitCase(
                id=f"gpt-20b-tp{tp}-{n_in}-{n_out}-b{batch}",
                source=published.citation,
                slices=parse_pool(f"{published.chip}:{tp}"),
                parts=tuple(FitPart(setting=setting) for setting in settings),
                batch=float(batch),
                measured_s=ms / 1e3,
            )
        )
    return tuple(cases)


def is_holdout(case_id: str) -> bool:
    """Every third row by the hash of what was run judges a fit instead of making it."""
    return hashlib.sha256(case_id.encode()).digest()[0] % 3 == 0
