"""Recurrent mixers as steps: convolve, scan, gate.

Dimensions: I what a head takes from a token, J what a group of heads takes; T and W what is made of the convolved channels,
of which T is widened to a number a channel; D and Q the state of a head; X and U what the convolution keeps of a head and of
a group; O the mixer's vectors.
"""

from ..blocks import RecurrentMixer
from ..forms import Form
from ..mixers.delta import DeltaMixer
from ..mixers.linear import LinearMixer
from ..mixers.mamba import Mamba2Mixer, MambaMixer
from ..program import Scan, Tensor
from .forms import renamed, transposed
from .part import Context, Leaving


def keep_vectors(context: Context, n_vector_params: int) -> None:
    """Norms, biases, decays and convolution weights as one tensor, whole on every chip."""
    if n_vector_params:
        context.vector("vectors", Form((("O", ()),)))


class RecurrentPart:
    """The steps of every mixer with a `recurrence` that projects the normed token itself."""

    def __init__(self, context: Context, mixer: RecurrentMixer) -> None:
        self._at, self._mixer = context, mixer
        self._shape = mixer.recurrence(context.model.d_model)
        forms, layout = context.forms, context.layout
        streams = [("w_heads", "H", "I")] + ([("w_groups", "K", "J")] if self._shape.n_groups else [])
        for name, dim, letter in streams:
            stored, used = (renamed(forms.per_head(f, dim), {"Q": letter}) for f in (layout.stored, layout.used))
            context.matrix(name, stored, used)
        for name in self._squeezed:
            stored, used = (Form((("E", f.axes_of("E")), ("T", ()))) for f in (layout.stored, layout.used))
            context.matrix(f"w_squeeze_{name}", stored, used)
            stored, used = (Form((("T", ()), *forms.per_head(f, "H").dims[1:])) for f in (layout.stored, layout.used))
            context.matrix(f"w_widen_{name}", stored, used)
        stored, used = (forms.per_head(transposed(f), "H") for f in (layout.stored, layout.used))
        context.matrix("w_o", stored, used)
        self._values, self._groups = forms.recurrent
        if self._shape.low_rank:
            heads = [form.axes_of("H") for form in (stored, self._values)]
            for name, letters in (("w_step_low", "HQT"), ("w_select", "HQW"), ("w_step", "THQ")):
                low, low_used = (Form(tuple((d, cut if d == "H" else ()) for d in letters)) for cut in heads)
                context.matrix(name, low, low_used)
        self._keep()
        keep_vectors(context, self._shape.n_vector_params)

    @property
    def _squeezed(self) -> tuple[str, ...]:
        """What is made through a narrow matrix: a decay a channel, and the gate unless it is projected at once."""
        if not isinstance(self._mixer, DeltaMixer) or not self._mixer.d_squeezed:
            return ()
        return ("decay",) if self._mixer.wide_gate else ("decay", "gate")

    def _keep(self) -> None:
        """States in full precision, and of each convolution the tokens it still needs."""
        shape, state = self._shape, self._at.state
        state.append(Tensor(name="state", form=self._kept("H", "D", "Q"), role="state"))
        if shape.keeps_sums:
            state.append(Tensor(name="key sums", form=self._kept("H", "D"), role="state"))
        if shape.d_conv > 1 and shape.convolved_per_head:
            state.append(Tensor(name="convolution state", form=self._kept("H", "X")))
        if shape.d_conv > 1 and shape.convolved_per_group:
            state.append(Tensor(name="convolution state of groups", form=self._kept("K", "U")))

    def _kept(self, dim: str, *letters: str) -> Form:
        held = self._values if dim == "H" else self._groups
        return Form((("B", held.axes_of("B")), (dim, held.axes_of(dim)), *((letter, ()) for letter in letters)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        groups = (("w_groups", "groups"),) if self._shape.n_groups else ()
        return (("w_heads", "heads"), *groups, *((f"w_squeeze_{name}", f"low {name}") for name in self._squeezed))

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        if out.startswith("low "):
            return Form((("B", self._at.forms.entry.axes_of("B")), ("L", ()), ("T", ())))
        dim, letter = ("H", "I") if out == "heads" else ("K", "J")
        return renamed(self._at.forms.per_head(self._at.forms.hidden, dim), {"Q": letter})

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b = self._at.builder
        home = renamed(made["heads"].form, {"I": "Q"})
        goals = [(made["heads"], renamed(self._values, {"Q": "I"}))]
        if "groups" in made:
            goals.append((made["groups"], renamed(self._groups, {"Q": "J"})))
        wide = self._widened(made)
        n_streams = len(goals)
        brought = b.bring([*goals, *((tensor, self._values) for tensor in wide)])
        streams, wide = brought[:n_streams], brought[n_streams:]
        if self._shape.d_conv > 1:
            b.pointwise("convolve", "convolve", streams, streams)
        reads = [*streams, *(self._steps(streams[0]) if self._shape.low_rank else ()), *wide[:1]]
        out = Tensor(name="mixed", form=self._values)
        b.steps.append(Scan(name="scan", reads=tuple(reads), state=tuple(self._at.state), out=out))
        if not isinstance(self._mixer, LinearMixer):
            self._share_norm(out)
            b.pointwise("gate", "scan gate", [out, wide[1] if len(wide) > 1 else streams[0]], [out])
        (out,) = b.bring([(out, home)])
        return [(out, "w_o")]

    def _widened(self, made: dict[str, Tensor]) -> list[Tensor]:
        """A number a channel again of what was squeezed."""
        names = self._squeezed
        if not names:
            return []
        weights = self._at.weights(tuple(f"w_widen_{name}" for name in names), "widen")
        pairs = [(made[f"low {name}"], weight) for name, weight in zip(names, weights, strict=True)]
        return self._at.builder.matmul("widen", pairs, tuple(f"wide {name}" for name in names))

    def _share_norm(self, out: Tensor) -> None:
        """Where one norm is over the heads of several chips, their sums of squares are added up."""
        cut = out.form.axes_of("H")
        if isinstance(self._mixer, Mamba2Mixer) and self._mixer.n_groups == 1 and cut:
            token = (("B", out.form.axes_of("B")), ("L", ()))
            sums = Tensor(name="scan gate statistics", form=Form(token, cut), role="statistic")
            self._at.builder.bring([(sums, Form(token))])

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
        if isinstance(self._mixer, MambaMixer) and self._mixer.inner_norms:
            b.pointwise("norm", "inner norms", [low, select], [low, select])
        (w_step,) = self._at.weights(("w_step",), "steps")
        (steps,) = b.matmul("steps", [(low, w_step)], ("steps",))
        return [steps, select]
