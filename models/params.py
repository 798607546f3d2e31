"""How many parameters a model has, to the digit, and what follows from that.

The sizes of the matrices as they lie on chips come from their forms; this is the one place for the total.
"""

from .description import Model


def attention_params(model: Model) -> int:
    r"""Attention projections of one layer, with their biases.

    .. math:: 2 d_{model} (n_{heads} + n_{kv}) d_{head} + b_{qkv} (n_{heads} + 2 n_{kv}) d_{head} + b_{out} d_{model}
    """
    query_width = model.n_heads * model.d_head
    key_value_width = 2 * model.n_kv_heads * model.d_head
    matrices = model.d_model * (2 * query_width + key_value_width)
    biases = model.biases.qkv * (query_width + key_value_width) + model.biases.attention_out * model.d_model
    return matrices + biases


def ffn_params(model: Model) -> int:
    r"""Feed-forward part of one layer, with its biases; `n_in` is 2 if gated, else 1.

    .. math:: (n_{in} + 1) d_{model} d_{ff} + b_{ffn} (n_{in} d_{ff} + d_{model})
    """
    n_in = 2 if model.gated else 1
    return (n_in + 1) * model.d_model * model.d_ff + model.biases.ffn * (n_in * model.d_ff + model.d_model)


def _one_norm(model: Model) -> int:
    """Scale of one norm on d_model, and its shift if it has one."""
    return model.d_model * (2 if model.norm_bias else 1)


def norm_params(model: Model) -> int:
    r"""Norms of one layer: those that read d_model and the pair on query and key heads (scale only).

    .. math:: n_{norms} (1 + b_{norm}) d_{model} + [qk\_norm] \, 2 d_{head}
    """
    return model.n_norms_per_block * _one_norm(model) + model.qk_norm * 2 * model.d_head


def embedding_params(model: Model) -> int:
    r"""Everything outside the layers: embedding, logits, position table, embedding norm and final norm.

    .. math:: (1 + [untied]) V d_{model} + b_{logits} V + n_{positions} d_{model} + (n_{outer\ norms}) (1 + b_{norm}) d_{model}
    """
    tables = (1 if model.tied_embeddings else 2) * model.vocab_size + model.n_learned_positions
    norms = (model.embedding_norm + model.final_norm) * _one_norm(model)
    return tables * model.d_model + model.biases.logits * model.vocab_size + norms


def n_params(model: Model) -> int:
    r"""Every parameter of the model.

    .. math:: n_{layers} (attention + ffn + norms) + embedding

    Examples
    --------
    >>> from shardwise.models.catalogue import get_model
    >>> n_params(get_model("llama-3.1-70b"))
    70553706496
    """
    layer = attention_params(model) + ffn_params(model) + norm_params(model)
    return model.n_layers * layer + embedding_params(model)


def kv_bytes_per_token(model: Model, bytes_per_element: float) -> float:
    r"""Keys and values that one token leaves in the cache, over all layers of an unsharded model.

    .. math:: 2 n_{layers} n_{kv\_heads} d_{head} \cdot bytes

    Examples
    --------
    >>> from shardwise.models.catalogue import get_model
    >>> kv_bytes_per_token(get_model("palm-540b"), 2.0)
    120832.0
    """
    return 2 * model.n_layers * model.n_kv_heads * model.d_head * bytes_per_element
