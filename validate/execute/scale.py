"""Big plans on a small machine: a smaller model and a smaller mesh that divide as the big ones do."""

from ...hardware_specs.errors import SpecError
from ...models.description import Model
from .comm import MeshShape


def scaled_model(model: Model, mesh: MeshShape, factor: int) -> Model:
    """The model with widths, vocabulary and depth divided by up to `factor`.

    Heads stay as they are, so K/V heads are replicated, padded and grouped as in the plan; d_head shrinks, to no less than 8.
    What a dimension divides by on the mesh it still divides by.
    """
    if factor < 1:
        raise SpecError(f"--scale-model {factor} must be at least 1")
    if factor == 1:
        return model
    changed = {
        "name": f"{model.name}/{factor}",
        "aliases": (),
        "n_layers": max(model.n_layers // factor, mesh.pp),
        "d_model": _divided(model.d_model, factor, mesh.tp),
        "d_ff": _divided(model.d_ff, factor, mesh.tp),
        "d_head": _divided(model.d_head, min(factor, max(model.d_head // 8, 1)), 2),
        "vocab_size": _divided(model.vocab_size, factor, mesh.tp),
        "n_params_nominal": None,
        "n_params_published": None,
    }
    return model.model_copy(update=changed)


def _divided(size: int, factor: int, unit: int) -> int:
    """`size` over the largest divisor up to `factor` that keeps it a multiple of `unit`, if it was one.

    >>> _divided(18432, 64, 64), _divided(50257, 8, 8)
    (256, 6283)
    """
    if size % unit:
        return -(-size // factor) + (1 if (-(-size // factor)) % unit == 0 else 0)
    return max(size // unit // factor, 1) * unit


def shrunk_mesh(mesh: MeshShape, n_ranks: int) -> MeshShape:
    """The mesh on at most `n_ranks` ranks: replicas go first, then the longest axis is halved, stages go last."""
    axes, pp, dp = dict(mesh.axes), mesh.pp, mesh.dp
    while (found := MeshShape(axes=dict(axes), pp=pp, dp=dp)).n_ranks > n_ranks:
        longest = max(axes, key=lambda axis: axes[axis])
        if dp > 1:
            dp = _smaller(dp)
        elif axes[longest] > 1:
            axes[longest] = _smaller(axes[longest])
        elif pp > 1:
            pp = _smaller(pp)
        else:
            raise SpecError(f"--ranks {n_ranks} must be at least 1")
    return found


def _smaller(size: int) -> int:
    """The size over its smallest prime factor."""
    return next(size // p for p in range(2, size + 1) if size % p == 0)
