"""The next token from logits: the best one, or one drawn from the top k that hold the top p of the probability.

Nothing is sorted. The lowest logit that is kept is found 4 bits at a time: of 16 candidates the largest with enough at or
above it, k tokens, or the share p of what those hold. Logits that are equal are kept or left together.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import LOG2_E
from .launch import device_target
from .variant import TARGETS, Config, Variant, configs

# 4 bits a pass find a logit's 32; a pass each finds the best, what is kept, and the token
_PASSES_TO_FIND, _OTHER_PASSES = 8, 3


@triton.jit
def _order(logit):
    """An fp32 number's place among all of them: an int64 in [0, 2^32) that grows with it."""
    bits = (logit + 0.0).to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF  # -0 becomes 0: they are equal
    return tl.where(bits >= 0x80000000, 0xFFFFFFFF - bits, bits + 0x80000000)


@triton.jit
def _block(row, start, n, best, per_temperature, BLOCK: tl.constexpr):
    """Lanes of one block, each token's place in order and its weight, exp((logit - best) / temperature)."""
    lanes = start + tl.arange(0, BLOCK)
    logit = tl.load(row + lanes, mask=lanes < n, other=float("-inf")).to(tl.float32)
    weight = tl.exp2((logit - best) * per_temperature * LOG2_E)
    return lanes, tl.where(lanes < n, _order(logit), -1), weight


