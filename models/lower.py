"""From a model and a layout to the sharded program.

The lowering says which einsums there are and in which form each needs its operands. Every collective comes out of
`reshard`; those of one kind over the same axes at the same moment are one launch.
"""

from functools import lru_cache

from .builder import Builder
from .description import Model
from .forms import AXES, Form
from .layouts import AttentionSharding, ExpertSharding, Layout, get_layout
from .lifetimes import RESIDUAL, alive, buffers
from .lowering.block import lower_block, normed
from .lowering.forms import BlockForms, transposed
from .lowering.part import share_statistics
from .program import SendRecv, ShardedProgram, Step, Tensor


class _Ends:
    """What lies before the first block and after the last."""

    def __init__(self, model: Model, layout: Layout, forms: BlockForms, *, looped: bool) -> None:
        self.model, self.layout, self.forms, self.looped = model, layout, forms, looped

    def first_weights(self) -> tuple[Tensor, ...]:
        """The lookup table, learned positions, the norm after them."""
        model, table = self.model, self.embedding()
        found = [table]
        if model.n_learned_positions:
            form = Form((("P", ()), ("E", table.form.axes_of("E"))))
            found.append(Tensor(name="positions", form=form, role="end"))
        if model.n_other_params:
            found.append(Tensor(name="others", form=self._vector("O", ()), role="end"))
        return (*found, *(self._norm("embedding norm") if model.embedding_norm else ()))

    def last_weights(self) -> tuple[Tensor, ...]:
        """The final norm and the output matrix; a tied one is the lookup table where both lie alike."""
        model, matrix, table = self.model, self.unembedding(), self.embedding()
        one = model.tied_embeddings and transposed(matrix.form) == table.form
        found = [table if one else matrix]
        if model.biases.logits:
            form = self._vector("V", matrix.form.axes_of("V"))
            found.append(Tensor(name="bias of logits", form=form, role="end"))
        return (*found, *(self._norm("final norm") if model.final_norm else ()))

    def _norm(self, name: str) -> tuple[Tensor, ...]:
        copies = self.model.norm_scale + self.model.norm_bias
        return (Tensor(name=name, form=self._vector("E", ()), role="end", copies=copies),)

    @staticmethod
    def _vector(dim: str, axes: tuple[str, ...]) -> Form:
        return Form(((dim, axes),))

    def embedding(self) -> Tensor:
        return Tensor(name="embedding", form=self.layout.embedding, role="end")

    def unembedding(self) -> Tensor:
        """The output matrix, cut like W_in with the vocabulary in the place of F."""
        stored = self.layout.stored
        form = Form((("E", stored.axes_of("E")), ("V", stored.axes_of("F"))))
        return Tensor(name="unembedding", form=form, role="end")

    def embed(self) -> tuple[Step, ...]:
        """Look up what this chip's part of the table holds; where the vocabulary is cut, the parts are summed."""
        b = Builder(looped=self.looped)
        table = self.embedding().form
        found = Form((("B", ()), ("L", ()), ("E", table.axes_of("E"))), table.axes_of("V"))
        rows = Tensor(name="embedded", form=found)
        b.pointwise("embed", "embed", [rows], [rows])
        (rows,) = b.bring([(rows, self.forms.residual)])
        if self.model.embedding_norm:
            share_statistics(b, "embedding norm statistics", rows.form, "E", "R")
            b.pointwise("norm", "embedding norm", [rows], [rows])
        return tuple(b.steps)

    def unembed(self) -> tuple[Step, ...]:
        """Final norm of each sequence's last position, vocabulary-parallel logits, greedy choice over the shards."""
        b = Builder(looped=self.looped)
        # where positions are cut, the last one lies on one chip and counts as nothing on the others
        dims = tuple(item for item in self.forms.residual.dims if item[0] != "L")
        last = Tensor(name="last", form=Form(dims, self.forms.residual.axes_of("L")))
        if self.model.final_norm:
            last = normed(b, self.forms, last, "final ", "logits")
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
    experts: ExpertSharding = "tensor",
    batch_axes: tuple[str, ...] = AXES,
    head_axes: tuple[str, ...] = AXES,
    looped: bool = False,
    materialised_scores: bool = False,
) -> ShardedProgram:
    """Lower one layout of one model to a sharded program.

    Parameters
    ----------
    layout, attention, experts : names: ``ws-2d``, ``batch``, ``expert``
    batch_axes : the axes that divide the batch (a prefix of x, y, z); forms that cut B over others leave it whole there
    head_axes : the axes the heads are cut over, padded where they do not divide
    looped : weights are gathered in rounds beside the matmul that uses them (looped CollectiveEinsum)
    materialised_scores : attention writes its scores to memory, masked ones too, as before flash attention

    References
    ----------
    [Pope2022] sections 3.2 to 3.5.
    """
    declared = get_layout(layout)
    head_axes = tuple(axis for axis in head_axes if axis not in declared.data_axes)
    # replicas along an axis share sequences out as evenly as they can, whether their number divides or not
    batch_axes = tuple(axis for axis in AXES if axis in batch_axes or axis in declared.data_axes)
    residual_forms = BlockForms(declared, attention, experts, batch_axes, head_axes, n_groups=1)
    made = _Ends(model, declared, residual_forms, looped=looped)
    residual = Tensor(name=RESIDUAL, form=residual_forms.residual)
    first, last = made.embed(), made.unembed()
    blocks = tuple(
        lower_block(
            model, kind, declared, attention, experts, batch_axes, head_axes,
            looped=looped, materialised_scores=materialised_scores,
        )
        for kind in model.kinds
    )  # fmt: skip
    return ShardedProgram(
        model=model,
        layout=declared,
        attention=attention,
        batch_axes=batch_axes,
        head_axes=head_axes,
        experts=experts,
        looped=looped,
        first=first,
        blocks=blocks,
        last=last,
        handover=(SendRecv(name="send", tensor=residual),),
        first_weights=made.first_weights(),
        last_weights=made.last_weights(),
        residual=residual,
        alive=tuple(held for steps in (first, last) for held in alive(steps)),
        buffers=buffers((*first, *last)),
    )
