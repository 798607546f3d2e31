"""What an encoder beside the model takes for one task."""

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.dtypes import parse_dtype
from ..models.catalogue import get_model
from ..models.ops import matmul_flop
from ..models.params import n_params
from ..simulator.cost.roofline import step_time_s
from .result import Plan


def encoder_s(name: str, tokens: int, plan: Plan) -> float:
    """Seconds of an encoder's pass over one task on one chip of the plan, in 16 bits.

    Notes
    -----
    A bound; the search among what it encoded before is left out.
    """
    chip, dtype = get_chip(plan.prefill.chip), parse_dtype("bf16")
    weights = float(n_params(get_model(name)))
    compute_s = matmul_flop(float(tokens), weights) / chip.peak_flop_per_s(dtype)
    memory_s = weights * dtype.bytes_per_element / chip.hbm_bytes_per_s.value
    return float(step_time_s(compute_s, memory_s, 0.0, 0.0))
