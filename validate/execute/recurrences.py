"""The recurrences of mixers that keep a state: token by token, each updates it and reads it.

Tensors are [B, L, ...]; a state comes in and the state after the last token goes out. H heads of Q values, D numbers of state
for each; K groups of heads share keys and queries.
"""

import torch
from torch.nn.functional import elu, silu, softplus


def _per_head(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """[B, L, K, D] -> [B, L, H, D]."""
    return x.repeat_interleave(n_heads // x.shape[2], 2)


def mamba(
    x: torch.Tensor,
    step: torch.Tensor,
    into: torch.Tensor,
    out_of: torch.Tensor,
    decay: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every channel with a step size of its own.

    Parameters
    ----------
    x, step : [B, L, H, Q], step sizes before their softplus
    into, out_of : [B, L, D], B and C
    decay : [H, Q, D] logarithm of how fast a state decays
    skip : [H, Q]
    state : [B, H, D, Q]

    References
    ----------
    [Gu2023] section 3.2.
    """
    step, rate = softplus(step), -decay.exp().transpose(-1, -2)
    made = []
    for t in range(x.shape[1]):
        now = step[:, t, :, None]
        state = state * (now * rate).exp() + (now * x[:, t, :, None]) * into[:, t, None, :, None]
        made.append((state * out_of[:, t, None, :, None]).sum(2))
    return torch.stack(made, 1) + skip * x, state


def mamba2(
    x: torch.Tensor,
    step: torch.Tensor,
    into: torch.Tensor,
    out_of: torch.Tensor,
    decay: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every head with one step size and one decay.

    Parameters
    ----------
    x : [B, L, H, Q]
    step : [B, L, H] before the softplus
    into, out_of : [B, L, K, D], B and C
    decay, skip : [H]
    state : [B, H, D, Q]

    References
    ----------
    [Dao2024] section 7.
    """
    n_heads = x.shape[2]
    step, rate = softplus(step), -decay.exp()
    into, out_of = _per_head(into, n_heads), _per_head(out_of, n_heads)
    made = []
    for t in range(x.shape[1]):
        now = step[:, t, :, None, None]
        state = state * (now * rate[:, None, None]).exp() + now * into[:, t, :, :, None] * x[:, t, :, None]
        made.append((state * out_of[:, t, :, :, None]).sum(2))
    return torch.stack(made, 1) + skip[:, None] * x, state


def delta(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log_decay: torch.Tensor,
    strength: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix a head that learns what its key should have given.

    Parameters
    ----------
    q, k : [B, L, K, D], brought to length 1 here
    v : [B, L, H, Q]
    log_decay : [B, L, H, D], or [B, L, H, 1] for a head
    strength : [B, L, H], between 0 and 1
    state : [B, H, D, Q]

    References
    ----------
    [Yang2024] section 3.1.
    """
    n_heads, width = v.shape[2], q.shape[-1]
    q, k = (_per_head(y / (y.square().sum(-1, keepdim=True) + 1e-6).sqrt(), n_heads) for y in (q, k))
    decay = log_decay.exp()
    made = []
    for t in range(v.shape[1]):
        state = state * decay[:, t, ..., None]
        error = v[:, t] - (state * k[:, t, ..., None]).sum(2)
        state = state + k[:, t, ..., None] * (strength[:, t, :, None] * error)[:, :, None]
        made.append((state * q[:, t, ..., None]).sum(2) * width**-0.5)
    return torch.stack(made, 1), state


def linear(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, state: torch.Tensor, sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention whose scores are products of features, so that sums over the past are kept.

    Parameters
    ----------
    q, k : [B, L, H, D] features
    v : [B, L, H, Q]
    state, sums : [B, H, D, Q], [B, H, D]

    References
    ----------
    [Katharopoulos2020] section 3.3.
    """
    made = []
    for t in range(v.shape[1]):
        state = state + k[:, t, ..., None] * v[:, t, :, None]
        sums = sums + k[:, t]
        whole = (q[:, t] * sums).sum(-1, keepdim=True)
        made.append((q[:, t, ..., None] * state).sum(2) / whole.clamp(min=1e-6))
    return torch.stack(made, 1), state, sums


def features(x: torch.Tensor, d_feature: int) -> torch.Tensor:
    """[..., d_head] -> [..., d_feature], positive: elementwise where none are added, else random exponentials.

    References
    ----------
    [Katharopoulos2020] equation 7: elu + 1; [Choromanski2020] section 2.3: positive random features.
    """
    if d_feature == x.shape[-1]:
        return elu(x) + 1.0
    x = x * x.shape[-1] ** -0.25
    generator = torch.Generator().manual_seed(d_feature)
    directions = torch.randn(x.shape[-1], d_feature, generator=generator).to(x.device, x.dtype)
    powers = x @ directions - x.square().sum(-1, keepdim=True) / 2.0
    return powers.exp() * float(d_feature**-0.5)


def rwkv(
    k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, first: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """An average of values weighed by exponentials of keys that decay by channel; the newest has a bonus.

    Parameters
    ----------
    k, v : [B, L, H, Q]
    decay, first : [H, Q], decay as the logarithm of its rate
    state : [B, H, 3, Q], sums of weighed values and of weights, both divided by the exponential of the third

    References
    ----------
    [Peng2023] section 3.1, equations 16 to 19; appendix D for the exponent.
    """
    rate = decay.exp()
    above, below, largest = state.unbind(2)
    made = []
    for t in range(k.shape[1]):
        now, value = k[:, t], v[:, t]
        top = torch.maximum(largest, first + now)
        old, new = (largest - top).exp(), (first + now - top).exp()
        made.append((old * above + new * value) / (old * below + new))
        top = torch.maximum(largest - rate, now)
        old, new = (largest - rate - top).exp(), (now - top).exp()
        above, below, largest = old * above + new * value, old * below + new, top
    return torch.stack(made, 1), torch.stack((above, below, largest), 2)


def convolve(
    x: torch.Tensor, tail: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A causal convolution of every channel by itself and silu; what the next token will need of the last ones.

    Parameters
    ----------
    x : [B, L, ...]
    tail : [B, taps - 1, ...] the tokens before
    weight, bias : [taps, ...], [...]
    """
    seen = torch.cat([tail.to(x.dtype), x], 1)
    n_taps, n_new = weight.shape[0], x.shape[1]
    made = torch.stack([seen[:, i : i + n_new] * weight[i] for i in range(n_taps)]).sum(0)
    if bias is not None:
        made = made + bias
    return silu(made), seen[:, n_new:]
