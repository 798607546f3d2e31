"""``shardwise execute``: run a plan on what is here; predicted beside measured."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from ...validate.execute.result import ExecuteResult


def execute(
    file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Output of `plan --json` or `estimate --json`.")],
    rank: Annotated[int, typer.Option("--rank", help="Plan of the file to execute.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    ranks: Annotated[int | None, typer.Option("--ranks", help="Processes at most; the mesh shrinks to them.")] = None,
    scale_model: Annotated[
        int, typer.Option("--scale-model", help="Divide widths, vocabulary and depth by up to this.")
    ] = 1,
    trace: Annotated[
        bool, typer.Option("--trace", help="Record the full-size program's collectives; nothing is allocated.")
    ] = False,
    share: Annotated[
        bool, typer.Option("--share", help="Run one chip's share alone, in the plan's sizes; collectives are priced.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Weights: .safetensors file, or folder (Llama, Qwen, Mistral, OPT, GPT-2)."),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Sequences; the plan's, at most 64.")] = None,
    input_tokens: Annotated[int | None, typer.Option("--input", help="Prompt tokens; the plan's, at most 16.")] = None,
    output_tokens: Annotated[int | None, typer.Option("--output", help="Decode steps; the plan's, at most 32.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="fp32, bf16 or fp16; fp32 on a CPU, else the plan's.")
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option("--kernels", help="torch or triton; triton on cuda. On a CPU triton needs TRITON_INTERPRET=1."),
    ] = None,
    timed: Annotated[int, typer.Option("--timed", help="Further runs that are timed.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights and prompts.")] = 0,
    limit: Annotated[str, typer.Option("--limit", help="End the run after this long.")] = "600s",
    as_json: Json = False,
) -> None:
    """Run the sharded program that was priced: numbers, bytes, memory and time beside the prediction."""
    from ...hardware_specs.catalogue import get_chip
    from ...hardware_specs.errors import SpecError
    from ..explain import read_result
    from .options import seconds

    result = read_result(file)
    if checkpoint is not None and (share or trace):
        raise SpecError("--share and --trace make weights up; leave out --checkpoint")
    if share and trace:
        raise SpecError("--share runs one chip's part, --trace runs nothing; give one of them")
    _check(
        device, dtype, kernels, {"--ranks": ranks, "--batch": batch, "--input": input_tokens, "--output": output_tokens}
    )
    try:
        from ...validate.execute import run
        from ...validate.execute.ranks import RankFailedError
    except ModuleNotFoundError as error:
        raise SpecError(f"execution needs {error.name}: pip install 'shardwise[kernels]'") from None
    from ..executed import run_spec

    spec, notes = run_spec(
        result, rank, n_ranks=ranks, scale=scale_model, batch=batch, input_tokens=input_tokens,
        output_tokens=output_tokens, dtype=dtype, device=device, kernels=kernels, is_whole=trace or share, n_timed=timed,
        seed=seed, checkpoint=checkpoint,
    )  # fmt: skip
    planned = get_chip(result.of_rank(rank).decode.chip)
    here = get_chip("cpu-host") if device == "cpu" else planned
    limit_s = seconds(limit) or 0.0
    talk = "tracing" if trace else "running one share of" if share else "running"
    typer.echo(f"{talk} {spec.mesh.n_ranks} ranks of {spec.model.name}", err=True)
    try:
        if share:
            found = run.share(spec, (here, planned), "shardwise", limit_s=limit_s, notes=notes)
        elif trace:
            found = run.trace(spec, planned, "shardwise", limit_s=limit_s, notes=notes)
        else:
            found = run.execute(spec, here, "shardwise", limit_s=limit_s, notes=notes)
    except RankFailedError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        _show(found)
    if not found.is_true(run.tolerance(spec)):
        raise typer.Exit(1)


def _check(device: str, dtype: str | None, kernels: str | None, counts: dict[str, int | None]) -> None:
    """Refuse by name what no run can have."""
    from ...hardware_specs.errors import SpecError

    if device not in ("cpu", "cuda"):
        raise SpecError(f"no device {device!r}; known: cpu, cuda")
    if dtype not in (None, "fp32", "bf16", "fp16"):
        raise SpecError(f"dtype {dtype!r} is not executed; known: fp32, bf16, fp16")
    if kernels not in (None, "torch", "triton"):
        raise SpecError(f"no kernels {kernels!r}; known: torch, triton")
    if kernels == "triton" and device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise SpecError("triton kernels run on a CPU in the interpreter alone; set TRITON_INTERPRET=1")
    for option, count in counts.items():
        if count is not None and count < 1:
            raise SpecError(f"{option} {count} must be at least 1")


def _show(found: "ExecuteResult") -> None:
    """Tables for people."""
    from .text import console, table

    out = console()
    mesh = "x".join(str(found.mesh[axis]) for axis in "xyz")
    out.print(
        f"{found.model}: prefill {found.prefill}, decode {found.decode} on {found.n_ranks} ranks "
        f"(mesh {mesh}, pp {found.mesh['pp']}, dp {found.mesh['dp']}), batch {found.batch}, {found.input_tokens} prompt tokens, "
        f"{found.output_tokens} decode steps, {_formats(found)}",
        highlight=False,
        soft_wrap=True,
    )
    if found.max_relative_error is not None:
        same = "the same tokens" if found.tokens_equal else "OTHER TOKENS"
        out.print(
            f"largest relative error {found.max_relative_error:.2g}, {same} as the unsharded model", highlight=False
        )
    if found.bytes:
        sent = table("axes", "priced bytes", "counted bytes", "", right=("priced bytes", "counted bytes"))
        for axes, pair in found.bytes.items():
            equal = "equal" if pair.priced == pair.counted else "DIFFER"
            sent.add_row(axes, f"{pair.priced:,.0f}", f"{pair.counted:,.0f}", equal)
        out.print(sent)
    if found.memory.measured is not None:
        priced, measured = found.memory.priced, found.memory.measured
        out.print(f"fullest rank: {priced / 1e6:.3g} MB predicted, {measured / 1e6:.3g} MB measured", highlight=False)
    if any(step.measured_s is not None for step in found.steps):
        out.print(_steps(found))
    for note in found.notes:
        out.print(note, highlight=False, soft_wrap=True)


def _formats(found: "ExecuteResult") -> str:
    """The format of the activations, and those of weights and cache where they have their own."""
    own = [
        f"{name} {dtype}"
        for name, dtype in (("weights", found.weights), ("cache", found.kv_dtype))
        if dtype != found.dtype
    ]
    return ", ".join([found.dtype, *own])


def _steps(found: "ExecuteResult") -> "Table":
    """Every step that ran or was priced in its place, and each phase's sum."""
    from .text import table

    is_share = found.mode == "share"
    steps = table(
        "step", "predicted", "measured", *(("counts as",) if is_share else ()), right=("predicted", "measured")
    )
    for phase in ("prefill", "decode"):
        mine = [step for step in found.steps if step.step.startswith(phase)]
        shown = [step for step in mine if step.taken_s is not None]
        for step in shown:
            row = (step.step, _seconds(step.predicted_s), _seconds(step.measured_s))
            steps.add_row(*row, *((step.taken_from,) if is_share else ()))
        predicted = [step.predicted_s for step in mine if step.predicted_s is not None]
        total = sum(step.taken_s or 0.0 for step in shown)
        row = (f"{phase}, sum", _seconds(sum(predicted) if predicted else None), _seconds(total))
        steps.add_row(*row, *(("both",) if is_share else ()))
    return steps


def _seconds(value: float | None) -> str:
    from ...hardware_specs.units import format_seconds

    return "-" if value is None else format_seconds(value)
