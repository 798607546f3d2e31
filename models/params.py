"""How many parameters a model has, to the digit, and what follows from that.

The sizes of the matrices as they lie on chips come from their forms; this is the one place for the total.
"""

import numpy as np

from .blocks import RECURRENT, Block
from .description import Model
from .feed_forward import DenseFfn, ExpertsFfn
from .mixers.attention import AttentionMixer
from .mixers.compressed import CompressedMixer
from .mixers.latent import LatentMixer
from .types import Array


def mixer_params(model: Model, block: Block) -> int:
    """The mixer of one block, with its own norms and biases; 0 without."""
    mixer = block.mixer
    if mixer is None:
        return 0
    if isinstance(mixer, AttentionMixer):
        return attention_params(model, mixer)
    if isinstance(mixer, LatentMixer):
        return latent_params(model.d_model, mixer)
    if isinstance(mixer, CompressedMixer):
        return mixer.n_params(model.d_model)
    assert isinstance(mixer, RECURRENT)
    shape = mixer.recurrence(model.d_model)
    return shape.matrix_params(model.d_model) + shape.n_vector_params


def attention_params(model: Model, mixer: AttentionMixer) -> int:
    r"""Attention projections of one layer, with their biases, the norms of q and k, and sinks.

    .. math:: d_{model} (n_{heads} + n_{kv}) (d_{head} + d_{value}) + b_{qkv} d_{qkv} + b_{out} d_{model}
    """
    out_width = mixer.n_heads * mixer.value_width
    query_width = mixer.n_heads * mixer.d_head + mixer.output_gate * out_width
    value_width = 0 if mixer.value_is_key else mixer.value_width
    key_value_width = mixer.n_kv_heads * (mixer.d_head + value_width) * mixer.own_kv
    matrices = model.d_model * (query_width + key_value_width + out_width + mixer.head_gate * mixer.n_heads)
    biases = model.biases.qkv * (query_width + key_value_width) + model.biases.attention_out * model.d_model
    by_head = mixer.qk_norm_over == "head"
    normed = 1 + mixer.own_kv if by_head else mixer.n_heads + mixer.own_kv * mixer.n_kv_heads
    return matrices + biases + mixer.qk_norm * normed * mixer.d_head + mixer.sinks * mixer.n_heads


def latent_params(d_model: int, mixer: LatentMixer) -> int:
    r"""Latent attention of one layer with the norms on its latents, and its indexer.

    .. math:: d_{model} (r_q + r_{kv} + d_{rope}) + r_q n (d_{nope} + d_{rope}) + r_{kv} n (d_{nope} + d_v) + n d_v d_{model}

    References
    ----------
    [DeepSeek2024] section 2.1.
    """
    d_query = mixer.n_heads * (mixer.d_nope + mixer.d_rope)
    queries = d_model * d_query if mixer.q_rank is None else mixer.q_rank * (d_model + 1 + d_query)
    latent = d_model * (mixer.kv_rank + mixer.d_rope) + mixer.kv_rank
    expanded = mixer.kv_rank * mixer.n_heads * (mixer.d_nope + mixer.d_value)
    index = 0
    if mixer.indexer is not None:
        heads, width = mixer.indexer.n_heads, mixer.indexer.d_head
        index = (mixer.q_rank or d_model) * heads * width + d_model * (width + heads) + 2 * width
    out = (1 + mixer.output_gate) * mixer.n_heads * mixer.d_value * d_model
    return queries + latent + expanded + out + index


def _dense_params(width: int, d_ff: int, *, gated: bool, biased: bool) -> int:
    r"""A dense feed-forward part with its biases; `n_in` is 2 if gated, else 1.

    .. math:: (n_{in} + 1) d_{model} d_{ff} + b_{ffn} (n_{in} d_{ff} + d_{model})
    """
    n_in = 2 if gated else 1
    return (n_in + 1) * width * d_ff + biased * (n_in * d_ff + width)


def ffn_params(model: Model, block: Block) -> int:
    """The feed-forward part of one block: all experts, the router, what is shared; 0 without."""
    ffn = block.ffn
    if ffn is None:
        return 0
    if isinstance(ffn, DenseFfn):
        mixing = ffn.receptance * (model.d_model**2 + 2 * model.d_model)
        return _dense_params(model.d_model, ffn.d_ff, gated=ffn.gated, biased=model.biases.ffn) + mixing
    router = ffn.n_experts * (model.d_model + ffn.router_bias)
    shared = _dense_params(model.d_model, ffn.d_ff_shared, gated=ffn.gated, biased=False)
    shared += ffn.shared_gate * model.d_model + 2 * model.d_model * (ffn.d_latent or 0)
    return ffn.n_experts * expert_params(model, ffn) + router + shared


