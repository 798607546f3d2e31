"""Closed forms of a system under load, from the seconds of its two phases: a batch at once, a closed loop, a full queue."""

from dataclasses import dataclass, fields, replace

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


def _rates(seconds: PhaseSeconds, requests_per_s: float | None) -> dict[str, float | None]:
    n_in, n_out, rate = seconds.input_tokens, seconds.output_tokens, requests_per_s
    return {
        "requests_per_s": rate,
        "output_tokens_per_s": None if rate is None else rate * n_out,
        "all_tokens_per_s": None if rate is None else rate * (n_in + n_out),
    }


def closed_loop(seconds: PhaseSeconds, *, n_users: int, n_running: int, n_replicas: int) -> Quantities:
    r"""A full closed loop under continuous batching with half a step to be admitted.

    Each of C users of a replica sends the next request when the last is answered. The replica runs b of them at a time,
    the most that fit in memory. Prompts are read one by one, and each stalls the decode of the other b - 1 once a request:

    .. math:: t_{tpot} = S(b) + (b - 1) P / N, \qquad t_{ttft} = P + S(b) / 2 \;(b > 1)

    P prefill of one prompt, S a decode step, N output tokens. A request arrives in the middle of a step on average. By
    Little's law the replica answers :math:`X = b / (t_{ttft} + N t_{tpot})` requests a second, and where C > b the others wait
    for :math:`C / X - N t_{tpot}` in all until their first token.

    Parameters
    ----------
    n_users, n_running : C and b, of one replica

    Notes
    -----
    Left out: lengths that differ, chunked prefill beside decode, and requests that start together and then stay in step,
    so that their prompts queue for each other.

    References
    ----------
    [Little1961] "A proof for the queuing formula L = lambda W".

    Examples
    --------
    >>> alone = PhaseSeconds(prefill_s=1.0, step_s=0.1, input_tokens=8, output_tokens=10)
    >>> closed_loop(alone, n_users=1, n_running=1, n_replicas=2).requests_per_s
    1.0
    """
    n_out = seconds.output_tokens
    others = n_running - 1
    tpot_s = seconds.step_s + others * seconds.prefill_s / n_out
    generate_s = tpot_s * n_out
    admitted_s = seconds.prefill_s + (seconds.step_s / 2.0 if others else 0.0)
    rate = n_running / (admitted_s + generate_s)
    e2e_s = n_users / rate
    return Quantities(
        ttft_s=e2e_s - generate_s,
        tpot_s=tpot_s,
        generate_s=generate_s,
        e2e_s=e2e_s,
        **_rates(seconds, rate * n_replicas),
        input_tokens_per_s=rate * n_replicas * seconds.input_tokens,
    )


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


def times(one: Quantities, n_replicas: int) -> Quantities:
    """The quantities of several equal replicas: times stay, rates add up."""
    rates = [f.name for f in fields(one) if f.name.endswith("_per_s")]
    return replace(one, **{name: None if (rate := getattr(one, name)) is None else rate * n_replicas for name in rates})
