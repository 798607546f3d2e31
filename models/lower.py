"""From a model and a layout to the sharded program.

The lowering says which einsums there are and in which form each needs its operands. Every collective comes out of
`reshard`; those of one kind over the same axes at the same moment are one launch.
"""

from functools import lru_cache

from .builder import Builder, contract, transposed
from .description import Model
from .forms import AXES, Form, without_axes
from .layouts import AttentionSharding, Layout, get_layout
from .lifetimes import RESIDUAL, alive, buffers
from .program import (
    Append,
    Attention,
    SendRecv,
    ShardedProgram,
    Step,
    Tensor,
)


class _Forms:
    """The declared forms of one layout, with the batch and the heads cut as far as they really are."""

    def __init__(
        self,
        model: Model,
        layout: Layout,
        attention: AttentionSharding,
        batch_axes: tuple[str, ...],
        head_axes: tuple[str, ...],
    ) -> None:
        self.layout = layout
        self._batch_axes, self._head_axes = batch_axes, head_axes
        self._kv_axes = () if model.n_kv_heads == 1 else head_axes
        self.residual = self.tokens(layout.residual)
        self.entry = self.tokens(layout.entry)
        self.hidden = self.tokens(layout.hidden)
        self.exit = self.tokens(layout.exit)
        self.q = self._attention_form(attention, "H", "L", head_axes)
        self.cache = self._attention_form(attention, "K", "S", self._kv_axes)
        self.kv = self._attention_form("heads" if attention == "context" else attention, "K", "L", self._kv_axes)
        if attention == "context":
            self.kv = without_axes(self.kv, "K", ())

    def tokens(self, form: Form) -> Form:
        """`form` with B cut over the axes that divide the batch."""
        return without_axes(form, "B", self._batch_axes)

    def per_head(self, form: Form, dim: str) -> Form:
        """`form` with heads (`dim` H or K) and d_head Q in the place of F."""
        axes = self._head_axes if dim == "H" else self._kv_axes
        dims: list[tuple[str, tuple[str, ...]]] = []
        for letter, held in form.dims:
            dims += [(dim, tuple(a for a in held if a in axes)), ("Q", ())] if letter == "F" else [(letter, held)]
        return Form(tuple(dims), form.partial)

    def matrices(self, w_in: Form) -> dict[str, Form]:
        """Each matrix of a block where the first of the feed-forward network has the form `w_in`."""
        w_out = transposed(w_in)
        return {
            "w_in": w_in,
            "w_out": w_out,
            "w_q": self.per_head(w_in, "H"),
            "w_kv": self.per_head(w_in, "K"),
            "w_o": self.per_head(w_out, "H"),
        }

    def _attention_form(self, attention: AttentionSharding, dim: str, positions: str, axes: tuple[str, ...]) -> Form:
        """Queries (dim H, positions L) or cached keys and values (K, S) during attention."""
        batch = self.residual.axes_of("B")
        cut: dict[str, tuple[str, ...]] = {dim: (), positions: ()}
        if attention == "batch":
            batch = tuple(a for a in AXES if a in self._batch_axes)
        if attention != "context":
            # axes that do not divide the batch go on cutting the heads
            cut[dim] = tuple(a for a in self.layout.hidden.axes_of("F") if a in axes and a not in batch)
        elif positions == "S":
            cut["S"] = tuple(a for a in AXES if a not in self.layout.token_axes)
        order = ("B", positions, dim, "Q")
        return Form(tuple((d, batch if d == "B" else cut.get(d, ())) for d in order))