def expert_params(model: Model, ffn: ExpertsFfn) -> int:
    """One expert."""
    return _dense_params(ffn.d_latent or model.d_model, ffn.d_ff, gated=ffn.gated, biased=ffn.expert_bias)


def _one_norm(model: Model) -> int:
    """Scale of one norm on d_model, and its shift if it has one."""
    return model.d_model * (model.norm_scale + model.norm_bias)


def block_params(model: Model, block: Block) -> int:
    """One block: mixer, attention over an encoder, feed-forward part, norms on d_model, and what else it has."""
    cross = 0 if block.cross is None else attention_params(model, block.cross)
    norms = model.n_norms(block) * _one_norm(model)
    return mixer_params(model, block) + cross + ffn_params(model, block) + norms + block.n_other_params


def embedding_params(model: Model) -> int:
    r"""Everything outside the layers: embedding, logits, position table, embedding norm and final norm.

    .. math:: (1 + [untied]) V d_{model} + b_{logits} V + n_{positions} d_{model} + (n_{outer\ norms}) (1 + b_{norm}) d_{model}
    """
    width = model.d_embedding or model.d_model
    tables = (1 if model.tied_embeddings else 2) * model.vocab_size * width + model.n_learned_positions * model.d_model
    projections = 0 if model.d_embedding is None else 2 * width * model.d_model
    norms = (model.embedding_norm + model.final_norm) * _one_norm(model)
    return tables + projections + model.biases.logits * model.vocab_size + norms + model.n_other_params


def encoder_params(model: Model) -> int:
    """Layers, norms and positions of the encoder; 0 without."""
    encoder = model.encoder
    if encoder is None:
        return 0
    layers = sum(block_params(model, encoder.blocks[kind]) for kind in encoder.layers)
    norms = (encoder.embedding_norm + encoder.final_norm) * _one_norm(model)
    return layers + norms + encoder.n_learned_positions * model.d_model


def text_params(model: Model) -> int:
    """Every parameter that text passes through, if it chose all experts."""
    layers = sum(n * block_params(model, model.kinds[kind]) for kind, n in model.n_layers_of.items())
    return layers + embedding_params(model) + encoder_params(model)


def n_params(model: Model) -> int:
    r"""Every parameter of the model.

    .. math:: \sum_{layers} (mixer + ffn + norms) + embedding + vision

    Examples
    --------
    >>> from shardwise.models.catalogue import get_model
    >>> n_params(get_model("llama-3.1-70b"))
    70553706496
    """
    return text_params(model) + model.n_vision_params


def n_params_active(model: Model) -> int:
    """Parameters that one token passes: all but the experts it is not sent to, and no vision tower."""
    return text_params(model) - idle_params(model)


def n_params_reading(model: Model) -> int:
    """Of `n_params_active`, those that a token of the input passes where it is read both ways, the embedding left out.

    The layers of an encoder, with what a decoder's cross-attention makes of each token; or all layers of a model that is
    nothing but read, by the share of the tokens that reach them; 0 of a decoder alone.
    """
    if model.bidirectional:
        skipped = sum(
            n * (1 - model.kinds[k].share) * block_params(model, model.kinds[k]) for k, n in model.n_layers_of.items()
        )
        return n_params_active(model) - embedding_params(model) - round(skipped)
    if model.encoder is None:
        return 0
    layers = [(model.encoder.blocks[kind], n) for kind, n in model.encoder.n_layers_of.items()]
    crossing = [(model.kinds[kind].cross, n) for kind, n in model.n_layers_of.items()]
    kept = sum(n * model.d_model * c.n_kv_heads * (c.d_head + c.value_width) for c, n in crossing if c is not None)
    return encoder_params(model) - _idle(model, layers) + kept


def idle_params(model: Model) -> int:
    """Parameters of the experts that one token is not sent to."""
    counted = [(model.kinds[kind], n) for kind, n in model.n_layers_of.items()]
    if model.encoder is not None:
        counted += [(model.encoder.blocks[kind], n) for kind, n in model.encoder.n_layers_of.items()]
    return _idle(model, counted)


def _idle(model: Model, counted: list[tuple[Block, int]]) -> int:
    return sum(
        n * (block.ffn.n_experts - block.ffn.n_experts_per_token) * expert_params(model, block.ffn)
        for block, n in counted
        if isinstance(block.ffn, ExpertsFfn)
    )


