"""Models without attention: Mamba, Mamba-2, RWKV."""

from ....hardware_specs.errors import SpecError
from ...blocks import Block
from ...description import Model
from ...feed_forward import DenseFfn
from ...mixers.mamba import Mamba2Mixer, MambaMixer
from ...mixers.rwkv import RwkvMixer
from ..config import Config
from ..decoder import assemble, n_layers
from ..traits import Traits

_ALONE = Traits(n_norms=1, positions="none", tied=True)


def inner_width(config: Config, *, written: str | None = "d_ff") -> int:
    """Channels of the mixer.

    Raises
    ------
    SpecError : the file gives a width that is not `expand` times that of the model
    """
    expand = config.factor("expand", 2.0)
    width = int(expand * config.count("d_model"))
    given = config.optional(written) if written else None
    if given is not None and given != width and not config.reading.missing:
        raise SpecError(
            f"{config.name}: intermediate_size={given}, but expand={expand:g} times hidden_size={config.count('d_model')} "
            f"is {width}; mend one of them"
        )
    return width


def time_step_rank(config: Config) -> int:
    """Width the step size is made through; a sixteenth of the model's, rounded up, where the file says `auto`."""
    if config.value("dt_rank") == "auto" or not config.has("dt_rank"):
        return -(-config.count("d_model") // 16)
    return config.count("dt_rank")


def mamba(config: Config) -> Model:
    """Mamba and Falcon-Mamba."""
    config.ignore(
        "activation", "max_context", "use_bcdt_rms", "bos", "d_inner", "ssm_cfg", "rms_norm", "fused_add_norm"
    )
    mixer = MambaMixer(
        d_inner=_cut_by_channels(config, inner_width(config)),
        d_state=config.count("d_state", 16),
        dt_rank=time_step_rank(config),
        d_conv=config.count("d_conv", 4),
        conv_bias=config.flag("use_conv_bias", True),
        proj_bias=config.flag("use_bias", False),
    )
    return assemble(config, _ALONE, [Block(mixer=mixer)] * n_layers(config))


def _cut_by_channels(config: Config, width: int) -> int:
    """Channels lie on chips by 64.

    Raises
    ------
    SpecError : they cannot
    """
    if width % 64 and not config.reading.missing:
        raise SpecError(f"{config.name}: {width} channels are no multiple of 64, which a recurrent mixer is cut by")
    return -(-width // 64) * 64


def mamba2_mixer(config: Config, *, heads: str, d_head: str, bias: str, conv_bias: str) -> Mamba2Mixer:
    """One Mamba-2 mixer by the names its family has for its fields."""
    return Mamba2Mixer(
        n_heads=config.count(heads),
        d_head=config.count(d_head),
        d_state=config.count("d_state"),
        n_groups=config.count("mamba_groups", 1),
        d_conv=config.count("d_conv", 4),
        conv_bias=config.flag(conv_bias, True),
        proj_bias=config.flag(bias, False),
    )


def mamba2(config: Config) -> Model:
    """Mamba-2, Codestral-Mamba.

    Raises
    ------
    SpecError : its heads are not as wide together as its channels
    """
    config.ignore("activation", "max_context", "rms_norm", "time_step_rank", "d_ff")
    width = inner_width(config, written=None)
    mixer = mamba2_mixer(config, heads="num_heads", d_head="head_dim", bias="use_bias", conv_bias="use_conv_bias")
    if mixer.n_heads * mixer.d_head != width and not config.reading.missing:
        raise SpecError(
            f"{config.name}: num_heads={mixer.n_heads} times head_dim={mixer.d_head} is {mixer.n_heads * mixer.d_head}, "
            f"but expand times hidden_size is {width}; mend one of them"
        )
    traits = Traits(n_norms=1, positions="none")
    return assemble(config, traits, [Block(mixer=mixer)] * n_layers(config))


def rwkv(config: Config) -> Model:
    """RWKV-4: the length it was trained at sets no limit."""
    config.ignore("context_length", "max_context")
    d_model = config.count("d_model")
    traits = Traits(norm="layernorm", norm_bias=True, embedding_norm=True, positions="none")
    mixer = RwkvMixer(d_inner=_cut_by_channels(config, config.optional("attention_hidden_size") or d_model))
    ffn = DenseFfn(d_ff=config.optional("d_ff") or 4 * d_model, gated=False, activation="relu2", receptance=True)
    return assemble(config, traits, [Block(mixer=mixer, ffn=ffn)] * n_layers(config))
