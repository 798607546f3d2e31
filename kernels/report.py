"""``python -m shardwise.kernels.report``: every kernel compiled for every target, a line each; exit 1 on any fault."""

import argparse
import json
import os
import sys
from collections.abc import Iterator

from .catalogue import OPS, variants
from .variant import TARGETS

_HEAD = (
    f"{'op':18s} {'variant':34s} {'target':6s} {'regs':>4s} {'spill':>5s} {'shared':>7s} {'warps':>5s} "
    f"{'occ':>4s} {'mma':>4s} {'wgmma':>5s}"
)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a kernel spills, does not compile or lacks what it should have, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m shardwise.kernels.report", description=__doc__)
    parser.add_argument("--op", action="append", choices=OPS, help="only this op (may be repeated)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this target (may be repeated)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    chosen = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("kernels cannot be compiled in an interpreter process; unset TRITON_INTERPRET")
    bad = 0
    if not chosen.json:
        print(_HEAD)  # noqa: T201
    for line in lines(tuple(chosen.op or OPS), tuple(chosen.target or TARGETS)):
        bad += bool(line["faults"])
        print(json.dumps(line) if chosen.json else _text(line), flush=True)  # noqa: T201
    return 1 if bad else 0


def lines(ops: tuple[str, ...], targets: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """One line a variant: what it needs, and its faults."""
    from .aot import compile_variant

    for op in ops:
        for variant in variants(op):
            if variant.target not in targets:
                continue
            line: dict[str, object] = {"op": op, "variant": variant.name, "target": variant.target}
            try:
                made = compile_variant(variant)
            except Exception as error:  # the compiler's own classes differ from version to version
                yield line | {
                    "faults": [f"does not compile: {type(error).__name__}: {' '.join(str(error).split())[-200:]}"]
                }
                continue
            yield line | {
                "registers": made.n_registers,
                "spill_bytes": made.spill_bytes,
                "shared_bytes": made.shared_bytes,
                "warps": made.num_warps,
                "occupancy": made.occupancy,
                "mma": made.mma,
                "wgmma": made.wgmma,
                "faults": list(made.faults()),
            }


def _text(line: dict[str, object]) -> str:
    head = f"{line['op']:18s} {line['variant']:34s} {line['target']:6s}"
    faults = "".join(f"  {fault}" for fault in line["faults"])  # type: ignore[attr-defined]
    if "registers" not in line:
        return head + faults
    return (
        f"{head} {line['registers']:4d} {line['spill_bytes']:5d} {line['shared_bytes']:7d} {line['warps']:5d} "
        f"{line['occupancy']:4.2f} {line['mma']:4d} {line['wgmma']:5d}{faults}"
    )


if __name__ == "__main__":
    sys.exit(main())