def index_elements_per_token(block: Block) -> float:
    """Numbers that one token leaves in one block for an indexer to pick keys by."""
    mixer = block.mixer
    if isinstance(mixer, LatentMixer):
        return mixer.indexer.d_head if mixer.indexer else 0
    return mixer.index_elements if isinstance(mixer, CompressedMixer) else 0


def kv_elements_per_token(block: Block, past_tokens: float = 0.0) -> float:
    """Numbers that one token leaves in the cache of one block, as long as it is kept; with those of an indexer."""
    mixer = block.mixer
    if isinstance(mixer, AttentionMixer):
        return mixer.n_kv_heads * (mixer.d_head + mixer.value_width) * mixer.own_kv
    if isinstance(mixer, LatentMixer):
        return mixer.kv_rank + mixer.d_rope + index_elements_per_token(block)
    if isinstance(mixer, CompressedMixer):
        return mixer.cached_elements(past_tokens) + mixer.index_elements
    return 0


def full_window(block: Block) -> int:
    """Tokens after which a block's window is full; 0 without a window."""
    mixer = block.mixer
    if isinstance(mixer, CompressedMixer):
        return mixer.window
    return (mixer.reach.kept or 0) if isinstance(mixer, AttentionMixer) and mixer.reach else 0


def held_positions(block: Block, tokens: Array) -> Array:
    """Positions of the cache that `tokens` (...) of a sequence take in one block.

    All of them, those of a window, or of a window and an entry for every few.
    """
    window, mixer = full_window(block), block.mixer
    if not window:
        return tokens
    entries = np.ceil(tokens / mixer.ratio) if isinstance(mixer, CompressedMixer) and mixer.ratio else 0.0
    return np.minimum(tokens, float(window)) + entries


def kv_bytes_per_token(model: Model, bytes_per_element: float, *, past_tokens: float = 0.0) -> float:
    r"""Bytes that one token more leaves in the cache, over all layers of an unsharded model.

    Layers that keep a window alone take none once `past_tokens` fill it; a model that is read both ways takes none.

    .. math:: \sum_{layers} 2 n_{kv\_heads} d_{head} \cdot bytes

    Examples
    --------
    >>> from shardwise.models.catalogue import get_model
    >>> kv_bytes_per_token(get_model("palm-540b"), 2.0)
    120832.0
    """
    elements = 0.0
    for kind, n in () if model.bidirectional else model.n_layers_of.items():
        block = model.kinds[kind]
        if isinstance(block.mixer, CompressedMixer) or not 0 < full_window(block) <= past_tokens:
            elements += n * kv_elements_per_token(block, past_tokens)
    return elements * bytes_per_element


def sequence_bytes(
    model: Model,
    tokens: float,
    *,
    kv_bytes: float,
    state_bytes: float,
    conv_bytes: float,
    input_tokens: float = 0.0,
) -> float:
    """All that a sequence of `tokens` keeps in an unsharded model: its cache as far as it is kept, and its states.

    Parameters
    ----------
    kv_bytes, state_bytes, conv_bytes : of one number of each
    input_tokens : read by an encoder, which a decoder keeps beside its own `tokens`
    """
    elements = 0.0
    for kind, n in () if model.bidirectional else model.n_layers_of.items():
        block = model.kinds[kind]
        a_position = kv_elements_per_token(block)
        if isinstance(block.mixer, CompressedMixer):
            a_position = block.mixer.d_head
        elements += n * a_position * float(held_positions(block, tokens))
        if block.cross is not None:
            elements += n * block.cross.n_kv_heads * (block.cross.d_head + block.cross.value_width) * input_tokens
    return elements * kv_bytes + state_bytes_per_sequence(model, state_bytes=state_bytes, conv_bytes=conv_bytes)


def state_bytes_per_sequence(model: Model, *, state_bytes: float, conv_bytes: float) -> float:
    """Recurrent states, convolution tails and last tokens of one sequence, whatever its length.

    Parameters
    ----------
    state_bytes, conv_bytes : of one number of either
    """
    total = 0.0
    for kind, n in model.n_layers_of.items():
        mixer, ffn = model.kinds[kind].mixer, model.kinds[kind].ffn
        if isinstance(mixer, RECURRENT):
            shape = mixer.recurrence(model.d_model)
            total += n * (shape.state_elements * state_bytes + shape.conv_elements * conv_bytes)
        if isinstance(ffn, DenseFfn) and ffn.receptance:
            total += n * model.d_model * state_bytes
    return total
