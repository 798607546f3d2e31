"""Latent attention as steps: compress, norm, expand the queries into the latent, attend to it, expand what comes out.

Dimensions: D the compressed query, O the latent, J the rotated part, I a head without rotation, Y a head's value; A and U
heads and width of the indexer.
"""

from ..forms import Form
from ..mixers.attention import Reach
from ..mixers.latent import LatentMixer
from ..program import Append, Index, LatentAttention, Tensor
from .forms import renamed, transposed
from .part import Context, Leaving


class LatentPart:
    """The steps of `LatentMixer`."""

    def __init__(self, context: Context, mixer: LatentMixer) -> None:
        self._at, self._mixer = context, mixer
        narrow = ["w_latent:O", "w_rope:J"] + (["w_dq:D"] if mixer.q_rank else [])
        for name, letter in (item.split(":") for item in narrow):
            stored, used = (
                Form((("E", f.axes_of("E")), (letter, ()))) for f in (context.layout.stored, context.layout.used)
            )
            context.matrix(name, stored, used)
        self._queries()
        self._head_matrix("w_uk", "HIO")
        self._head_matrix("w_uv", "HOY")
        forms = [context.forms.per_head(transposed(f), "H") for f in (context.layout.stored, context.layout.used)]
        stored, used = (renamed(form, {"Q": "Y"}) for form in forms)
        context.matrix("w_o", stored, used)
        if mixer.output_gate:
            stored, used = (self._gate(form) for form in (context.layout.stored, context.layout.used))
            context.matrix("w_gate", stored, used)
        self._cache()
        context.vector("norm of latent", Form((("O", ()),)))
        if mixer.q_rank:
            context.vector("norm of q", Form((("D", ()),)))
        self._index_weights()

    def _head_matrix(self, name: str, letters: str) -> None:
        """A matrix with one part a head: stored over every chip, used as the heads lie once they are projected."""
        layout, forms = self._at.layout, self._at.forms
        heads = forms.per_head(layout.hidden, "H").axes_of("H")
        everywhere = forms.head_axes_of((*layout.stored.axes_of("F"), *layout.stored.axes_of("E")))
        stored, used = (Form(tuple((dim, cut if dim == "H" else ()) for dim in letters)) for cut in (everywhere, heads))
        self._at.matrix(name, stored, used)

    def _gate(self, form: Form) -> Form:
        """As queries, with a head's value in the place of Q."""
        return renamed(self._at.forms.per_head(form, "H"), {"Q": "Y"})

    def _queries(self) -> None:
        for name, letter in (("w_uq", "I"), ("w_uqr", "J")):
            if self._mixer.q_rank:
                self._head_matrix(name, f"DH{letter}")
            else:
                layout, forms = self._at.layout, self._at.forms
                stored, used = (renamed(forms.per_head(f, "H"), {"Q": letter}) for f in (layout.stored, layout.used))
                self._at.matrix(name, stored, used)

    def _cache(self) -> None:
        forms = self._at.forms
        for name, letter in (("latents", "O"), ("rotated keys", "J")):
            self._at.state.append(Tensor(name=name, form=renamed(forms.cache, {"K": "", "Q": letter}), role="kv"))
        self._kept = (self._at.state[-2], self._at.state[-1])

    def _index_weights(self) -> None:
        index, model_axes = self._mixer.indexer, self._at.layout
        if index is None:
            return
        into = "D" if self._mixer.q_rank else "E"
        for name, letters in (("w_index_q", f"{into}AU"), ("w_index_k", "EU"), ("w_index_share", "EA")):
            stored, used = (
                Form(tuple((dim, f.axes_of("E") if dim == "E" else ()) for dim in letters))
                for f in (model_axes.stored, model_axes.used)
            )
            self._at.matrix(name, stored, used)
        self._at.vector("norm of index keys", Form((("U", ()),)), 2)
        form = renamed(self._at.forms.cache, {"K": "", "Q": "U"})
        self._at.state.append(Tensor(name="index keys", form=form, role="kv"))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        queries = [("w_dq", "q low")] if self._mixer.q_rank else [("w_uq", "q"), ("w_uqr", "q rotated")]
        index: list[tuple[str, str]] = []
        if self._mixer.indexer is not None:
            index = [("w_index_k", "index key"), ("w_index_share", "index share")]
            index += [] if self._mixer.q_rank else [("w_index_q", "index q")]
        gate = (("w_gate", "gate"),) if self._mixer.output_gate else ()
        return (*queries, ("w_latent", "latent"), ("w_rope", "rotated key"), *index, *gate)

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        forms = self._at.forms
        per_head = forms.per_head(forms.hidden, "H")
        batch = forms.entry.axes_of("B")
        letters = {"q low": "D", "latent": "O", "rotated key": "J", "index key": "U"}
        if out == "index q":
            return Form((("B", batch), ("L", ()), ("A", ()), ("U", ())))
        if out == "gate":
            return self._gate(forms.hidden)
        if out == "index share":
            return Form((("B", batch), ("L", ()), ("A", ())))
        if out in ("q", "q rotated"):
            return renamed(per_head, {"Q": "I" if out == "q" else "J"})
        kept = renamed(forms.kv, {"K": "", "Q": letters[out]})
        return (
            kept
            if out in ("latent", "rotated key", "index key")
            else Form((("B", batch), ("L", ()), (letters[out], ())))
        )

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b = self._at.builder
        latent, rotated = made["latent"], made["rotated key"]
        keys = [made["index key"]] if self._mixer.indexer else []
        normed = [latent, *keys] + ([made["q low"]] if self._mixer.q_rank else [])
        b.pointwise("norm", "latent norms", normed, normed)
        q, q_rotated = self._expand_queries(made)
        turned = [q_rotated, rotated, *([made["index q"], *keys] if keys else [])]
        b.pointwise("rotate", "rotate", turned, turned)
        kept = [Tensor(name=t.name, form=t.form, role="kv") for t in (latent, rotated, *keys)]
        b.steps.append(Append(name="append", new=tuple(kept)))
        (w_uk,) = self._at.weights(("w_uk",), "absorb")
        (inside,) = b.matmul("absorb", [(q, w_uk)], ("q inside",), batched="H")
        home = inside.form
        goals = [renamed(self._at.forms.q, {"Q": letter}) for letter in "OJ"]
        inside, q_rotated = b.bring([(inside, goals[0]), (q_rotated, goals[1])])
        out = self._attend(inside, q_rotated, made)
        (out,) = b.bring([(out, home)])
        (w_uv,) = self._at.weights(("w_uv",), "values")
        (values,) = b.matmul("values", [(out, w_uv)], ("values",), batched="H")
        if self._mixer.output_gate:
            (gate,) = b.bring([(made["gate"], values.form)])
            b.pointwise("gate", "output gate", [values, gate], [values])
        return [(values, "w_o")]

    def _expand_queries(self, made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if not self._mixer.q_rank:
            return made["q"], made["q rotated"]
        names = ("w_uq", "w_uqr") + (("w_index_q",) if self._mixer.indexer else ())
        weights = self._at.weights(names, "expand queries")
        outs = ("q", "q rotated", "index q")[: len(names)]
        found = self._at.builder.matmul("expand queries", [(made["q low"], w) for w in weights], outs)
        found = self._at.builder.bring([(t, self.goal(t.name)) for t in found], partner="expand queries")
        made |= {t.name: t for t in found}
        return made["q"], made["q rotated"]

    def _attend(self, q: Tensor, q_rotated: Tensor, made: dict[str, Tensor]) -> Tensor:
        b, index, cut = self._at.builder, self._mixer.indexer, self._kept[0].form.axes_of("S")
        reach = None if self._mixer.top_k is None else Reach(pattern="sparse", size=self._mixer.top_k)
        if index is not None:
            self._pick(made, index.top_k, cut)
            reach = Reach(pattern="sparse", size=index.top_k)
        out = Tensor(name="mixed", form=Form(q.form.dims, cut))
        b.steps.append(
            LatentAttention(
                name="attention", q=(q, q_rotated), cache=self._kept, out=out,
                d_nope=self._mixer.d_nope, d_value=self._mixer.d_value, reach=reach,
            )
        )  # fmt: skip
        if cut:
            heads = tuple(item for item in q.form.dims if item[0] != "O")
            self._at.share_statistics("attention statistics", Form((*heads, ("S", cut))), "S", "M")
            b.pointwise("merge", "merge", [out], [out])
        return out

    def _pick(self, made: dict[str, Tensor], top_k: int, cut: tuple[str, ...]) -> None:
        """Score the cached keys; where a context is cut, chips tell each other the scores of their best."""
        b, batch = self._at.builder, self._at.forms.q.axes_of("B")
        cached = next(t for t in self._at.state if t.name == "index keys")
        token = (("B", batch), ("L", ()))
        q, share = b.bring(
            [
                (made["index q"], Form((*token, ("A", ()), ("U", ())))),
                (made["index share"], Form((*token, ("A", ())))),
            ]
        )
        b.steps.append(Index(name="index", q=q, share=share, cache=cached, top_k=top_k))
        if cut:
            best = Tensor(name="index candidates", form=Form((*token, ("M", cut))), role="statistic", copies=top_k)
            b.bring([(best, Form((*token, ("M", ()))))])
