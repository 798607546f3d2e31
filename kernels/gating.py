"""Top-k gating: the experts of each token, and how much each of them counts."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import LOG2_E, sigmoid
from .launch import cdiv, device_target, next_power_of_2
from .variant import TARGETS, Config, Variant, configs

SCORES = ("softmax", "sigmoid")


@triton.jit
def gating_kernel(
    logits, gates, experts, n_tokens,
    SCORE: tl.constexpr, RENORMALISE: tl.constexpr, N_EXPERTS: tl.constexpr, TOP_K: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Rows of logits [T, N_EXPERTS] to gates and experts [T, TOP_K], the largest first, the lower number in a tie."""
    token = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    expert, choice = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_C)
    known = (token < n_tokens)[:, None] & (expert < N_EXPERTS)[None, :]
    logit = tl.load(logits + token[:, None] * N_EXPERTS + expert[None, :], mask=known, other=0.0).to(tl.float32)
    if SCORE == "softmax":
        lowest = tl.where((expert < N_EXPERTS)[None, :], logit, float("-inf"))
        score = tl.exp2((lowest - tl.max(lowest, 1)[:, None]) * LOG2_E)
        score = score / tl.sum(score, 1)[:, None]
    else:
        score = sigmoid(logit)
    left = tl.where((expert < N_EXPERTS)[None, :], score, -1.0)
    chosen_gates = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    chosen = tl.zeros((BLOCK_T, BLOCK_C), tl.int32)
    for rank in tl.static_range(TOP_K):
        best = tl.argmax(left, 1, tie_break_left=True)
        here = (choice == rank)[None, :]
        chosen_gates = tl.where(here, tl.max(left, 1)[:, None], chosen_gates)
        chosen = tl.where(here, best[:, None].to(tl.int32), chosen)
        left = tl.where(expert[None, :] == best[:, None], -1.0, left)
    if RENORMALISE:
        chosen_gates = chosen_gates / tl.sum(chosen_gates, 1)[:, None]
    inside = (token < n_tokens)[:, None] & (choice < TOP_K)[None, :]
    at = token[:, None] * TOP_K + choice[None, :]
    tl.store(gates + at, chosen_gates, mask=inside)
    tl.store(experts + at, chosen, mask=inside)


def gate(
    logits: torch.Tensor, top_k: int, *, score: str = "softmax", renormalise: bool = False, config: Config | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gates [T, top_k] fp32 and experts [T, top_k] int32 from logits [T, E].

    Scores are a softmax over all experts or a sigmoid of each; `renormalise` makes the chosen ones sum to 1.

    Raises
    ------
    SpecError : a score that is not known, or more experts to choose than there are
    """
    _check(logits, top_k, score)
    n_tokens, n_experts = logits.shape
    config = config or configs("gating", device_target(logits))[0]
    block = config.blocks["BLOCK_T"]
    gates = torch.empty((n_tokens, top_k), dtype=torch.float32, device=logits.device)
    experts = torch.empty((n_tokens, top_k), dtype=torch.int32, device=logits.device)
    gating_kernel[(cdiv(n_tokens, block),)](
        logits.contiguous(), gates, experts, n_tokens, SCORE=score, RENORMALISE=renormalise,
        N_EXPERTS=n_experts, TOP_K=top_k, BLOCK_T=block, BLOCK_E=next_power_of_2(n_experts),
        BLOCK_C=next_power_of_2(top_k), num_warps=config.num_warps,
    )  # fmt: skip
    return gates, experts


def _check(logits: torch.Tensor, top_k: int, score: str) -> None:
    if score not in SCORES:
        raise SpecError(f"no gating score {score!r}; known: {', '.join(SCORES)}")
    if logits.dim() != 2 or not 1 <= top_k <= logits.shape[1]:
        raise SpecError(
            f"cannot choose {top_k} experts from logits {tuple(logits.shape)}; logits are [tokens, experts]"
        )


def gate_reference(
    logits: torch.Tensor, top_k: int, *, score: str = "softmax", renormalise: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch."""
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    gates, experts = scores.sort(dim=-1, descending=True, stable=True)
    gates, experts = gates[:, :top_k], experts[:, :top_k]
    return gates / gates.sum(-1, keepdim=True) if renormalise else gates, experts.int()


def variants() -> Iterator[Variant]:
    """Few wide experts (Mixtral) and many small ones (DeepSeek-V3)."""
    for target in TARGETS:
        (config,) = configs("gating", target)
        for n_experts, top_k, score in ((8, 2, "softmax"), (256, 8, "sigmoid")):
            yield Variant(
                op="gating",
                name=f"fp32 {score} {top_k} of {n_experts}",
                target=target,
                kernel=gating_kernel,
                types={"logits": "*fp32", "gates": "*fp32", "experts": "*i32"},
                constants={"SCORE": score, "RENORMALISE": True, "N_EXPERTS": n_experts, "TOP_K": top_k}
                | {"BLOCK_E": n_experts, "BLOCK_C": top_k}
                | config.blocks,
                num_warps=config.num_warps,
                unaligned=("n_tokens",),
            )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Tokens of a prompt and of a decode batch."""
    for n_tokens, n_experts, top_k in ((8192, 256, 8), (64, 256, 8)) if device == "cuda" else ((128, 8, 2),):

        def prepare(
            device: Device, generator: torch.Generator, t: int = n_tokens, e: int = n_experts, k: int = top_k
        ) -> Runs:
            logits = torch.randn((t, e), generator=generator, device=device)
            return Runs(kernel=lambda: gate(logits, k), torch=lambda: logits.softmax(-1).topk(k))

        chosen = n_tokens * top_k
        work = elementwise_work({"logits": (n_tokens * n_experts, 4)}, {"gates": (chosen, 4), "experts": (chosen, 4)})
        shape = {"t": n_tokens, "e": n_experts, "k": top_k}
        yield BenchCase(op="gating", shape=shape, dtype="fp32", work=work, prepare=prepare)
