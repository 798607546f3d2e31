"""Number formats: what weights, activations, caches and states are kept as, and what is multiplied in."""

from dataclasses import dataclass

from ..hardware_specs.dtypes import DTYPES, DType, parse_dtype
from .description import Model

# Bytes of a number that is summed or compared in full precision: norm statistics, logits and their indices.
FULL_PRECISION_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Number formats of what lies in memory and of what travels.

    Parameters
    ----------
    own_mixers, own_experts, own_ends : of the weights of mixers, of experts, and of embedding, logits, norms and biases, where
        they have a format of their own
    state : of recurrent states
    """

    weights: DType
    activations: DType
    kv: DType
    own_mixers: DType | None = None
    own_experts: DType | None = None
    own_ends: DType | None = None
    state: DType = DTYPES["fp32"]

    def of(self, role: str) -> DType | None:
        """The format of a tensor by its role; None for what is kept in full precision."""
        return {
            "activation": self.activations,
            "weight": self.weights,
            "mixer": self.own_mixers or self.weights,
            "expert": self.experts,
            "end": self.own_ends or self.weights,
            "kv": self.kv,
            "state": self.state,
        }.get(role)

    @property
    def experts(self) -> DType:
        """Of the experts' weights."""
        return self.own_experts or self.weights

    def bytes_of(self, role: str) -> float:
        """Bytes of one element of a tensor by its role."""
        dtype = self.of(role)
        return FULL_PRECISION_BYTES if dtype is None else dtype.bytes_per_element

    @property
    def matmul(self) -> DType:
        """The format most matmuls run in."""
        return self.multiplied("weight")

    def multiplied(self, role: str) -> DType:
        """What weights are multiplied in: 8- and 4-bit floats as they are, integer weights are widened to the activations."""
        weights = self.of(role)
        return weights if weights is not None and weights.compute in ("fp8", "fp4") else self.activations


# Formats that activations are kept in; weights in anything narrower leave them as the model has them.
_ACTIVATIONS = ("bf16", "fp16")


def default_formats(model: Model, weights: str | None = None, kv: str | None = None) -> Formats:
    """Formats by name: the model as it ships unless said, 16-bit activations of its kind, and a cache as it says or like those.

    A narrow format asked of a model whose experts ship in one means the model as it ships: what it leaves wider stays so.
    """
    native = parse_dtype(model.weights_dtype)
    stored = native if weights is None else parse_dtype(weights)
    shipped = [None if name is None else parse_dtype(name) for name in _shipped(model)]
    as_shipped = stored == native or _is_shipped(stored, shipped[1])
    mixers, experts, ends = shipped if as_shipped else (None, None, None)
    kv = kv or model.kv_dtype
    kinds = [dtype for dtype in (stored, native, parse_dtype("bf16")) if dtype.name in _ACTIVATIONS]
    return Formats(
        weights=native if as_shipped else stored,
        activations=kinds[0],
        kv=kinds[0] if kv is None else parse_dtype(kv),
        own_mixers=mixers,
        own_experts=experts,
        own_ends=ends,
        state=parse_dtype(model.state_dtype),
    )


def _is_shipped(asked: DType, experts: DType | None) -> bool:
    """Whether a format of 8 bits or fewer that is asked for is what a model with narrow experts ships in: none widens them."""
    return experts is not None and experts.bytes_per_element <= asked.bytes_per_element <= 1.0


def _shipped(model: Model) -> tuple[str | None, str | None, str | None]:
    return model.mixer_dtype, model.expert_dtype, model.embedding_dtype
