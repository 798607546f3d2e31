"""``shardwise execute``: run a plan on what is here; predicted beside measured."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json

if TYPE_CHECKING:
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
        output_tokens=output_tokens, dtype=dtype, device=device, kernels=kernels, is_trace=trace, n_timed=timed, seed=seed,
    )  # fmt: skip
    chip = get_chip("cpu-host" if device == "cpu" and not trace else result.of_rank(rank).decode.chip)
    typer.echo(f"{'tracing' if trace else 'running'} {spec.mesh.n_ranks} ranks of {spec.model.name}", err=True)
    try:
        found = (run.trace if trace else run.execute)(
            spec, chip, "shardwise", limit_s=seconds(limit) or 0.0, notes=notes
        )
    except RankFailedError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        _show(found)
    if not found.is_true(run.TOLERANCE[spec.dtype]):
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
    from ...hardware_specs.units import format_seconds
    from .text import console, table

    out = console()
    mesh = "x".join(str(found.mesh[axis]) for axis in "xyz")
    out.print(
        f"{found.model}: prefill {found.prefill}, decode {found.decode} on {found.n_ranks} ranks "
        f"(mesh {mesh}, pp {found.mesh['pp']}, dp {found.mesh['dp']}), batch {found.batch}, {found.input_tokens} prompt tokens, "
        f"{found.output_tokens} decode steps, {found.dtype}",
        highlight=False,
        soft_wrap=True,
    )
    if found.max_relative_error is not None:
        same = "the same tokens" if found.tokens_equal else "OTHER TOKENS"
        out.print(
            f"largest relative error {found.max_relative_error:.2g}, {same} as the unsharded model", highlight=False
        )
    sent = table("axes", "priced bytes", "counted bytes", "", right=("priced bytes", "counted bytes"))
    for axes, pair in found.bytes.items():
        equal = "equal" if pair.priced == pair.counted else "DIFFER"
        sent.add_row(axes, f"{pair.priced:,.0f}", f"{pair.counted:,.0f}", equal)
    out.print(sent)
    if found.memory.measured is not None:
        priced, measured = found.memory.priced, found.memory.measured
        out.print(f"fullest rank: {priced / 1e6:.3g} MB predicted, {measured / 1e6:.3g} MB measured", highlight=False)
    timed = [step for step in found.steps if step.measured_s is not None]
    if timed:
        steps = table("step", "predicted", "measured", right=("predicted", "measured"))
        for phase in ("prefill", "decode"):
            mine = [step for step in timed if step.step.startswith(phase)]
            for step in mine:
                steps.add_row(step.step, *(_seconds(s) for s in (step.predicted_s, step.measured_s)))
            predicted = [s.predicted_s for s in found.steps if s.step.startswith(phase) and s.predicted_s is not None]
            total = sum(step.measured_s or 0.0 for step in mine)
            steps.add_row(f"{phase}, one pass", _seconds(sum(predicted) if predicted else None), format_seconds(total))
        out.print(steps)
    for note in found.notes:
        out.print(note, highlight=False, soft_wrap=True)


def _seconds(value: float | None) -> str:
    from ...hardware_specs.units import format_seconds

    return "-" if value is None else format_seconds(value)
