"""Collects the steps of a program and derives the collectives between them."""

from .forms import Form
from .program import WEIGHT_ROLES, Collective, Matmul, Pointwise, PointwiseOp, Step, Tensor
from .reshard import reshard


class Builder:
    """Collects steps and keeps the form each tensor has by now."""

    def __init__(self, *, looped: bool) -> None:
        self.steps: list[Step] = []
        self._looped = looped

    def bring(self, wanted: list[tuple[Tensor, Form]], *, partner: str | None = None) -> list[Tensor]:
        """Add the moves that bring every tensor to its form; moves alike are fused into one collective."""
        queues = [[move for move in reshard(tensor.form, form) if move.kind != "slice"] for tensor, form in wanted]
        while any(queues):
            head = next(queue[0] for queue in queues if queue)
            fused = [i for i, q in enumerate(queues) if q and (q[0].kind, q[0].axes) == (head.kind, head.axes)]
            moves = [queues[i].pop(0) for i in fused]
            names = "+".join(wanted[i][0].name for i in fused)
            self.steps.append(
                Collective(
                    name=f"{head.kind} {names}",
                    kind=head.kind,
                    axes=head.axes,
                    tensors=tuple(wanted[i][0].at(move.before) for i, move in zip(fused, moves, strict=True)),
                    after=tuple(move.after for move in moves),
                    partner=partner,
                    looped=self._looped
                    and partner is not None
                    and all(wanted[i][0].role in WEIGHT_ROLES for i in fused),
                )
            )
        return [tensor.at(form) for tensor, form in wanted]

    def matmul(
        self, name: str, pairs: list[tuple[Tensor, Tensor]], outs: tuple[str, ...], *, batched: str | None = None
    ) -> list[Tensor]:
        """One einsum over `pairs` of (x, weight). As many `outs` as pairs; outs of one name are the sum of the products.

        A `batched` dimension is not summed over: each of its indices has a matrix of its own.
        """
        made = [
            Tensor(name=out, form=contract(x.form, w.form, batched), copies=w.copies)
            for (x, w), out in zip(pairs, outs, strict=False)
        ]
        xs = tuple(x for x, _ in pairs)
        xs = xs[:1] if len(set(xs)) == 1 else xs
        weights = tuple(w for _, w in pairs)
        self.steps.append(Matmul(name=name, x=xs, weights=weights, outs=tuple(made), batched=batched))
        return made

    def pointwise(self, op: PointwiseOp, name: str, reads: list[Tensor], writes: list[Tensor]) -> None:
        """One step of memory traffic alone."""
        self.steps.append(Pointwise(op=op, name=name, reads=tuple(reads), writes=tuple(writes)))


def contract(x: Form, w: Form, batched: str | None = None) -> Form:
    """The form of the einsum of activations `x` and weight `w` over the dimensions they share, but for a `batched` one.

    >>> from shardwise.models.forms import parse_form
    >>> str(contract(parse_form("BLE_x"), parse_form("E_xF_zy")))
    'BLF_zy{x}'
    >>> str(contract(parse_form("BLH_zI"), parse_form("H_zIO"), "H"))
    'BLH_zO'
    """
    shared = [dim for dim in w.letters if dim in x.letters]
    for dim in shared:
        if set(x.axes_of(dim)) != set(w.axes_of(dim)):
            raise AssertionError(f"einsum of {x} and {w}: {dim} lies differently in the two")
    summed = [dim for dim in shared if dim != batched]
    kept = tuple(item for item in x.dims if item[0] not in summed)
    new = tuple(item for item in w.dims if item[0] not in shared)
    partial = tuple(axis for dim in summed for axis in w.axes_of(dim))
    return Form(kept + new, partial)
