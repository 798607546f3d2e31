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


# The families whose text model does not come without its tower.
TOWERS: dict[str, Callable[[Config, int], int]] = {"gemma3": gemma3, "gemma4": gemma4, "step3p7": step3p7}
