"""The declared forms of one layout, with the batch and the heads of one block cut as far as they really are."""

from ..forms import AXES, Form, without_axes
from ..layouts import AttentionSharding, ExpertSharding, Layout


def transposed(weight: Form) -> Form:
    """W_out from W_in: E moves to the end."""
    return Form((*weight.dims[1:], weight.dims[0]))


def renamed(form: Form, letters: dict[str, str]) -> Form:
    """The same form over other dimensions; those that become nothing go."""
    dims = ((letters.get(dim, dim), axes) for dim, axes in form.dims)
    return Form(tuple((dim, axes) for dim, axes in dims if dim), form.partial)


class BlockForms:
    """Forms of one kind of block.

    Parameters
    ----------
    n_groups : K/V heads, or what else K counts: one is never cut
    attention : how queries and what is cached lie while they meet
    """

    def __init__(
        self,
        layout: Layout,
        attention: AttentionSharding,
        experts: ExpertSharding,
        batch_axes: tuple[str, ...],
        head_axes: tuple[str, ...],
        n_groups: int,
    ) -> None:
        self.layout, self.attention, self.experts = layout, attention, experts
        self._batch_axes, self._head_axes = batch_axes, head_axes
        self._kv_axes = () if n_groups == 1 else head_axes
        self.residual = self.tokens(layout.residual)
        self.entry = self.tokens(layout.entry)
        self.hidden = self.tokens(layout.hidden)
        self.exit = self.tokens(layout.exit)
        self.q = self.mixing("H", "L", head_axes)
        self.cache = self.mixing("K", "S", self._kv_axes)
        self.kv = self.mixing("K", "L", self._kv_axes)
        if attention == "context":
            self.kv = without_axes(self.mixing("K", "L", self._kv_axes, "heads"), "K", ())

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

    def head_axes_of(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `axes` that heads are cut over."""
        return tuple(axis for axis in axes if axis in self._head_axes)

    def mixing(
        self, dim: str, positions: str, axes: tuple[str, ...], attention: AttentionSharding | None = None
    ) -> Form:
        """Queries (dim H, positions L) or cached keys and values (K, S) while they meet."""
        sharding = attention or self.attention
        batch = self.residual.axes_of("B")
        cut: dict[str, tuple[str, ...]] = {dim: (), positions: ()}
        if sharding == "batch":
            batch = tuple(a for a in AXES if a in self._batch_axes)
        if sharding != "context":
            # axes that do not divide the batch go on cutting the heads
            cut[dim] = tuple(a for a in self.layout.hidden.axes_of("F") if a in axes and a not in batch)
        elif positions == "S":
            cut["S"] = tuple(a for a in AXES if a not in self.layout.token_axes)
        order = ("B", positions, dim, "Q")
        return Form(tuple((d, batch if d == "B" else cut.get(d, ())) for d in order))

    @property
    def recurrent(self) -> tuple[Form, Form]:
        """Values [B L H Q] and group-wise numbers [B L K Q] where the state is; a context cannot be cut in two there."""
        sharding: AttentionSharding = "batch" if self.attention == "batch" else "heads"
        return self.mixing("H", "L", self._head_axes, sharding), self.mixing("K", "L", self._kv_axes, sharding)

    def expert_matrices(self, w_in: Form) -> tuple[Form, Form]:
        """An expert's matrices up and down where the dense W_in has the form `w_in`, and all experts of them."""
        cut = (*w_in.axes_of("F"), *self.layout.data_axes)
        experts, wide = ((), cut) if self.experts == "tensor" else (cut, ())
        up = Form((("G", experts), ("E", w_in.axes_of("E")), ("F", wide)))
        return up, Form((("G", experts), ("F", wide), ("E", w_in.axes_of("E"))))

    @property
    def routed(self) -> Form:
        """Tokens where their experts are: whole along what cuts the experts, or cut over it before an exchange."""
        cut = (*self.layout.used.axes_of("F"), *self.layout.data_axes)
        batch = self.entry.axes_of("B")
        if self.experts == "exchange":
            kept = tuple(a for a in AXES if a in self._batch_axes and (a in cut or a in batch))
        else:
            kept = tuple(a for a in batch if a not in cut)
        return Form(tuple((dim, kept if dim == "B" else axes) for dim, axes in self.entry.dims))
