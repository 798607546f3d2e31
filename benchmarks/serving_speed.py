"""How fast serving is simulated: real traces where they lie beside the checkout, a million synthetic requests, and Vidur.

Prints one line a run: requests, wall seconds, requests a second, and the peak memory of the process that ran it. Each run
has a process of its own. ``--quick`` leaves out the million. Vidur is timed on the same work where it is installed.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from shardwise import estimate, plan, simulate
from shardwise.planner.result import PlanResult

_TRACES = "traces"


def _report(name: str, result: PlanResult, **traffic: object) -> None:
    started = time.perf_counter()
    summary = simulate(result, **traffic).summary()  # type: ignore[arg-type]
    wall_s = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0  # Linux counts KiB
    print(
        f"{name:<44} {summary.requests:>9,} requests {wall_s:7.2f} s {summary.requests / wall_s:>9,.0f} requests/s "
        f"{peak_mib:>6,.0f} MiB"
    )


def _azure(folder: Path) -> None:
    result = plan("llama-3.1-70b", "h100-sxm:8", input_tokens=1155, output_tokens=211)
    _report("Azure conversation, Llama-3.1-70B, 8 H100", result, trace=folder / "AzureLLMInferenceTrace_conv_2023.csv")


def _mooncake(folder: Path) -> None:
    result = plan("llama-3.1-70b", "h100-sxm:4x8", input_tokens=12_035, output_tokens=343, tp=8, dp=4)
    trace = folder / "mooncake_conversation_trace.jsonl.gz"
    _report("Mooncake conversation, Llama-3.1-70B, 32 H100", result, trace=trace, router="prefix-aware")


def _million(folder: Path) -> None:
    result = estimate("llama-3.1-8b", "h100-sxm:1", input_tokens=512, output_tokens=128)
    _report(
        "Poisson 30/s, lognormal, Llama-3.1-8B, 1 H100",
        result,
        rate_per_s=30.0,
        n_requests=1_000_000,
        lengths="lognormal:1",
    )


def _like_vidur(folder: Path) -> None:
    """Vidur's own problems: 512 tokens in, 128 out, Poisson, two models and two schedulers."""
    for model, tp, rate in (("llama-2-7b", 1, 6.0), ("llama-2-70b", 2, 1.5)):
        result = estimate(model, f"a100-80gb-sxm:{tp}", input_tokens=512, output_tokens=128, tp=tp)
        for scheduler in ("vllm", "chunked"):
            name = f"{model} TP{tp}, A100, {scheduler}"
            _report(name, result, rate_per_s=rate, n_requests=20_000, scheduler=scheduler, token_budget=512)


def _vidur(folder: Path) -> None:
    """The same under Vidur, if it is installed; its forests are trained on the first run and kept by it."""
    if find_spec("vidur") is None:
        print("Vidur is not installed: pip install vidur, or put a checkout on PYTHONPATH, to time it on the same work")
        return
    for model, tp, rate in (("meta-llama/Llama-2-7b-hf", 1, 6.0), ("meta-llama/Llama-2-70b-hf", 2, 1.5)):
        for scheduler in ("vllm", "sarathi"):
            n = 1000
            command = [
                sys.executable, "-m", "vidur.main", "--replica_config_device", "a100", "--replica_config_model_name", model,
                "--cluster_config_num_replicas", "1", "--replica_config_tensor_parallel_size", str(tp),
                "--request_generator_config_type", "synthetic", "--synthetic_request_generator_config_num_requests", str(n),
                "--length_generator_config_type", "fixed", "--fixed_request_length_generator_config_prefill_tokens", "512",
                "--fixed_request_length_generator_config_decode_tokens", "128",
                "--interval_generator_config_type", "poisson", "--poisson_request_interval_generator_config_qps", str(rate),
                "--replica_scheduler_config_type", scheduler,
            ]  # fmt: skip
            started = time.perf_counter()
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            wall_s = time.perf_counter() - started
            said = f"{n / wall_s:,.0f} requests/s" if done.returncode == 0 else done.stderr.strip()[-200:]
            print(f"vidur {model} TP{tp} {scheduler:<30} {n:>9,} requests {wall_s:7.2f} s {said}")


RUNS = {"azure": _azure, "mooncake": _mooncake, "vidur-problems": _like_vidur, "million": _million, "vidur": _vidur}
_NEEDS_TRACES = ("azure", "mooncake")


def _folder() -> Path | None:
    """The traces beside the checkout, or where SHARDWISE_TRACES says."""
    if "SHARDWISE_TRACES" in os.environ:
        return Path(os.environ["SHARDWISE_TRACES"])
    here = (parent / "shared" / _TRACES for parent in Path(__file__).resolve().parents)
    return next((folder for folder in here if folder.is_dir()), None)


def main() -> None:
    """Run each benchmark in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=RUNS)
    asked = parser.parse_args()
    folder = _folder()
    if asked.only is not None:
        RUNS[asked.only](folder or Path())
        return
    for name in RUNS:
        if name in _NEEDS_TRACES and folder is None:
            print(f"{name}: no traces beside the checkout; SHARDWISE_TRACES may name their folder")
        elif not (asked.quick and name == "million"):
            subprocess.run([sys.executable, __file__, "--only", name], check=True)


if __name__ == "__main__":
    main()
