"""Which experts a token goes to: by the router's own choice, or in turn."""

from math import ceil

import torch

from ...models.feed_forward import ExpertsFfn
from .value import Routing


def route(logits: torch.Tensor, bias: torch.Tensor | None, ffn: ExpertsFfn, *, turns: torch.Tensor | None) -> Routing:
    """The best experts by the softmax over all of them, weighed by their shares of what the chosen have together.

    Parameters
    ----------
    logits : [B, L, experts]
    bias : [experts] added when experts are chosen, not when they are weighed
    turns : [B, L, experts a token] to go to instead of those the router chooses

    Notes
    -----
    Where experts have a capacity, each takes as many tokens of a sequence as come first, first choices before second ones;
    the others weigh nothing. It is counted a sequence, so that it does not depend on who holds which sequences.

    References
    ----------
    [Fedus2021] section 2.2 (capacity).
    """
    shares = logits.float().softmax(-1)
    preferred = shares if bias is None else shares + bias.float()
    experts = preferred.topk(ffn.n_experts_per_token, -1).indices if turns is None else turns
    weights = shares.gather(-1, experts)
    weights = weights / weights.sum(-1, keepdim=True)
    if ffn.capacity_factor is not None:
        weights = weights * _has_room(experts, ffn, ffn.capacity_factor)
    return Routing(experts=experts, weights=weights.to(logits.dtype))


def _has_room(experts: torch.Tensor, ffn: ExpertsFfn, factor: float) -> torch.Tensor:
    """[B, L, choices] whether a token comes before its expert is full."""
    n_tokens, n_choices = experts.shape[1:]
    capacity = max(1, ceil(factor * n_tokens * n_choices / ffn.n_experts))
    in_order = experts.transpose(1, 2).flatten(1)
    chosen = torch.nn.functional.one_hot(in_order, ffn.n_experts)
    place = (chosen.cumsum(1) * chosen).sum(-1) - 1
    has_room: torch.Tensor = (place < capacity).unflatten(1, (n_choices, n_tokens)).transpose(1, 2)
    return has_room


def in_turn(sequences: torch.Tensor, positions: torch.Tensor, ffn: ExpertsFfn, n_chips: int) -> torch.Tensor:
    """[B, L, experts a token] of tokens at `positions` [L] of `sequences` [B], numbered in the run's batch.

    Every run of n_chips choices goes to every chip once, where chips hold equal blocks of experts; the next run to the next
    expert of each.
    """
    n_choices, per_chip = ffn.n_experts_per_token, ffn.n_experts // n_chips
    first, n_new = positions[0], len(positions)
    token = sequences[:, None] * n_new + positions - first
    choice = token[..., None] * n_choices + torch.arange(n_choices, device=sequences.device) + first * n_chips
    return (choice % n_chips) * per_chip + choice // n_chips % per_chip
