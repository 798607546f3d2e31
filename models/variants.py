"""Models made of other models: what a published recipe does to a description."""

from ..hardware_specs.errors import SpecError
from .blocks import Block, Layers
from .description import PLAIN, Model
from .feed_forward import DenseFfn, ExpertsFfn


def moefied(model: Model, *, n_experts: int, n_experts_per_token: int) -> Model:
    """A dense model whose feed-forward parts are split into experts of equal width, of which a token meets a few.

    The neurons stay as they are; a router comes on top.

    Parameters
    ----------
    model : every block plain

    Raises
    ------
    SpecError : a model that is not plain, or whose d_ff does not divide

    References
    ----------
    [Zhang2022] MoEfication, section 3.

    Examples
    --------
    >>> from .catalogue import get_model
    >>> from .params import n_params, n_params_active
    >>> split = moefied(get_model("llama-2-7b"), n_experts=16, n_experts_per_token=4)
    >>> n_params(split) - n_params(get_model("llama-2-7b")) == 32 * 16 * 4096, round(n_params_active(split) / 1e9, 2)
    (True, 3.49)
    """
    dense = model.kinds.get(PLAIN)
    if model.stack or dense is None or not isinstance(dense.ffn, DenseFfn):
        raise SpecError(f"{model.name} is no plain decoder; only dense feed-forward parts are split into experts")
    if dense.ffn.d_ff % n_experts:
        raise SpecError(f"d_ff={dense.ffn.d_ff} of {model.name} does not split into {n_experts} equal experts")
    experts = ExpertsFfn(
        n_experts=n_experts,
        n_experts_per_token=n_experts_per_token,
        d_ff=dense.ffn.d_ff // n_experts,
        gated=dense.ffn.gated,
        activation=dense.ffn.activation,
    )
    return model.model_copy(
        update={
            "name": f"{model.name}-moefied-{n_experts}x{n_experts_per_token}",
            "aliases": (),
            "blocks": {PLAIN: Block(mixer=dense.mixer, ffn=experts)},
            "stack": (Layers(repeat=model.n_layers, blocks=(PLAIN,)),),
            "n_params_nominal": None,
            "n_params_published": None,
        }
    )