class _Lowering:
    """Builds the parts of one program."""

    def __init__(self, model: Model, layout: Layout, forms: _Forms, *, looped: bool, scores: bool) -> None:
        self.model, self.layout, self.forms, self.looped, self.scores = model, layout, forms, looped, scores
        up = 2 if model.gated else 1
        copies = {"w_in": up, "w_kv": 2}
        self.weights = {
            name: Tensor(name=name, form=form, role="weight", copies=copies.get(name, 1))
            for name, form in forms.matrices(layout.stored).items()
        }

    def block(self) -> tuple[Step, ...]:
        """One layer."""
        residual = Tensor(name=RESIDUAL, form=self.forms.residual)
        b = Builder(looped=self.looped)
        if self.model.block == "parallel":
            x = self._normed(b, residual, "", "project")
            q, kv, h = self._project(b, x, ("w_q", "w_kv", "w_in"), "project", ("q", "kv", "hidden"))
            o = self._attend(b, q, kv)
            h = self._activate(b, h)
            self._merge(b, [(o, "w_o"), (h, "w_out")], "merge", "update", residual)
        else:
            x = self._normed(b, residual, "attention ", "project")
            q, kv = self._project(b, x, ("w_q", "w_kv"), "project", ("q", "kv"))
            o = self._attend(b, q, kv)
            self._merge(b, [(o, "w_o")], "attention out", "attention update", residual)
            x = self._normed(b, residual, "ffn ", "ffn in")
            (h,) = self._project(b, x, ("w_in",), "ffn in", ("hidden",))
            h = self._activate(b, h)
            self._merge(b, [(h, "w_out")], "ffn out", "ffn update", residual)
        return tuple(b.steps)

    def _weight(self, b: Builder, names: tuple[str, ...], partner: str) -> list[Tensor]:
        """The weights as their einsum takes them; gathered in one collective if the layout says so."""
        goal = self.forms.matrices(self.layout.used)
        return b.bring([(self.weights[name], goal[name]) for name in names], partner=partner)

    def _normed(self, b: Builder, residual: Tensor, which: str, partner: str) -> Tensor:
        """Norm where E is least cut: in the residual's form if E is whole there, else gathered to the entry's.

        What is still cut there has its statistics gathered (N: each chip's sum of squares, for layernorm also its sum)
        and added up by every chip.
        """
        whole = not residual.form.axes_of("E")
        goal = Form(residual.form.dims) if whole else self._entry(residual)
        (x,) = b.bring([(Tensor(name=f"{which}normed", form=residual.form), goal)], partner=partner)
        self._share_statistics(b, f"{which}norm statistics", x.form, "E", "N")
        b.pointwise("norm", f"{which}norm", [x], [x])
        return x

    @staticmethod
    def _share_statistics(b: Builder, name: str, form: Form, dim: str, letter: str) -> None:
        """Every chip's own numbers about its part of `dim` go to all that hold another part; `letter` counts them."""
        axes = form.axes_of(dim)
        if axes:
            rest = tuple(item for item in form.dims if item[0] not in (dim, "Q"))
            parts = Tensor(name=name, form=Form((*rest, (letter, axes))), role="statistic")
            b.bring([(parts, Form((*rest, (letter, ()))))])

    def _entry(self, residual: Tensor) -> Form:
        """The entry's form for what has the residual's dimensions."""
        return Form(tuple(item for item in self.forms.entry.dims if item[0] in residual.form.letters))

    def _project(self, b: Builder, x: Tensor, names: tuple[str, ...], name: str, outs: tuple[str, ...]) -> list[Tensor]:
        """Enter the tensor-parallel region: gather x, multiply, and sum what is partial into the declared forms."""
        weights = self._weight(b, names, name)
        (x,) = b.bring([(x, self.forms.entry)], partner=name)
        made = b.matmul(name, [(x, w) for w in weights], outs)
        goal = {
            "q": self.forms.per_head(self.forms.hidden, "H"),
            "kv": self.forms.kv,
            "hidden": self.forms.hidden,
        }
        return b.bring([(tensor, goal[tensor.name]) for tensor in made], partner=name)

    def _attend(self, b: Builder, q: Tensor, kv: Tensor) -> Tensor:
        """Rotate, append, exchange, attend, exchange back; parts of the context are merged by their log-sum-exp."""
        if self.model.positions == "rope":
            b.pointwise("rotate", "rotate", [q, kv], [q, kv])
        b.steps.append(Append(name="append", new=Tensor(name="kv", form=kv.form, role="kv", copies=2)))
        home = q.form
        (q,) = b.bring([(q, self.forms.q)])
        cache = self.cache()
        out = Tensor(name="mixed", form=Form(q.form.dims, cache.form.axes_of("S")))
        b.steps.append(Attention(name="attention", q=q, cache=cache, out=out, scores=self._scores(q, cache)))
        if out.form.partial:
            queries = Form((*q.form.dims, ("S", cache.form.axes_of("S"))))
            self._share_statistics(b, "attention statistics", queries, "S", "M")
            b.pointwise("merge", "merge", [out], [out])
        (out,) = b.bring([(out, home)])
        return out

    def _scores(self, q: Tensor, cache: Tensor) -> Tensor | None:
        """One score a query, head and key, where they are written out."""
        if not self.scores:
            return None
        dims = (*(item for item in q.form.dims if item[0] != "Q"), ("S", cache.form.axes_of("S")))
        return Tensor(name="scores", form=Form(dims))

    def _activate(self, b: Builder, h: Tensor) -> Tensor:
        activated = Tensor(name="activated", form=h.form)
        b.pointwise("activate", "activation", [h], [activated])
        return activated

    def _merge(self, b: Builder, parts: list[tuple[Tensor, str]], name: str, update: str, residual: Tensor) -> None:
        """Leave the tensor-parallel region: multiply, add equal partial sums, reduce once, add the residual."""
        weights = self._weight(b, tuple(weight for _, weight in parts), name)
        exits = [
            self.forms.exit if weight == "w_out" else self.forms.per_head(self.forms.exit, "H") for _, weight in parts
        ]
        xs = b.bring([(x, form) for (x, _), form in zip(parts, exits, strict=True)], partner=name)
        pairs = list(zip(xs, weights, strict=True))
        alike = len({contract(x.form, w.form) for x, w in pairs}) == 1
        made = b.matmul(name, pairs, tuple(update if alike else f"{update} of {w.name}" for w in weights))
        updates = b.bring([(tensor, residual.form) for tensor in dict.fromkeys(made)], partner=name)
        b.pointwise("add", f"{name} add", [residual, *updates], [residual])

    def cache(self) -> Tensor:
        return Tensor(name="cache", form=self.forms.cache, role="kv", copies=2)

    def block_vectors(self) -> tuple[Tensor, ...]:
        """Norms and biases of one layer: whole on every chip, so that any layout slices what it needs for nothing."""
        model = self.model
        norm = model.n_norms_per_block * (2 if model.norm_bias else 1)
        heads = [("norms of q and k", self._vector("Q", ()), 2)] if model.qk_norm else []
        found = [("norms", self._vector("E", ()), norm), *heads]
        if model.biases.qkv:
            found.append(("bias of q", Form((("H", ()), ("Q", ()))), 1))
            found.append(("bias of kv", Form((("K", ()), ("Q", ()))), 2))
        if model.biases.attention_out:
            found.append(("bias of o", self._vector("E", ()), 1))
        if model.biases.ffn:
            found.append(("bias of w_in", self._vector("F", ()), 2 if model.gated else 1))
            found.append(("bias of w_out", self._vector("E", ()), 1))
        return tuple(Tensor(name=name, form=form, role="weight", copies=copies) for name, form, copies in found)

    def first_weights(self) -> tuple[Tensor, ...]:
        """The lookup table, learned positions, the norm after them."""
        model, table = self.model, self.embedding()
        found = [table]
        if model.n_learned_positions:
            form = Form((("P", ()), ("E", table.form.axes_of("E"))))
            found.append(Tensor(name="positions", form=form, role="weight"))
        return (*found, *(self._norm("embedding norm") if model.embedding_norm else ()))

    def last_weights(self) -> tuple[Tensor, ...]:
        """The final norm and the output matrix; a tied one is the lookup table where both lie alike."""
        model, matrix, table = self.model, self.unembedding(), self.embedding()
        one = model.tied_embeddings and transposed(matrix.form) == table.form
        found = [table if one else matrix]
        if model.biases.logits:
            form = self._vector("V", matrix.form.axes_of("V"))
            found.append(Tensor(name="bias of logits", form=form, role="weight"))
        return (*found, *(self._norm("final norm") if model.final_norm else ()))

    def _norm(self, name: str) -> tuple[Tensor, ...]:
        copies = 2 if self.model.norm_bias else 1
        return (Tensor(name=name, form=self._vector("E", ()), role="weight", copies=copies),)

    @staticmethod
    def _vector(dim: str, axes: tuple[str, ...]) -> Form:
        return Form(((dim, axes),))

    def embedding(self) -> Tensor:
        return Tensor(name="embedding", form=self.layout.embedding, role="weight")

    def unembedding(self) -> Tensor:
        """The output matrix, cut like W_in with the vocabulary in the place of F."""
        stored = self.layout.stored
        form = Form((("E", stored.axes_of("E")), ("V", stored.axes_of("F"))))
        return Tensor(name="unembedding", form=form, role="weight")

    def embed(self) -> tuple[Step, ...]:
        """Look up what this chip's part of the table holds; where the vocabulary is cut, the parts are summed."""
        b = Builder(looped=self.looped)
        table = self.embedding().form
        found = Form((("B", ()), ("L", ()), ("E", table.axes_of("E"))), table.axes_of("V"))
        rows = Tensor(name="embedded", form=found)
        b.pointwise("embed", "embed", [rows], [rows])
        (rows,) = b.bring([(rows, self.forms.residual)])
        if self.model.embedding_norm:
            self._share_statistics(b, "embedding norm statistics", rows.form, "E", "R")
            b.pointwise("norm", "embedding norm", [rows], [rows])
        return tuple(b.steps)

    def unembed(self) -> tuple[Step, ...]:
        """Final norm of each sequence's last position, vocabulary-parallel logits, greedy choice over the shards."""
        b = Builder(looped=self.looped)
        # where positions are cut, the last one lies on one chip and counts as nothing on the others
        dims = tuple(item for item in self.forms.residual.dims if item[0] != "L")
        last = Tensor(name="last", form=Form(dims, self.forms.residual.axes_of("L")))
        if self.model.final_norm:
            last = self._normed(b, last, "final ", "logits")
        weight = self.unembedding()
        table = weight.form
        (last,) = b.bring([(last, Form((("B", ()), ("E", table.axes_of("E")))))])
        (logits,) = b.matmul("logits", [(last, weight)], ("logits",))
        cut = (*table.axes_of("V"), *table.axes_of("E"))
        (logits,) = b.bring([(logits, Form((("B", ()), ("V", cut))))])
        b.pointwise("sample", "sample", [logits], [])
        # C: each shard's best value and its index, two numbers
        best = Tensor(name="best", form=Form((("B", ()), ("C", cut))), role="logit", copies=2)
        b.bring([(best, Form((("B", ()), ("C", ()))))])
        return tuple(b.steps)


