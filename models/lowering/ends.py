"""What lies before the first block and after the last, of a decoder and of an encoder."""

from ..builder import Builder
from ..description import Model
from ..encoder import Encoder
from ..forms import Form
from ..layouts import Layout
from ..lifetimes import RESIDUAL
from ..program import Step, Tensor
from .block import normed
from .forms import BlockForms, transposed
from .part import share_statistics


class Ends:
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
        return (*found, *(self.norm("embedding norm") if model.embedding_norm else ()))

    def last_weights(self) -> tuple[Tensor, ...]:
        """The final norm and the output matrix; a tied one is the lookup table where both lie alike."""
        model, matrix, table = self.model, self.unembedding(), self.embedding()
        one = model.tied_embeddings and transposed(matrix.form) == table.form
        found = [table if one else matrix]
        if model.biases.logits:
            form = self._vector("V", matrix.form.axes_of("V"))
            found.append(Tensor(name="bias of logits", form=form, role="end"))
        return (*found, *(self.norm("final norm") if model.final_norm else ()))

    def encoder_weights(self, encoder: Encoder) -> tuple[Tensor, ...]:
        """What an encoder has at its ends beside the lookup table."""
        found: list[Tensor] = []
        if encoder.n_learned_positions:
            form = Form((("P", ()), ("E", self.embedding().form.axes_of("E"))))
            found.append(Tensor(name="encoder positions", form=form, role="end"))
        found += self.norm("encoder embedding norm") if encoder.embedding_norm else ()
        return (*found, *(self.norm("encoder final norm") if encoder.final_norm else ()))

    def norm(self, name: str) -> tuple[Tensor, ...]:
        """Scale and shift of a norm."""
        copies = self.model.norm_scale + self.model.norm_bias
        return (Tensor(name=name, form=self._vector("E", ()), role="end", copies=copies),)

    @staticmethod
    def _vector(dim: str, axes: tuple[str, ...]) -> Form:
        return Form(((dim, axes),))

    def embedding(self) -> Tensor:
        """The lookup table."""
        return Tensor(name="embedding", form=self.layout.embedding, role="end")

    def unembedding(self) -> Tensor:
        """The output matrix, cut like W_in with the vocabulary in the place of F."""
        stored = self.layout.stored
        form = Form((("E", stored.axes_of("E")), ("V", stored.axes_of("F"))))
        return Tensor(name="unembedding", form=form, role="end")

    def embed(self, *, has_norm: bool) -> tuple[Step, ...]:
        """Look up what this chip's part of the table holds; where the vocabulary is cut, the parts are summed."""
        b = Builder(looped=self.looped)
        table = self.embedding().form
        found = Form((("B", ()), ("L", ()), ("E", table.axes_of("E"))), table.axes_of("V"))
        rows = Tensor(name="embedded", form=found)
        b.pointwise("embed", "embed", [rows], [rows])
        (rows,) = b.bring([(rows, self.forms.residual)])
        if has_norm:
            share_statistics(b, "embedding norm statistics", rows.form, "E", "R")
            b.pointwise("norm", "embedding norm", [rows], [rows])
        return tuple(b.steps)

    def close(self, *, has_norm: bool) -> tuple[Step, ...]:
        """What follows the last block where every token's is wanted, and none is generated: the final norm."""
        b = Builder(looped=self.looped)
        if has_norm:
            normed(b, self.forms, Tensor(name=RESIDUAL, form=self.forms.residual), "final ", "final norm")
        return tuple(b.steps)

    def hand_on(self, *, has_norm: bool) -> tuple[Step, ...]:
        """From an encoder's last block to what every block of the decoder multiplies."""
        b = Builder(looped=self.looped)
        given = Tensor(name="encoded", form=self.forms.residual)
        if has_norm:
            given = normed(b, self.forms, given, "final ", "cross kv")
        b.bring([(Tensor(name="encoded", form=given.form), self.forms.entry)], partner="cross kv")
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
