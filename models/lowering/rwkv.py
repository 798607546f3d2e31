"""RWKV's time mixing as steps: mix with the last token, project, average with decaying weights, gate.

Dimensions: D and Q what is kept of a head's channels; O the mixer's vectors.
"""

from ..forms import Form
from ..mixers.rwkv import RwkvMixer
from ..program import Scan, Tensor
from .forms import transposed
from .part import Context, Leaving, mix_tokens
from .recurrent import keep_vectors

# receptance, key, value
_STREAMS = ("r", "k", "v")


class RwkvPart:
    """The steps of `RwkvMixer`."""

    def __init__(self, context: Context, mixer: RwkvMixer) -> None:
        self._at = context
        forms, layout = context.forms, context.layout
        stored, used = (forms.per_head(f, "H") for f in (layout.stored, layout.used))
        for name in _STREAMS:
            context.matrix(f"w_{name}", stored, used)
        stored, used = (forms.per_head(transposed(f), "H") for f in (layout.stored, layout.used))
        context.matrix("w_o", stored, used)
        self._values, _ = forms.recurrent
        batch, heads = self._values.axes_of("B"), self._values.axes_of("H")
        form = Form((("B", batch), ("H", heads), ("D", ()), ("Q", ())))
        context.state.append(Tensor(name="state", form=form, role="state"))
        keep_vectors(context, mixer.recurrence(context.model.d_model).n_vector_params)

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        return tuple((f"w_{name}", name) for name in _STREAMS)

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return mix_tokens(self._at, x, "token mixing", tuple(f"w_{name}" for name in _STREAMS))

    def goal(self, out: str) -> Form:
        """See `Part`."""
        return self._at.forms.per_head(self._at.forms.hidden, "H")

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b = self._at.builder
        home = made["k"].form
        receptance, key, value = b.bring([(made[name], self._values) for name in _STREAMS])
        out = Tensor(name="mixed", form=self._values)
        b.steps.append(Scan(name="scan", reads=(key, value), state=(self._at.state[0],), out=out))
        b.pointwise("gate", "scan gate", [out, receptance], [out])
        (out,) = b.bring([(out, home)])
        return [(out, "w_o")]
