"""Feed-forward parts: dense, and experts one after the other."""

import torch

from ....models.feed_forward import DenseFfn, ExpertsFfn
from .. import arithmetic as do
from ..mixing import mixed_with_last
from ..routing import in_turn, route
from .reading import Reading, Weights


def dense(at: Reading, ffn: DenseFfn, x: torch.Tensor, last: torch.Tensor | None, w: Weights) -> torch.Tensor:
    """[B, L, E]; `last` is the token before, where tokens are mixed (RWKV)."""
    receptance = None
    if ffn.receptance:
        before = torch.zeros_like(x[:, 0]) if last is None else last
        x, of_gate = mixed_with_last(x, before, w["token mixing of ffn"])
        receptance = (of_gate @ w["w_receptance"]).sigmoid()
    hidden = torch.einsum("ble,cef->cblf", x, w["w_in"]) if ffn.gated else x @ w["w_in"]
    if at.model.biases.ffn:
        bias = w["bias of w_in"]
        hidden = hidden + (bias[:, None, None] if ffn.gated else bias)
    out = do.activate(ffn, hidden) @ w["w_out"] + w.get("bias of w_out", 0.0)
    return out if receptance is None else receptance * out


def experts(at: Reading, ffn: ExpertsFfn, x: torch.Tensor, w: Weights) -> torch.Tensor:
    """[B, L, E]: the weighed sum of a token's experts, and what all tokens share."""
    turns = None
    if at.n_chips is not None:
        turns = in_turn(torch.arange(len(x)), at.positions, ffn, at.n_chips)
    routing = route(x @ w["router"], w.get("bias of router"), ffn, turns=turns)
    narrow = x @ w["into latent"] if ffn.d_latent else x
    total = torch.zeros_like(narrow)
    for expert in range(ffn.n_experts):
        share = (routing.weights * (routing.experts == expert)).sum(-1, keepdim=True)
        total = total + share * _mlp(ffn, narrow, w, expert)
    if ffn.d_latent:
        total = total @ w["out of latent"]
    if ffn.d_ff_shared:
        shape = "cez" if ffn.gated else "ez"
        hidden = torch.einsum(f"ble,{shape}->{shape[0] if ffn.gated else ''}blz", x, w["shared in"])
        shared = do.activate(ffn, hidden) @ w["shared out"]
        total = total + (shared * (x @ w["shared gate"]).sigmoid()[..., None] if ffn.shared_gate else shared)
    return total


def _mlp(ffn: ExpertsFfn, x: torch.Tensor, w: Weights, expert: int) -> torch.Tensor:
    """One expert over all tokens."""
    into, out = w["experts in"], w["experts out"][expert]
    if ffn.gated:
        hidden = torch.einsum("ble,cef->cblf", x, into[:, expert])
        hidden = hidden + w["bias of experts in"][:, expert, None, None] if ffn.expert_bias else hidden
    else:
        hidden = x @ into[expert]
        hidden = hidden + w["bias of experts in"][expert] if ffn.expert_bias else hidden
    made = do.activate(ffn, hidden) @ out
    return made + w["bias of experts out"][expert] if ffn.expert_bias else made
