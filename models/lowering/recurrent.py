"""Recurrent mixers as steps: convolve, scan, gate.

Dimensions: I what a head takes from a token, J what a group of heads takes; T and W what is made of the convolved channels,
of which T is widened to a number a channel; D and Q the state of a head; X what the convolution keeps of a head;
O the mixer's vectors.
"""

from ..blocks import RecurrentMixer
from ..forms import Form
from ..program import Scan, Tensor
from .forms import renamed, transposed
from .part import Context, Leaving


class RecurrentPart:
    """The steps of every mixer with a `recurrence`."""

    def __init__(self, context: Context, mixer: RecurrentMixer) -> None:
        self._at, self._mixer = context, mixer
        self._shape = mixer.recurrence(context.model.d_model)
        forms, layout = context.forms, context.layout
        streams = [("w_heads", "H", "I")] + ([("w_groups", "K", "J")] if self._shape.n_groups else [])
        for name, dim, letter in streams:
            stored, used = (renamed(forms.per_head(f, dim), {"Q": letter}) for f in (layout.stored, layout.used))
            context.matrix(name, stored, used)
        if self._shape.squeezed:
            stored, used = (Form((("E", f.axes_of("E")), ("T", ()))) for f in (layout.stored, layout.used))
            context.matrix("w_squeeze", stored, used)
            stored, used = (Form((("T", ()), *forms.per_head(f, "H").dims[1:])) for f in (layout.stored, layout.used))
            context.matrix("w_widen", stored, used)
        stored, used = (forms.per_head(transposed(f), "H") for f in (layout.stored, layout.used))
        context.matrix("w_o", stored, used)
        self._values, self._groups = forms.recurrent
        if self._shape.low_rank:
            heads = [form.axes_of("H") for form in (stored, self._values)]
            for name, letters in (("w_step_low", "HQT"), ("w_select", "HQW"), ("w_step", "THQ")):
                low, low_used = (Form(tuple((d, cut if d == "H" else ()) for d in letters)) for cut in heads)
                context.matrix(name, low, low_used)
        self._keep()

    def _keep(self) -> None:
        shape = self._shape
        batch, heads = self._values.axes_of("B"), self._values.axes_of("H")
        form = Form((("B", batch), ("H", heads), ("D", ()), ("Q", ())))
        self._at.state.append(Tensor(name="state", form=form, role="state"))
        if shape.conv_elements:
            tail = Form((("B", batch), ("H", heads), ("X", ())))
            self._at.state.append(Tensor(name="convolution state", form=tail))
        if shape.n_vector_params:
            self._at.vector("vectors", Form((("O", ()),)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        groups = (("w_groups", "groups"),) if self._shape.n_groups else ()
        return (("w_heads", "heads"), *groups, *((("w_squeeze", "squeezed"),) if self._shape.squeezed else ()))

    def goal(self, out: str) -> Form:
        """See `Part`."""
        if out == "squeezed":
            return Form((("B", self._at.forms.entry.axes_of("B")), ("L", ()), ("T", ())))
        dim, letter = ("H", "I") if out == "heads" else ("K", "J")
        return renamed(self._at.forms.per_head(self._at.forms.hidden, dim), {"Q": letter})

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b = self._at.builder
        home = renamed(made["heads"].form, {"I": "Q"})
        goals = [(made["heads"], renamed(self._values, {"Q": "I"}))]
        if "squeezed" in made:
            (w_widen,) = self._at.weights(("w_widen",), "widen")
            goals += [(t, self._values) for t in b.matmul("widen", [(made["squeezed"], w_widen)], ("decay and gate",))]
        if "groups" in made:
            goals.append((made["groups"], renamed(self._groups, {"Q": "J"})))
        streams = b.bring(goals)
        if self._shape.d_conv > 1:
            b.pointwise("convolve", "convolve", streams, streams)
        reads = [*streams, *(self._steps(streams[0]) if self._shape.low_rank else ())]
        out = Tensor(name="mixed", form=self._values)
        b.steps.append(Scan(name="scan", reads=tuple(reads), state=tuple(self._at.state), out=out))
        b.pointwise("gate", "scan gate", [out, streams[0]], [out])
        (out,) = b.bring([(out, home)])
        return [(out, "w_o")]

    def _steps(self, heads: Tensor) -> list[Tensor]:
        """Step size, B and C of every token from its convolved channels."""
        b = self._at.builder
        channels = Tensor(name="channels", form=renamed(heads.form, {"I": "Q"}))
        b.pointwise("gate", "channels", [heads], [channels])
        weights = self._at.weights(("w_step_low", "w_select"), "select")
        made = b.matmul("select", [(channels, w) for w in weights], ("step low", "select"))
        batch = self._values.axes_of("B")
        goals = [(t, Form((("B", batch), ("L", ()), (letter, ())))) for t, letter in zip(made, "TW", strict=True)]
        low, select = b.bring(goals, partner="select")
        (w_step,) = self._at.weights(("w_step",), "steps")
        (steps,) = b.matmul("steps", [(low, w_step)], ("steps",))
        return [steps, select]
