"""Arithmetic that several kernels share, on fp32 values in registers."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


@triton.jit
def apply_activation(x, ACTIVATION: tl.constexpr):
    """The activation by name; gelu in its tanh form, tanh(u) being 2 sigmoid(2u) - 1."""
    if ACTIVATION == "relu":
        x = tl.maximum(x, 0.0)
    elif ACTIVATION == "silu":
        x = x * sigmoid(x)
    elif ACTIVATION == "gelu":
        u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        x = x * sigmoid(2.0 * u)
    return x
