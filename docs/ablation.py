"""Predictors that leave a part of the cost model out: what each part buys is what the error grows by without it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from shardwise.planner.predict_row import predict_row
from shardwise.simulator.cost import calibrated
from shardwise.simulator.cost.kernel_times import KernelFamily
from shardwise.validate.score_jobs import Predictor

# Tables that the ablation is made on: batches and queues, whose predictions take seconds in all.
TABLES = ("splitwise_phase_latency", "argonne_llm_inference_bench", "trtllm_perf", "fastertransformer_a100")


def _nothing(*_: object) -> dict[str, Any]:
    return {}


def _no_kernels(*_: object) -> None:
    return None


def _form_alone(family: KernelFamily, shape: Any, rates: Any, widths: Any) -> Any:
    """Seconds of a family's physical form, its constants fitted, without the correction."""
    return family.physical_form(shape, family.constants, rates, widths)


def _without(case: Any, parts: Mapping[str, Callable[..., Any]]) -> Any:
    with ExitStack() as stack:
        for name, stand_in in parts.items():
            owner = KernelFamily if name == "time" else calibrated
            stack.enter_context(patch.object(owner, name, stand_in))
        return predict_row(case)


def without_engines(case: Any) -> Any:
    """Measured kernels one after the other, and nothing that an engine adds."""
    return _without(case, {"load_engine_fits": _nothing})


def without_corrections(case: Any) -> Any:
    """Kernels by their physical forms alone."""
    return _without(case, {"time": _form_alone})


def without_fits(case: Any) -> Any:
    """The roofline of claimed figures."""
    return _without(case, {"load_engine_fits": _nothing, "load_fits": _nothing, "kernels_of": _no_kernels})


PREDICTORS: dict[str, Predictor] = {
    "no engine": without_engines,
    "no corrections of kernels": without_corrections,
    "claimed figures alone": without_fits,
}
