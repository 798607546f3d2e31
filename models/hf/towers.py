"""How many parameters the tower in front of a decoder has: what sees or hears, and what leads into the decoder."""

from collections.abc import Callable

from .config import Config


def _siglip(vision: Config) -> int:
    """SigLIP's vision transformer without the head that pools."""
    d = vision.count("d_model", 768)
    d_ff, layers = vision.count("d_ff", 3072), vision.count("n_layers", 12)
    image, patch = vision.count("image_size", 224), vision.count("patch_size", 16)
    block = 4 * d * (d + 1) + 2 * d * d_ff + d_ff + d + 4 * d
    patches = vision.count("num_channels", 3) * patch**2 * d + d + (image // patch) ** 2 * d
    return layers * block + patches + 2 * d


def gemma3(config: Config, d_text: int) -> int:
    """SigLIP, a projection and a norm."""
    vision = config.part("vision_config")
    d = vision.count("d_model", 768)
    total = _siglip(vision) + d * d_text + d
    vision.ignore_all()
    return total


def gemma4(config: Config, d_text: int) -> int:
    """Vision, and for the small ones hearing; each with a projection."""
    total = 0
    for word, count in (("vision_config", _gemma4_vision), ("audio_config", _gemma4_audio)):
        part = config.part(word)
        if config.has(word):
            total += count(part, d_text)
        part.ignore_all()
    return total


def _gemma4_vision(vision: Config, d_text: int) -> int:
    d, d_ff = vision.count("d_model", 768), vision.count("d_ff", 3072)
    n_heads = vision.count("n_heads", 12)
    heads, width = n_heads + vision.count("n_kv_heads", n_heads), vision.count("d_head", 64)
    block = 2 * d * heads * width + 3 * d * d_ff + 4 * d + 2 * width
    patches = 3 * vision.count("patch_size", 16) ** 2 * d + 2 * vision.count("position_embedding_size", 10240) * d
    return vision.count("n_layers", 16) * block + patches + d * d_text


def _gemma4_audio(audio: Config, d_text: int) -> int:
    d, kernel = audio.count("d_model", 1024), audio.count("d_conv", 5)
    first, second = (int(n) for n in (audio.items("subsampling_conv_channels") or [128, 32])[:2])
    width = d // audio.count("n_heads", 8)
    # two feed-forward parts, attention with relative keys, a light convolution, norms before and behind each
    feed = 2 * (8 * d * d + 2 * d)
    attention = 5 * d * d + width
    light = 3 * d * d + kernel * d + 2 * d
    sampled = 9 * first + first + 9 * first * second + second + (128 // 4) * second * d
    out = audio.count("output_proj_dims", 1536)
    return audio.count("n_layers", 12) * (feed + attention + light + 3 * d) + sampled + (d + 1) * out + out * d_text


def step3p7(config: Config, d_text: int) -> int:
    """A vision transformer with scaled residuals, two convolutions that shrink, a projection."""
    vision = config.part("vision_config")
    d = vision.optional("width") or vision.count("d_model", 1536)
    layers = vision.optional("layers") or vision.count("n_layers", 47)
    ratio = vision.value("mlp_ratio")
    d_ff = int(d * (ratio if isinstance(ratio, int | float) else 8960 / 1536))
    patch, image = vision.count("patch_size", 14), vision.count("image_size", 728)
    vision.ignore_all()
    block = 4 * d * (d + 1) + 2 * d * d_ff + d_ff + d + 6 * d
    patches = vision.count("num_channels", 3) * patch**2 * d + (image // patch) ** 2 * d
    shrinking = 9 * d * 2 * d + 2 * d + 9 * 2 * d * 4 * d + 4 * d
    projection = 4 * d * d_text + (d_text if config.flag("projector_bias", False) else 0)
    return layers * block + patches + 2 * d + shrinking + projection


def _depth(vision: Config, default: int) -> int:
    return vision.optional("depth") or vision.count("n_layers", default)


def _patches(vision: Config, d: int, patch: int, *, frames: int = 1, biased: bool = False) -> int:
    """A convolution whose steps are as wide as its kernel."""
    channels = vision.optional("in_channels") or vision.optional("in_chans") or vision.count("num_channels", 3)
    return channels * frames * vision.count("patch_size", patch) ** 2 * d + biased * d


def _merger(vision: Config, d: int, out: int, *, norm: int) -> int:
    """Neighbouring patches side by side, through two matrices with biases; a norm before."""
    wide = d * vision.count("spatial_merge_size", 2) ** 2
    return norm + wide * (wide + 1) + out * (wide + 1)


def qwen2_vl(config: Config, d_text: int) -> int:
    """Layer norms and two matrices a feed-forward part."""
    vision = config.part("vision_config")
    d = vision.count("embed_dim", 1280)
    d_ff = int(d * vision.factor("mlp_ratio", 4.0))
    frames = vision.count("temporal_patch_size", 2)
    block = 4 * d * (d + 1) + 2 * d * d_ff + d_ff + d + 4 * d
    patches = _patches(vision, d, 14, frames=frames)
    total = _depth(vision, 32) * block + patches + _merger(vision, d, d_text, norm=2 * d)
    vision.ignore_all()
    return total


def qwen2_5_vl(config: Config, d_text: int) -> int:
    """RMS norms and a gated feed-forward part, with biases."""
    vision = config.part("vision_config")
    d, d_ff = vision.count("d_model", 1280), vision.count("d_ff", 3420)
    frames = vision.count("temporal_patch_size", 2)
    block = 4 * d * (d + 1) + 3 * d * d_ff + 2 * d_ff + d + 2 * d
    out = vision.count("out_hidden_size", d_text)
    total = _depth(vision, 32) * block + _patches(vision, d, 14, frames=frames) + _merger(vision, d, out, norm=d)
    vision.ignore_all()
    return total


def qwen3_vl(config: Config, d_text: int) -> int:
    """Learned positions, and a merger more for every layer whose patches go deeper into the decoder."""
    vision = config.part("vision_config")
    d, d_ff = vision.count("d_model", 1152), vision.count("d_ff", 4304)
    frames, out = vision.count("temporal_patch_size", 2), vision.count("out_hidden_size", d_text)
    block = 4 * d * (d + 1) + 2 * d * d_ff + d_ff + d + 4 * d
    deeper = vision.items("deepstack_visual_indexes")
    n_deeper = 3 if deeper is None else len(deeper)
    wide = d * vision.count("spatial_merge_size", 2) ** 2
    mergers = _merger(vision, d, out, norm=2 * d) + n_deeper * _merger(vision, d, out, norm=2 * wide)
    table = vision.count("num_position_embeddings", 2304) * d
    total = _depth(vision, 27) * block + _patches(vision, d, 16, frames=frames, biased=True) + table + mergers
    vision.ignore_all()
    return total


def kimi_k25(config: Config, d_text: int) -> int:
    """MoonViT: a grid of learned positions; its fields are named `vt_...` where the repository's own code reads them."""
    vision = config.part("vision_config")
    d = vision.optional("vt_hidden_size") or vision.count("d_model", 1152)
    d_ff = vision.optional("vt_intermediate_size") or vision.count("d_ff", 4304)
    layers = vision.optional("vt_num_hidden_layers") or vision.count("n_layers", 27)
    height = vision.optional("init_pos_emb_height") or vision.count("pos_emb_height", 64)
    width = vision.optional("init_pos_emb_width") or vision.count("pos_emb_width", 64)
    block = 4 * d * (d + 1) + 2 * d * d_ff + d_ff + d + 4 * d
    merged = 4 * d
    projection = 2 * config.count("projection_hidden_size", d) + merged * (merged + 1) + (merged + 1) * d_text
    total = layers * block + _patches(vision, d, 14, biased=True) + height * width * d + 2 * d + projection
    vision.ignore_all()
    return total


def mistral3(config: Config, d_text: int) -> int:
    """Pixtral, a norm, four patches merged to one, two matrices."""
    vision = config.part("vision_config")
    d, d_ff = vision.count("d_model", 1024), vision.count("d_ff", 4096)
    block = 4 * d * d + 3 * d * d_ff + 2 * d
    biases = 2 * d_text if config.flag("multimodal_projector_bias", False) else 0
    projection = d + d * d * config.count("spatial_merge_size", 2) ** 2 + d * d_text + d_text * d_text + biases
    total = vision.count("n_layers", 24) * block + _patches(vision, d, 16) + d + projection
    vision.ignore_all()
    return total


def llava(config: Config, d_text: int) -> int:
    """CLIP with a token for the class, two matrices."""
    vision = config.part("vision_config")
    d, d_ff, image = vision.count("d_model", 768), vision.count("d_ff", 3072), vision.count("image_size", 224)
    block = 4 * d * (d + 1) + 2 * d * d_ff + d_ff + d + 4 * d
    places = (image // vision.count("patch_size", 32)) ** 2 + 1
    biases = 2 * d_text if config.flag("multimodal_projector_bias", True) else 0
    projection = d * d_text + d_text * d_text + biases
    total = vision.count("n_layers", 12) * block + _patches(vision, d, 32) + (places + 1) * d + 4 * d + projection
    vision.ignore_all()
    return total


# The families whose text model does not come without its tower.
TOWERS: dict[str, Callable[[Config, int], int]] = {
    "gemma3": gemma3,
    "gemma4": gemma4,
    "step3p7": step3p7,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl,
    "kimi_k25": kimi_k25,
    "mistral3": mistral3,
    "llava": llava,
}
