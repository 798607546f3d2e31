"""Feed-forward parts as steps: dense, and experts with what is shared beside them.

Dimensions: F the hidden width, G the experts, Z the hidden width of the shared experts.
"""

from ..feed_forward import DenseFfn, ExpertsFfn
from ..forms import AXES, Form
from ..program import Exchange, Experts, Tensor
from .forms import renamed, transposed
from .part import Context, Leaving, mix_tokens


class DensePart:
    """The steps of `DenseFfn`."""

    def __init__(self, context: Context, ffn: DenseFfn) -> None:
        self._at, self._ffn = context, ffn
        layout, biases = context.layout, context.model.biases
        context.matrix("w_in", layout.stored, layout.used, copies=2 if ffn.gated else 1)
        context.matrix("w_out", transposed(layout.stored), transposed(layout.used))
        if ffn.receptance:
            axes = [(form.axes_of("E"), form.axes_of("F")) for form in (layout.stored, layout.used)]
            stored, used = (Form((("E", into), ("Y", out))) for into, out in axes)
            context.matrix("w_receptance", stored, used)
            context.vector("token mixing of ffn", Form((("E", ()),)), 2)
        if biases.ffn:
            context.vector("bias of w_in", Form((("F", ()),)), 2 if ffn.gated else 1)
            context.vector("bias of w_out", Form((("E", ()),)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        return (("w_in", "hidden"),) + ((("w_receptance", "receptance"),) if self._ffn.receptance else ())

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return mix_tokens(self._at, x, "token mixing of ffn", ("w_in", "w_receptance")) if self._ffn.receptance else {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        if out == "receptance":
            return renamed(self._at.forms.residual, {"E": "Y"})
        return self._at.forms.hidden

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        h = made["hidden"]
        activated = Tensor(name="activated", form=h.form)
        self._at.builder.pointwise("activate", "activation", [h], [activated])
        return [(activated, "w_out")]


class ExpertsPart:
    """The steps of `ExpertsFfn`."""

    def __init__(self, context: Context, ffn: ExpertsFfn) -> None:
        self._at, self._ffn = context, ffn
        layout, forms = context.layout, context.forms
        width = {"E": "P"} if ffn.d_latent else {}
        up, down = (renamed(form, width) for form in forms.expert_matrices(layout.stored))
        up_used, down_used = (renamed(form, width) for form in forms.expert_matrices(layout.used))
        if ffn.d_latent:
            context.vector("into latent", Form((("E", ()), ("P", ()))))
            context.vector("out of latent", Form((("P", ()), ("E", ()))))
        context.role = "expert"
        context.matrix("experts in", up, up_used, copies=2 if ffn.gated else 1)
        context.matrix("experts out", down, down_used)
        context.role = "weight"
        context.vector("router", Form((("E", ()), ("G", ()))))
        if ffn.router_bias:
            context.vector("bias of router", Form((("G", ()),)))
        if ffn.expert_bias:
            context.vector(
                "bias of experts in", Form((("G", up.axes_of("G")), ("F", up.axes_of("F")))), 2 if ffn.gated else 1
            )
            out = "P" if ffn.d_latent else "E"
            context.vector("bias of experts out", Form((("G", up.axes_of("G")), (out, ()))))
        if ffn.d_ff_shared:
            wide = [renamed(form, {"F": "Z"}) for form in (layout.stored, layout.used)]
            context.matrix("shared in", wide[0], wide[1], copies=2 if ffn.gated else 1)
            context.matrix("shared out", transposed(wide[0]), transposed(wide[1]))
        if ffn.shared_gate:
            context.vector("shared gate", Form((("E", ()),)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        return (("shared in", "shared hidden"),) if self._ffn.d_ff_shared else ()

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        return renamed(self._at.forms.hidden, {"F": "Z"})

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b, forms = self._at.builder, self._at.forms
        (tokens,) = b.bring([(x, forms.routed)], partner="experts")
        b.matmul("router", [(tokens, self._router())], ("choice",))
        b.pointwise("route", "route", [Tensor(name="choice", form=renamed(tokens.form, {"E": "G"}))], [])
        routed = self._in_latent(tokens) if self._ffn.d_latent else self._experts(tokens)
        leaving: list[Leaving] = [(routed, None)]
        if "shared hidden" in made:
            h = made["shared hidden"]
            activated = Tensor(name="shared activated", form=h.form)
            b.pointwise("activate", "shared activation", [h], [activated])
            leaving.append((activated, "shared out"))
        return leaving

    def _router(self) -> Tensor:
        return self._vector("router")

    def _vector(self, name: str) -> Tensor:
        return next(t for t in self._at.vectors if t.name == name)

    def _in_latent(self, tokens: Tensor) -> Tensor:
        """The experts between the two projections that all of them share."""
        b = self._at.builder
        (narrow,) = b.matmul("into latent", [(tokens, self._vector("into latent"))], ("narrow",))
        routed = self._experts(narrow)
        (routed,) = b.bring([(routed, Form(routed.form.dims))], partner="out of latent")
        (wide,) = b.matmul("out of latent", [(routed, self._vector("out of latent"))], ("routed wide",))
        return wide

    def _experts(self, tokens: Tensor) -> Tensor:
        b, names = self._at.builder, ("experts in", "experts out")
        up = self._at.used["experts in"]
        cut = (*up.axes_of("G"), *up.axes_of("F"))
        weights = tuple(self._at.weights(names, "experts"))
        if self._at.forms.experts != "exchange":
            out = Tensor(name="routed", form=Form(tokens.form.dims, cut))
            b.steps.append(Experts(name="experts", x=tokens, weights=weights, out=out, ffn=self._ffn))
            return out
        n_copies, axes = self._ffn.n_experts_per_token, tuple(axis for axis in AXES if axis in cut)
        out = Tensor(name="routed", form=tokens.form)
        counted = self._ffn.n_experts
        b.steps.append(Exchange(name="dispatch", axes=axes, tensor=tokens, n_copies=n_copies, n_counts=counted))
        b.steps.append(Experts(name="experts", x=tokens, weights=weights, out=out, ffn=self._ffn, exchanged=axes))
        b.steps.append(Exchange(name="combine", axes=axes, tensor=out, n_copies=n_copies))
        return out
