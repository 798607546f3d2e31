"""What a looped collective-einsum saves: weights gathered whole before their matmul, or in rounds beside it.

Ranks are processes of this machine, a thread each; every rank times both, the slowest one counts. On CPU cores that are all
busy with the matmul nothing is left to carry bytes meanwhile, so there is no gain to be had there: what is saved is
memory. With `--device cuda` ranks are GPUs and NCCL carries the shards beside the matmul.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.distributed as dist
from shardwise.models.forms import parse_form
from shardwise.models.layouts import get_layout
from shardwise.models.program import Collective, Tensor
from shardwise.validate.execute.comm import GroupWires, MeshShape
from shardwise.validate.execute.exchange import exchange, looped_matmul
from shardwise.validate.execute.kernels import TorchKernels
from shardwise.validate.execute.ranks import join, start_together
from shardwise.validate.execute.shards import make_dimensions

_X, _HELD, _USED, _OUT = (parse_form(text) for text in ("B_xE", "E_xF", "EF", "B_xF"))
_SHAPES = ((64, 1024, 4096), (512, 1024, 4096), (2048, 1024, 4096))
_LIMIT_S = 600.0


def timed(run, device: torch.device, repeats: int) -> float:
    """Median seconds of a run that all ranks start together."""
    found = []
    for _ in range(repeats + 1):
        dist.barrier()
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def rank_times(rank: int, n_ranks: int, device_type: str, store: str, repeats: int) -> list[tuple[float, float, float]]:
    """Of each shape: the matmul alone, after one gather of the whole weight, and in rounds."""
    mesh = MeshShape(axes={"x": n_ranks, "y": 1, "z": 1})
    device = join(rank, n_ranks, device_type, store, _LIMIT_S)
    wires, kernels, found = GroupWires(mesh, rank), TorchKernels(torch.float32, 1e-5), []
    for rows, d_model, d_ff in _SHAPES:
        dims = make_dimensions(get_layout("wg-x"), {"B": rows * n_ranks, "E": d_model, "F": d_ff}, dict(mesh.axes))
        x, shard = (torch.randn(shape, device=device) for shape in ((rows, d_model), (d_model // n_ranks, d_ff)))
        weight = Tensor(name="w", form=_HELD, role="weight")
        gather = Collective(name="gather", kind="all_gather", axes=("x",), tensors=(weight,), after=(_USED,))

        def whole(x=x, shard=shard, gather=gather, dims=dims):
            return kernels.matmul(x, _X, exchange(gather, [shard], dims, wires)[0], _USED, _OUT)

        def rounds(x=x, shard=shard, dims=dims):
            return looped_matmul(kernels, wires, dims, x, _X, shard, _HELD, _USED, _OUT)

        torch.testing.assert_close(whole(), rounds(), rtol=1e-4, atol=1e-3)
        full = exchange(gather, [shard], dims, wires)[0]
        alone = timed(lambda x=x, full=full: kernels.matmul(x, _X, full, _USED, _OUT), device, repeats)
        found.append((alone, timed(whole, device, repeats), timed(rounds, device, repeats)))
    dist.destroy_process_group()
    return found


def main() -> None:
    """Print a line a shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardwise-") as folder:
        by_rank = start_together(
            options.ranks,
            _LIMIT_S,
            lambda rank: rank_times(rank, options.ranks, options.device, f"{folder}/store", options.repeats),
        )
    print(f"{options.ranks} ranks on {options.device}, fp32, median of {options.repeats}, slowest rank")
    print("rows a rank  d_model  d_ff   matmul alone  gathered whole  in rounds  saved")
    for shape, times in zip(_SHAPES, zip(*by_rank, strict=True), strict=True):
        alone, whole, rounds = (max(column) * 1e3 for column in zip(*times, strict=True))
        rows, d_model, d_ff = shape
        print(
            f"{rows:11d}  {d_model:7d}  {d_ff:4d}  {alone:9.2f} ms  {whole:11.2f} ms  {rounds:6.2f} ms  {1 - rounds / whole:+.2f}"
        )


if __name__ == "__main__":
    main()
