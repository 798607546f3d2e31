"""Softmax attention as steps: rotate, append, exchange, attend, exchange back.

Dimension T counts the input that an encoder read, of which cross-attention keeps keys and values.
"""

from dataclasses import replace

from ...hardware_specs.errors import SpecError
from ..builder import Builder
from ..forms import Form
from ..mixers.attention import AttentionMixer, Reach
from ..program import Append, Attention, Tensor
from .forms import renamed, transposed
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
        if mixer.head_gate:
            context.matrix("w_head_gate", self._a_head(layout.stored), self._a_head(layout.used))
        self._cache = Tensor(name="cache", form=forms.cache, role="kv", copies=2)
        if mixer.own_kv and not context.both_ways:
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
        if biases.qkv:
            context.vector("bias of q", Form((("H", ()), ("Q", ()))))
            if self._mixer.own_kv:
                context.vector("bias of kv", Form((("K", ()), ("Q", ()))), 1 if self._mixer.value_is_key else 2)
            if self._mixer.output_gate:
                context.vector("bias of gate", Form((("H", ()), ("Q", ()))))
        if biases.attention_out:
            context.vector("bias of o", Form((("E", ()),)))
        if self._mixer.sinks:
            context.vector("sinks", Form((("H", ()),)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        gate = (("w_head_gate", "head gate"),) if self._mixer.head_gate else ()
        return (*((name, name.removeprefix("w_")) for name, _, _ in self._projections()), *gate)

    def _a_head(self, form: Form) -> Form:
        """`form` with one number a head in the place of F."""
        return renamed(self._at.forms.per_head(form, "H"), {"Q": ""})

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        forms = self._at.forms
        if out == "head gate":
            return self._a_head(forms.hidden)
        return forms.kv if out == "kv" else forms.per_head(forms.hidden, "H")

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`; parts of the context are merged by their log-sum-exp."""
        b, q = self._at.builder, made["q"]
        moved = [q] + ([made["kv"]] if self._mixer.own_kv else [])
        self._norm_and_rotate(moved)
        home = q.form
        if self._at.both_ways:
            kv = Tensor(name="kv", form=made["kv"].form, copies=2)
            q, self._cache = b.bring([(q, self._at.forms.q), (kv, renamed(self._at.forms.cache, {"S": "L"}))])
        else:
            if self._mixer.own_kv:
                new = Tensor(name="kv", form=made["kv"].form, role="kv", copies=2)
                b.steps.append(Append(name="append", new=(new,)))
            (q,) = b.bring([(q, self._at.forms.q)])
        out = attend(self._at, "attention", q, self._cache, self._mixer.reach)
        (out,) = b.bring([(out, home)])
        if self._mixer.output_gate:
            b.pointwise("gate", "output gate", [out, made["gate"]], [out])
        if self._mixer.head_gate:
            b.pointwise("gate", "gate of heads", [out, made["head gate"]], [out])
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
        # one projection that is key and value leaves both behind it
        kept = [replace(t, copies=2) if t.name == "kv" else t for t in moved]
        if (mixer.positions or self._at.model.positions) == "rope":
            b.pointwise("rotate", "rotate", moved, kept)
        elif mixer.qk_norm:
            b.pointwise("norm", "norms of q and k", moved, kept)


class CrossPart:
    """Attention over what an encoder read: queries of every pass, keys and values of the input once."""

    def __init__(self, context: Context, mixer: AttentionMixer) -> None:
        own = context.block.mixer
        plain = AttentionMixer(n_heads=mixer.n_heads, n_kv_heads=mixer.n_kv_heads, d_head=mixer.d_head)
        alike = isinstance(own, AttentionMixer) and (own.n_heads, own.n_kv_heads, own.d_head) == (
            mixer.n_heads, mixer.n_kv_heads, mixer.d_head,
        )  # fmt: skip
        if mixer != plain or not alike:
            raise SpecError(
                f"{context.model.name}: cross attention has a plan where it is plain, with the heads of the block's own attention"
            )
        self._at = context
        forms, layout, biases = context.forms, context.layout, context.model.biases
        for name, dim, copies in (("w_cross_q", "H", 1), ("w_cross_kv", "K", 2)):
            stored, used = (forms.per_head(form, dim) for form in (layout.stored, layout.used))
            context.matrix(name, stored, used, copies=copies)
        stored, used = (forms.per_head(transposed(form), "H") for form in (layout.stored, layout.used))
        context.matrix("w_cross_o", stored, used)
        self._cache = Tensor(name="cross cache", form=renamed(forms.cache, {"S": "T"}), role="kv", copies=2)
        context.state.append(self._cache)
        if biases.qkv:
            context.vector("bias of cross q", Form((("H", ()), ("Q", ()))))
            context.vector("bias of cross kv", Form((("K", ()), ("Q", ()))), 2)
        if biases.attention_out:
            context.vector("bias of cross o", Form((("E", ()),)))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        return (("w_cross_q", "cross q"),)

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        return self._at.forms.per_head(self._at.forms.hidden, "H")

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b, q = self._at.builder, made["cross q"]
        home = q.form
        (q,) = b.bring([(q, self._at.forms.q)])
        out = attend(self._at, "cross attention", q, self._cache, None)
        (out,) = b.bring([(out, home)])
        return [(out, "w_cross_o")]

    def keep(self, encoded: Tensor, builder: Builder) -> None:
        """Add the steps that keep the input's keys and values; L is the input there."""
        (weight,) = builder.bring([(self._at.stored["w_cross_kv"], self._at.used["w_cross_kv"])], partner="cross kv")
        made = builder.matmul("cross kv", [(encoded, weight)], ("cross kv",))
        (kv,) = builder.bring([(made[0], self._at.forms.kv)], partner="cross kv")
        (kv,) = builder.bring([(kv, renamed(self._at.forms.cache, {"S": "L"}))])
        new = Tensor(name="cross kv", form=kv.form, role="kv", copies=2)
        builder.steps.append(Append(name="cross append", new=(new,)))


def attend(context: Context, name: str, q: Tensor, cache: Tensor, reach: Reach | None) -> Tensor:
    """Attention of `q` over a cache, parts of which are merged by their log-sum-exp."""
    b = context.builder
    positions = next(dim for dim in cache.form.letters if dim in ("S", "T", "L"))
    cut = cache.form.axes_of(positions)
    out = Tensor(name="mixed", form=Form(q.form.dims, cut))
    scores = _scores(q, "S" if positions == "L" else positions, cut) if context.scores else None
    b.steps.append(Attention(name=name, q=q, cache=cache, out=out, scores=scores, reach=reach))
    if out.form.partial:
        context.share_statistics(f"{name} statistics", Form((*q.form.dims, ("S", cut))), "S", "M")
        merge = "merge" if name == "attention" else f"{name} merge"
        b.pointwise("merge", merge, [out], [out])
    return out


def _scores(q: Tensor, positions: str, cut: tuple[str, ...]) -> Tensor:
    """One score a query, head and key, where they are written out."""
    return Tensor(name="scores", form=Form((*(item for item in q.form.dims if item[0] != "Q"), (positions, cut))))
