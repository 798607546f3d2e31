"""Options that several commands share, and how their text becomes numbers."""

from typing import Annotated

import typer

On = Annotated[
    str, typer.Option("--on", help="Pool: CHIP:COUNT, CHIP:XxYxZ, CHIP:NODESxGPUS, or CHIP:..COUNT to search up to it.")
]
DecodeOn = Annotated[str | None, typer.Option("--decode-on", help="A pool of its own for decode.")]
Input = Annotated[int, typer.Option("--input", help="Input tokens of a request.")]
Output = Annotated[int, typer.Option("--output", help="Output tokens of a request.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Sequences at once, both phases.")]
PrefillBatch = Annotated[int | None, typer.Option("--prefill-batch", help="Sequences at once in prefill.")]
DecodeBatch = Annotated[int | None, typer.Option("--decode-batch", help="Sequences at once in decode.")]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Weight format(s), comma-separated: bf16, int8, fp8, ...")
]
KvDtype = Annotated[str | None, typer.Option("--kv-dtype", help="KV cache format(s), comma-separated.")]
PageSize = Annotated[str, typer.Option("--page-size", help="Tokens a KV page, comma-separated; 1 is contiguous.")]
Prefill = Annotated[str | None, typer.Option("--prefill", help="Prefill layout(s), e.g. wg-xyz/batch.")]
Decode = Annotated[str | None, typer.Option("--decode", help="Decode layout(s), e.g. ws-2d/batch.")]
Tp = Annotated[int | None, typer.Option("--tp", help="Chips that hold one copy of a stage.")]
Pp = Annotated[int | None, typer.Option("--pp", help="Pipeline stages.")]
Dp = Annotated[int | None, typer.Option("--dp", help="Replicas.")]
Mesh = Annotated[str | None, typer.Option("--mesh", help="Mesh sizes X, Y, Z as 4x4x4.")]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="Software: vllm, sglang, trtllm, shardwise, jax-pope2022, ... (show engines)."),
]
Bound = Annotated[bool, typer.Option("--bound", help="Price by the roofline alone, without any fit.")]
MemoryShare = Annotated[float | None, typer.Option("--memory-share", help="Part of HBM a plan may fill.")]
Ttft = Annotated[str | None, typer.Option("--ttft", help="Limit on time to first token, e.g. 500ms.")]
Tpot = Annotated[str | None, typer.Option("--tpot", help="Limit on time per output token, e.g. 50ms.")]
Price = Annotated[
    str | None,
    typer.Option(
        "--price",
        help="USD a chip-hour (2.5, or h100-sxm=2.5,l40s=0.8), or on-demand (default), spot, reserved, ownership.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in SI units.")]


def seconds(text: str | None) -> float | None:
    """A time with its unit, or None."""
    from ...hardware_specs.units import parse_quantity

    return None if text is None else parse_quantity(text, "s")


def page_sizes(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    from ...hardware_specs.errors import SpecError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise SpecError(f"page size {text!r} must be whole numbers of tokens, e.g. 16 or 1,16,64")
    return tuple(int(part) for part in parts)


def cores() -> int:
    """Cores this process may run on."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
