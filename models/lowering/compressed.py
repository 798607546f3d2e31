"""Attention over a window and over compressed entries as steps.

Dimensions: D the compressed query, Q a head and the one vector that is its key and value, J what makes an entry; T groups of
heads, Y what a group is squeezed to; A, U, X the indexer's heads, width and what makes its entries; O the vectors.
"""

from ..forms import Form
from ..mixers.attention import Reach
from ..mixers.compressed import CompressedMixer
from ..program import Append, Attention, Index, Tensor
from .forms import renamed
from .part import Context, Leaving


class CompressedPart:
    """The steps of `CompressedMixer`."""

    def __init__(self, context: Context, mixer: CompressedMixer) -> None:
        self._at, self._mixer = context, mixer
        layout, forms = context.layout, context.forms
        heads = [forms.per_head(form, "H").axes_of("H") for form in (layout.stored, layout.used)]
        whole = {"w_dq": "ED", "w_kv": "EQ"}
        whole |= {"w_entry": "EJ"} if mixer.ratio else {}
        whole |= {"w_index_entry": "EX", "w_index_share": "EA", "w_index_q": "DAU"} if mixer.indexer else {}
        for name, letters in whole.items():
            stored, used = (self._form(letters, {"E": form.axes_of("E")}) for form in (layout.stored, layout.used))
            context.matrix(name, stored, used)
        for name, letters, cut in (("w_uq", "DHQ", "H"), ("w_squeeze", "HQY", "H"), ("w_o", "TYE", "T")):
            stored, used = (
                self._form(letters, {cut: axes, "E": form.axes_of("E")})
                for axes, form in zip(heads, (layout.stored, layout.used), strict=True)
            )
            context.matrix(name, stored, used)
        self._cache = Tensor(name="cache", form=renamed(forms.cache, {"K": ""}), role="kv")
        context.state.append(self._cache)
        if mixer.indexer:
            context.state.append(Tensor(name="index keys", form=renamed(self._cache.form, {"Q": "U"}), role="kv"))
        context.vector("vectors", Form((("O", ()),)))

    @staticmethod
    def _form(letters: str, cut: dict[str, tuple[str, ...]]) -> Form:
        return Form(tuple((dim, cut.get(dim, ())) for dim in letters))

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """See `Part`."""
        entries = [("w_entry", "entry")] if self._mixer.ratio else []
        index = [("w_index_entry", "index entry"), ("w_index_share", "index share")] if self._mixer.indexer else []
        return (("w_dq", "q low"), ("w_kv", "kv"), *entries, *index)

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """See `Part`."""
        return {}

    def goal(self, out: str) -> Form:
        """See `Part`."""
        letters = {"q low": "D", "kv": "Q", "entry": "J", "index entry": "X", "index share": "A"}
        if out == "kv":
            return renamed(self._at.forms.kv, {"K": ""})
        return Form((("B", self._at.forms.entry.axes_of("B")), ("L", ()), (letters[out], ())))

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """See `Part`."""
        b, mixer = self._at.builder, self._mixer
        compressed = [t for name, t in made.items() if name != "index share"]
        b.pointwise("norm", "latent norms", compressed, compressed)
        names = ("w_uq", "w_index_q") if mixer.indexer else ("w_uq",)
        weights = self._at.weights(names, "expand queries")
        found = b.matmul("expand queries", [(made["q low"], w) for w in weights], ("q", "index q")[: len(names)])
        q = b.bring([(found[0], self._at.forms.per_head(self._at.forms.hidden, "H"))])[0]
        b.pointwise("rotate", "rotate", [q, made["kv"]], [q, made["kv"]])
        kept = Tensor(name="kv", form=made["kv"].form, role="kv")
        b.steps.append(Append(name="append", new=(kept,)))
        if mixer.indexer:
            keys = next(t for t in self._at.state if t.name == "index keys")
            batch = keys.form.axes_of("B")
            token = (("B", batch), ("L", ()))
            index_q, share = b.bring(
                [(found[1], Form((*token, ("A", ()), ("U", ())))), (made["index share"], Form((*token, ("A", ()))))]
            )
            b.steps.append(Index(name="index", q=index_q, share=share, cache=keys, top_k=mixer.indexer.top_k))
        home = q.form
        (q,) = b.bring([(q, self._at.forms.q)])
        (out,) = b.bring([(self._attend(q), home)])
        return [(self._squeezed(out), "w_o")]

    def _attend(self, q: Tensor) -> Tensor:
        b, cut = self._at.builder, self._cache.form.axes_of("S")
        out = Tensor(name="mixed", form=Form(q.form.dims, cut))
        b.steps.append(Attention(name="attention", q=q, cache=self._cache, out=out, reach=self._reach()))
        if cut:
            self._at.share_statistics("attention statistics", Form((*q.form.dims, ("S", cut))), "S", "M")
            b.pointwise("merge", "merge", [out], [out])
        return out

    def _reach(self) -> Reach | None:
        """Positions of the cache a query meets: all that lie there, or the window and the entries picked."""
        if self._mixer.indexer is None:
            return None
        return Reach(pattern="sparse", size=self._mixer.window + self._mixer.indexer.top_k)

    def _squeezed(self, out: Tensor) -> Tensor:
        """Every group of heads as a few numbers."""
        b = self._at.builder
        (w_squeeze,) = self._at.weights(("w_squeeze",), "squeeze")
        (out,) = b.bring([(out, self._exit(out.form))])
        (narrow,) = b.matmul("squeeze", [(out, w_squeeze)], ("narrow",), batched="H")
        grouped = Tensor(name="grouped", form=renamed(narrow.form, {"H": "T"}))
        b.pointwise("add", "groups", [narrow], [grouped])
        return grouped

    def _exit(self, form: Form) -> Form:
        """Heads cut as the squeezing weights have them."""
        return Form(tuple((d, self._at.used["w_squeeze"].axes_of("H") if d == "H" else axes) for d, axes in form.dims))
