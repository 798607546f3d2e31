"""Softmax attention as steps: rotate, append, exchange, attend, exchange back."""

from ...hardware_specs.errors import SpecError
from ..forms import Form
from ..mixers.attention import AttentionMixer
from ..program import Append, Attention, Tensor
from .forms import transposed
from .part import Context, Leaving


class AttentionPart:
    """The steps of `AttentionMixer`."""

    def __init__(self, context: Context, mixer: AttentionMixer) -> None:
        if mixer.value_width != mixer.d_head:
            raise SpecError(f"{context.model.name}: value heads of another width than keys have no plan yet")
        self._at, self._mixer = context, mixer
        forms, layout = context.forms, context.layout
        for name, dim, copies in self._projections():
            stored, used = (forms.per_head(form, dim) for form in (layout.stored, layout.used))
            context.matrix(name, stored, used, copies=copies)
        stored, used = (forms.per_head(transposed(form), "H") for form in (layout.stored, layout.used))
        context.matrix("w_o", stored, used)
        self._cache = Tensor(name="cache", form=forms.cache, role="kv", copies=2)
        if mixer.own_kv:
            context.state.append(self._cache)
        self._vectors()

    def _projections(self) -> list[tuple[str, str, int]]:
        own = [("w_kv", "K", 1 if self._mixer.value_is_key else 2)] if self._mixer.own_kv else []
        gate = [("w_gate", "H", 1)] if self._mixer.output_gate else []
        return [("w_q", "H", 1), *own, *gate]

    def _vectors(self) -> None:
        context, biases = self._at, self._at.model.biases
        if self._mixer.qk_norm and self._mixer.qk_norm_over == "head":
            context.vector("norms of q and k", Form((("Q", ()),)), 1 + self._mixer.own_kv)
        if self._mixer.qk_norm and self._mixer.qk_norm_over == "width":
            context.vector("norm of q", Form((("H", ()), ("Q", ()))))
            if self._mixer.own_kv:
                context.vector("norm of k", Form((("K", ()), ("Q", ()))))
        if self._mixer.head_gate:
            context.vector("head gate", Form((("E", ()), ("H", ()))))
        if biases.qkv:
            context.vector("bias of q", Form((("H", ()), ("Q", ()))))
            if self._mixer.own_kv:
                context.vector("bias of kv", Form((("K", ()), ("Q", ()))), 2)
            if self._mixer.output_gate:
                context.vector("bias of gate", Form((("H", ()), ("Q", ()))))
        if biases.attention_out:
            context.vector("bias of o", Form((("E", ()),)))
        if self._mixer.sinks:
            context.vector("sinks", Form((("H", ()),)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        return tuple((name, name.removeprefix("w_")) for name, _, _ in self._projections())

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        return self._at.forms.kv if out == "kv" else self._at.forms.per_head(self._at.forms.hidden, "H")

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`; parts of the context are merged by their log-sum-exp."""
        b, q = self._at.builder, made["q"]
        moved = [q] + ([made["kv"]] if self._mixer.own_kv else [])
        self._norm_and_rotate(moved)
        if self._mixer.own_kv:
            new = Tensor(name="kv", form=made["kv"].form, role="kv", copies=2)
            b.steps.append(Append(name="append", new=(new,)))
        home = q.form
        (q,) = b.bring([(q, self._at.forms.q)])
        out = self._attend(q)
        (out,) = b.bring([(out, home)])
        if self._mixer.output_gate:
            b.pointwise("gate", "output gate", [out, made["gate"]], [out])
        return [(out, "w_o")]

    def _norm_and_rotate(self, moved: list[Tensor]) -> None:
        """One step, before which chips add up their sums of squares where a norm is over the heads of several."""
        b, mixer = self._at.builder, self._mixer
        if mixer.qk_norm and mixer.qk_norm_over == "width":
            goals = []
            for t in moved:
                token, cut = t.form.dims[:2], t.form.dims[2][1]
                sums = Tensor(name=f"{t.name} norm statistics", form=Form(token, cut), role="statistic")
                goals.append((sums, Form(token)))
            b.bring(goals)
        if (mixer.positions or self._at.model.positions) == "rope":
            b.pointwise("rotate", "rotate", moved, moved)
        elif mixer.qk_norm:
            b.pointwise("norm", "norms of q and k", moved, moved)

    def _attend(self, q: Tensor) -> Tensor:
        b, cache = self._at.builder, self._cache
        cut = cache.form.axes_of("S")
        out = Tensor(name="mixed", form=Form(q.form.dims, cut))
        b.steps.append(
            Attention(name="attention", q=q, cache=cache, out=out, scores=self._scores(q), reach=self._mixer.reach)
        )
        if out.form.partial:
            self._at.share_statistics("attention statistics", Form((*q.form.dims, ("S", cut))), "S", "M")
            b.pointwise("merge", "merge", [out], [out])
        return out

    def _scores(self, q: Tensor) -> Tensor | None:
        """One score a query, head and key, where they are written out."""
        if not self._at.scores:
            return None
        dims = (*(item for item in q.form.dims if item[0] != "Q"), ("S", self._cache.form.axes_of("S")))
        return Tensor(name="scores", form=Form(dims))
