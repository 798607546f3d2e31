"""Big plans on a small machine: a smaller model and a smaller mesh that divide as the big ones do."""

from ...hardware_specs.errors import SpecError
from ...models.blocks import Layers
from ...models.description import Model
from .comm import MeshShape
from .scale_blocks import divided, narrow, scaled_block, scaled_layers


def scaled_model(model: Model, mesh: MeshShape, factor: int) -> Model:
    """The model with widths, vocabulary, depth and experts divided by up to `factor`.

    Heads stay as they are, so K/V heads are replicated, padded and grouped as in the plan; their width shrinks, to no less
    than 8. Every kind of block keeps a layer, and a token its number of experts. What a dimension divides by on the mesh it
    still divides by.
    """
    if factor < 1:
        raise SpecError(f"--scale-model {factor} must be at least 1")
    if factor == 1:
        return model
    n_layers = max(model.n_layers // factor, mesh.pp)
    changed: dict[str, object] = {
        "name": f"{model.name}/{factor}",
        "aliases": (),
        "n_layers": n_layers,
        "d_model": divided(model.d_model, factor, mesh.tp),
        "vocab_size": divided(model.vocab_size, factor, mesh.tp),
        "n_vision_params": model.n_vision_params // factor,
        "n_other_params": model.n_other_params // factor,
        "n_params_nominal": None,
        "n_params_published": None,
        "n_params_active_published": None,
    }
    if not model.stack:
        plain = {"d_ff": divided(model.d_ff, factor, mesh.tp), "d_head": narrow(model.d_head, factor)}
        return model.model_copy(update=changed | plain)
    kinds = scaled_layers(model, n_layers)
    blocks = {name: scaled_block(block, factor, mesh.tp) for name, block in model.blocks.items()}
    return model.model_copy(
        update=changed | {"n_layers": len(kinds), "blocks": blocks, "stack": (Layers(blocks=kinds),)}
    )


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