@lru_cache(maxsize=1024)
def lower(
    model: Model,
    layout: str,
    attention: AttentionSharding,
    *,
    batch_axes: tuple[str, ...] = AXES,
    head_axes: tuple[str, ...] = AXES,
    looped: bool = False,
    materialised_scores: bool = False,
) -> ShardedProgram:
    """Lower one layout of one model to a sharded program.

    Parameters
    ----------
    layout, attention : names of DESIGN section 5: ``ws-2d``, ``batch``
    batch_axes : the axes that divide the batch (a prefix of x, y, z); forms that cut B over others leave it whole there
    head_axes : the axes the heads are cut over, padded where they do not divide
    looped : weights are gathered in rounds beside the matmul that uses them (looped CollectiveEinsum)
    materialised_scores : attention writes its scores to memory, masked ones too, as before flash attention

    References
    ----------
    [Pope2022] sections 3.2 to 3.5.
    """
    declared = get_layout(layout)
    forms = _Forms(model, declared, attention, batch_axes, head_axes)
    made = _Lowering(model, declared, forms, looped=looped, scores=materialised_scores)
    residual = Tensor(name=RESIDUAL, form=forms.residual)
    first, block, last = made.embed(), made.block(), made.unembed()
    return ShardedProgram(
        model=model,
        layout=declared,
        attention=attention,
        batch_axes=batch_axes,
        head_axes=head_axes,
        looped=looped,
        first=first,
        block=block,
        last=last,
        handover=(SendRecv(name="send", tensor=residual),),
        block_weights=(*made.weights.values(), *made.block_vectors()),
        first_weights=made.first_weights(),
        last_weights=made.last_weights(),
        cache=made.cache(),
        residual=residual,
        alive=tuple(held for steps in (first, block, last) for held in alive(steps)),
        buffers=buffers((*first, *block, *last)),
    )
