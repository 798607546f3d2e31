"""Closed forms of a system under load, from the seconds of its two phases: a batch at once, a full queue."""

from dataclasses import dataclass, fields, replace
from typing import Any

from .metrics import Quantities


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSeconds:
    """One prefill pass and one decode step, and the tokens of every request."""

    prefill_s: float
    step_s: float
    input_tokens: int
    output_tokens: int

    @property
    def generate_s(self) -> float:
        """Every output token, undisturbed."""
        return self.step_s * self.output_tokens


def batch_at_once(seconds: PhaseSeconds, *, n_requests: int) -> Quantities:
    r"""A batch that starts and ends together.

    .. math:: T = P(B) + N\,S(B), \qquad X = B / T

    P prefill of the batch, S a decode step, N output tokens, B requests.

    >>> batch_at_once(PhaseSeconds(prefill_s=1.0, step_s=0.1, input_tokens=8, output_tokens=10), n_requests=4).requests_per_s
    2.0
    """
    e2e_s = seconds.prefill_s + seconds.generate_s
    return Quantities(
        ttft_s=seconds.prefill_s,
        tpot_s=seconds.step_s,
        generate_s=seconds.generate_s,
        e2e_s=e2e_s,
        **_rates(seconds, n_requests / e2e_s if e2e_s else None),
        input_tokens_per_s=n_requests * seconds.input_tokens / seconds.prefill_s if seconds.prefill_s else None,
    )


def _rates(seconds: PhaseSeconds, requests_per_s: float | None) -> dict[str, Any]:
    n_in, n_out, rate = seconds.input_tokens, seconds.output_tokens, requests_per_s
    return {
        "requests_per_s": rate,
        "output_tokens_per_s": None if rate is None else rate * n_out,
        "all_tokens_per_s": None if rate is None else rate * (n_in + n_out),
    }


def full_queue(seconds: PhaseSeconds, *, prefill_batch: int, decode_batch: int) -> Quantities:
    r"""Every request queued at once, and the batch kept full to the end.

    .. math:: X = 1 / (P(b_p) / b_p + N\,S(b_d) / b_d)

    Each request costs its share of a prefill of b_p prompts and of N steps of b_d sequences; while it decodes, the prompts
    of the other b_d / b_p - 1 prefills stall it.

    >>> quick = PhaseSeconds(prefill_s=1.0, step_s=0.1, input_tokens=8, output_tokens=10)
    >>> full_queue(quick, prefill_batch=1, decode_batch=4).requests_per_s
    0.8
    """
    n_out = seconds.output_tokens
    rate = 1.0 / (seconds.prefill_s / prefill_batch + seconds.generate_s / decode_batch)
    stalls = max(decode_batch / prefill_batch - 1.0, 0.0)
    generate_s = seconds.generate_s + stalls * seconds.prefill_s
    return Quantities(
        tpot_s=generate_s / n_out if n_out else None,
        generate_s=generate_s,
        **_rates(seconds, rate),
        input_tokens_per_s=prefill_batch * seconds.input_tokens / seconds.prefill_s if seconds.prefill_s else None,
    )


def steady(seconds: PhaseSeconds, *, n_sequences: int, mixed_s: float | None = None) -> Quantities:
    r"""An engine kept full: whenever a request is done the next one takes its place.

    .. math:: T = S(n) + n\,P(1) / N, \qquad X = n / (N T)

    While a request is decoded in N steps of n sequences, each of the others' prompts is read once: between the steps, or in
    the same passes, each of which then takes `mixed_s`.

    >>> steady(PhaseSeconds(prefill_s=0.1, step_s=0.01, input_tokens=8, output_tokens=10), n_sequences=2).tpot_s
    0.03
    """
    n_out = max(seconds.output_tokens, 1)
    tpot_s = seconds.step_s + n_sequences * seconds.prefill_s / n_out if mixed_s is None else mixed_s
    ttft_s = seconds.prefill_s + tpot_s / 2.0
    return Quantities(
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        generate_s=n_out * tpot_s,
        e2e_s=ttft_s + n_out * tpot_s,
        **_rates(seconds, n_sequences / (n_out * tpot_s)),
    )


def scaled_rates(one: Quantities, factor: float) -> Quantities:
    """Rates times a factor, as those of several equal replicas; times stay."""
    rates = [f.name for f in fields(one) if f.name.endswith("_per_s")]
    scaled: dict[str, Any] = {name: None if (rate := getattr(one, name)) is None else rate * factor for name in rates}
    return replace(one, **scaled)