@triton.jit
def _above(row, n, best, per_temperature, floors, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Tokens at or above each of 16 floors: how many, or their weight."""
    total = tl.zeros((16,), tl.float32)
    for start in range(0, n, BLOCK):
        _, place, weight = _block(row, start, n, best, per_temperature, BLOCK)
        if COUNT:
            weight = tl.full((BLOCK,), 1.0, tl.float32)
        total += tl.sum(tl.where(place[:, None] >= floors[None, :], weight[:, None], 0.0), 0)
    return total


@triton.jit
def _lowest(row, n, best, per_temperature, kept, enough, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The highest floor, `kept` or above, with `enough` at or above it."""
    digit = tl.arange(0, 16).to(tl.int64)
    found = tl.full((), 0, tl.int64)
    for i in tl.static_range(8):
        floors = tl.maximum(found + (digit << (28 - 4 * i)), kept)
        above = _above(row, n, best, per_temperature, floors, COUNT, BLOCK)
        found += tl.max(tl.where(above >= enough, digit, 0), 0) << (28 - 4 * i)
    return tl.maximum(found, kept)


@triton.jit
def _best(row, n, BLOCK: tl.constexpr):
    """The largest logit and its token, the first of equal ones."""
    best, token = tl.full((), float("-inf"), tl.float32), tl.full((), 0, tl.int32)
    for start in range(0, n, BLOCK):
        lanes = start + tl.arange(0, BLOCK)
        logit = tl.load(row + lanes, mask=lanes < n, other=float("-inf")).to(tl.float32)
        here = tl.max(logit, 0)
        token = tl.where(here > best, start + tl.argmax(logit, 0, tie_break_left=True).to(tl.int32), token)
        best = tl.maximum(best, here)
    return best, token


@triton.jit
def best_kernel(logits, values, tokens, n, BLOCK: tl.constexpr):
    """Rows of logits [B, n] to values [B] and tokens [B]."""
    batch = tl.program_id(0).to(tl.int64)
    best, token = _best(logits + batch * n, n, BLOCK)
    tl.store(values + batch, best)
    tl.store(tokens + batch, token.to(tl.int64))


@triton.jit
def sample_kernel(
    logits, draws, temperature, top_k, top_p, tokens, n,
    HAS_TOP_K: tl.constexpr, HAS_TOP_P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Row by row of logits [B, n]: the first kept token at which the kept ones' share passes the draw, in [0, 1)."""
    batch = tl.program_id(0).to(tl.int64)
    row = logits + batch * n
    per_temperature = 1.0 / tl.load(temperature + batch)
    best, token = _best(row, n, BLOCK)
    kept = tl.full((), 0, tl.int64)
    digit = tl.arange(0, 16)
    if HAS_TOP_K:
        enough = tl.minimum(tl.load(top_k + batch), n).to(tl.float32)
        kept = _lowest(row, n, best, per_temperature, kept, enough, COUNT=True, BLOCK=BLOCK)
    whole = tl.max(_above(row, n, best, per_temperature, kept + digit * 0, COUNT=False, BLOCK=BLOCK), 0)
    if HAS_TOP_P:
        enough = whole * tl.load(top_p + batch)
        kept = _lowest(row, n, best, per_temperature, kept, enough, COUNT=False, BLOCK=BLOCK)
        whole = tl.max(_above(row, n, best, per_temperature, kept + digit * 0, COUNT=False, BLOCK=BLOCK), 0)
    goal = whole * tl.load(draws + batch)
    before, chosen = tl.full((), 0.0, tl.float32), tl.full((), 0x7FFFFFFF, tl.int32)
    for start in range(0, n, BLOCK):
        lanes, place, weight = _block(row, start, n, best, per_temperature, BLOCK)
        weight = tl.where(place >= kept, weight, 0.0)
        passed = (before + tl.cumsum(weight, 0) > goal) & (weight > 0.0)
        chosen = tl.minimum(chosen, tl.min(tl.where(passed, lanes, 0x7FFFFFFF), 0))
        before += tl.sum(weight, 0)
    # sums in another order may fall short of the goal by their rounding: then the best token stands
    tl.store(tokens + batch, tl.where(chosen < n, chosen, token).to(tl.int64))


def best_token(logits: torch.Tensor, *, config: Config | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logit [B] fp32 of each row of logits [B, V], and its token [B] int64.

    Raises
    ------
    SpecError : logits that are not rows
    """
    _check(logits)
    config = config or configs("sampling", device_target(logits))[0]
    values = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    best_kernel[(len(logits),)](
        logits.contiguous(), values, tokens, logits.shape[1], **config.blocks, num_warps=config.num_warps
    )
    return values, tokens


def sample(
    logits: torch.Tensor,
    draws: torch.Tensor,
    temperature: torch.Tensor,
    *,
    top_k: torch.Tensor | None = None,
    top_p: torch.Tensor | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """A token [B] int64 of each row of logits [B, V]: top k first, top p of what is left then.

    Parameters
    ----------
    draws : [B] fp32, uniform in [0, 1)
    temperature : [B] fp32, above 0; for the best token there is `best_token`
    top_k : [B] int32, at least 1
    top_p : [B] fp32, in (0, 1]

    Raises
    ------
    SpecError : shapes that do not fit
    """
    _check(logits, draws=draws, temperature=temperature, top_k=top_k, top_p=top_p)
    config = config or configs("sampling", device_target(logits))[0]
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    sample_kernel[(len(logits),)](
        logits.contiguous(), draws, temperature, top_k, top_p, tokens, logits.shape[1],
        HAS_TOP_K=top_k is not None, HAS_TOP_P=top_p is not None, **config.blocks, num_warps=config.num_warps,
    )  # fmt: skip
    return tokens


def _check(logits: torch.Tensor, **rows: torch.Tensor | None) -> None:
    if logits.dim() != 2:
        raise SpecError(f"logits {tuple(logits.shape)} must be [B, V]")
    for name, tensor in rows.items():
        if tensor is not None and tensor.shape != logits.shape[:1]:
            raise SpecError(f"{name} {tuple(tensor.shape)} must be one a row of logits {tuple(logits.shape)}")


def kept_reference(
    logits: torch.Tensor, temperature: torch.Tensor, *, top_k: torch.Tensor | None, top_p: torch.Tensor | None
) -> torch.Tensor:
    """Probability [B, V] of each token once top k and then top p are applied, in torch."""
    ordered, _ = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        least = ordered.gather(1, top_k.long().clamp(max=logits.shape[1])[:, None] - 1)
        logits, ordered = (t.masked_fill(t < least, float("-inf")) for t in (logits, ordered))
    if top_p is not None:
        before = (ordered / temperature[:, None]).softmax(-1).cumsum(-1).roll(1, -1)
        before[:, 0] = 0.0
        least = ordered.masked_fill(before >= top_p[:, None], float("inf")).amin(-1, keepdim=True)
        logits = logits.masked_fill(logits < least, float("-inf"))
    return (logits / temperature[:, None]).softmax(-1)


def rereads(*, top_k: bool, top_p: bool) -> dict[str, float]:
    """Passes over the logits."""
    return {"logits": _OTHER_PASSES + top_k * _PASSES_TO_FIND + top_p * (_PASSES_TO_FIND + 1)}


def variants() -> Iterator[Variant]:
    """The best token, and every way to draw one."""
    for target in TARGETS:
        (config,) = configs("sampling", target)
        types = {"logits": "*fp32", "values": "*fp32", "draws": "*fp32", "temperature": "*fp32", "tokens": "*i64"}
        types |= {"top_k": "*i32", "top_p": "*fp32"}
        kinds = [("best", best_kernel, {})] + [
            (f"draw{' top-k' * top_k}{' top-p' * top_p}", sample_kernel, {"HAS_TOP_K": top_k, "HAS_TOP_P": top_p})
            for top_k in (False, True)
            for top_p in (False, True)
        ]
        for name, kernel, constants in kinds:
            yield Variant(
                op="sampling",
                name=f"fp32 {name}",
                target=target,
                kernel=kernel,
                types=types,
                constants=constants | config.blocks,
                num_warps=config.num_warps,
            )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """The best tokens of a decode batch, and tokens drawn from the top 50 that hold the top 0.9."""
    for b, n in ((256, 128256), (8, 128256)) if device == "cuda" else ((8, 32000),):
        for op in ("best", "draw"):
            yield _bench_case(device, op, b, n)


def _bench_case(device: Device, op: str, b: int, n: int) -> BenchCase:
    def prepare(device: Device, generator: torch.Generator) -> Runs:
        logits = torch.randn((b, n), generator=generator, device=device)
        if op == "best":
            return Runs(kernel=lambda: best_token(logits), torch=lambda: logits.max(-1))
        draws, temperature = torch.rand(b, generator=generator, device=device), torch.ones(b, device=device)
        kept = {
            "top_k": torch.full((b,), 50, dtype=torch.int32, device=device),
            "top_p": torch.full((b,), 0.9, device=device),
        }
        return Runs(
            kernel=lambda: sample(logits, draws, temperature, **kept),
            torch=lambda: torch.searchsorted(kept_reference(logits, temperature, **kept).cumsum(-1), draws[:, None]),
        )

    rows = {"best": {"values": (b, 4), "tokens": (b, 8)}, "draw": {"tokens": (b, 8)}}[op]
    work = elementwise_work({"logits": (b * n, 4)}, rows)
    return BenchCase(op=f"sampling {op}", shape={"b": b, "v": n}, dtype="fp32", work=work, prepare=prepare)
