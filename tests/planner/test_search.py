"""The search finds what brute force finds: every candidate enumerated here afresh, and priced alone."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from shardwise.hardware_specs.cluster import Mesh, Slice, meshes
from shardwise.models.sizes import batch_axes
from shardwise.planner.request import PlanRequest, make_request
from shardwise.planner.search import Found, Pair, nearest_miss, search
from shardwise.simulator.cost.engines import get_engine
from shardwise.simulator.cost.machine import make_machine
from shardwise.simulator.cost.memory import memory_bytes
from shardwise.simulator.cost.phases import PhaseSetting, bind, price_phase
from shardwise.simulator.types import Slo
from shardwise.tests.strategies import small_model

# about the median of the passes on four chips, so that some keep the limits and some do not
TTFT_S, TPOT_S = 5e-4, 2.5e-4
PAIR_REASONS = ("out of memory", "TTFT over the limit", "TPOT over the limit")
TWO_D = ("ws-2d", "wg-x", "wg-xy", "wg-xyz")
# W_in lies cut over E and F in 2D, over F alone in 1D: layouts with one form share one copy of the weights.
STORED = {"ws-1d": "1D", "ws-1d-allreduce": "1D", "ws-1d-sequence": "1D"} | dict.fromkeys(TWO_D, "2D")


def request_of(on: str, batches: tuple[int, ...] = (1, 4, 8), **changes: object) -> PlanRequest:
    """A request for a small model with few batches."""
    fields: dict[str, object] = {"model": small_model(), "input_tokens": 64, "output_tokens": 16}
    request = make_request(**(fields | {"on": on} | changes))
    return replace(request, prefill_batches=batches, decode_batches=batches)


@dataclass(frozen=True)
class Candidate:
    """One phase of one candidate, with its price."""

    setting: PhaseSetting
    mesh: Mesh
    batch: int
    n_microbatches: int
    pass_s: float
    latency_s: float
    chip_s: float
    weights: float
    kv: float
    work: float

    @property
    def resident(self) -> tuple[object, ...]:
        """What a phase on the same chips must share with this one."""
        s = self.setting
        return STORED[s.layout], self.mesh, s.head_axes, s.formats, s.pp, s.dp, s.page_size


def lies_on(request: PlanRequest, layout: str, attention: str, heads: str, sizes: tuple[int, int, int]) -> bool:
    """Whether a layout can lie on a mesh under this name, by the rules in words."""
    model, (x, y, z) = request.model, sizes
    tp = x * y * z
    if tp == 1:
        if (layout, attention, heads) not in (("ws-1d", "heads", "xyz"), ("ws-1d-allreduce", "heads", "xyz")):
            return False
    elif layout in TWO_D:
        if x == 1 or y * z == 1 or (layout == "wg-xy" and y == 1) or (layout == "wg-xyz" and z == 1):
            return False
    elif y * z > 1:
        return False
    if heads == "yz" and (layout not in TWO_D or model.n_heads % tp == 0 or model.n_heads % (y * z)):
        return False
    shards = tp if heads == "xyz" else y * z
    if 1 < model.n_kv_heads < model.n_heads:
        kv = model.n_kv_heads
        if model.n_heads % shards or (kv % shards and shards % kv):
            return False
    cut_e = 1 if layout in ("ws-1d-allreduce", "ws-1d-sequence") else tp
    cut_f = y * z if layout in ("wg-x", "wg-xy", "wg-xyz") else tp
    return model.d_model % cut_e == 0 and model.d_ff % cut_f == 0


def microbatches(request: PlanRequest, phase: str, pp: int, sequences: int) -> list[int]:
    """Micro-batches the planner may choose: powers of two and the stage count."""
    if phase == "decode" and pp == 1:
        return [1]
    most = 64 if phase == "prefill" else 4 * pp
    return [n for n in range(1, most + 1) if sequences % n == 0 and (n & (n - 1) == 0 or n == pp)]


def every_phase(request: PlanRequest, slice_: Slice, phase: str) -> Iterator[Candidate]:
    """Every candidate of a phase on a slice, one at a time."""
    profile = get_engine(request.engine_name(slice_))
    n = slice_.n_chips
    cuts = [(pp, dp) for pp in range(1, n + 1) for dp in range(1, n + 1) if n % (pp * dp) == 0]
    batches = request.prefill_batches if phase == "prefill" else request.decode_batches
    for (pp, dp), layout, attention, heads, formats, batch in itertools.product(
        cuts, profile.layouts, profile.attention, ("xyz", "yz"), request.formats, batches
    ):
        if (pp > 1 and not profile.runs.pipelines) or pp > request.model.n_layers or batch % dp:
            continue
        if (attention == "context" and phase == "prefill") or (layout == "wg-xyz" and attention != "batch"):
            continue
        setting = PhaseSetting(
            model=request.model,
            phase=phase,
            layout=layout,
            attention=attention,
            formats=formats,
            workload=request.workload,
            head_axes=tuple(heads),
            pp=pp,
            dp=dp,
        )
        for mesh, n_micro in itertools.product(meshes(slice_, pp, dp), microbatches(request, phase, pp, batch // dp)):
            if lies_on(request, layout, attention, heads, mesh.sizes):
                yield priced(request, slice_, setting, mesh, batch, n_micro)


def priced(
    request: PlanRequest, slice_: Slice, setting: PhaseSetting, mesh: Mesh, batch: int, n_micro: int
) -> Candidate:
    """A candidate priced alone."""
    engine, machine = request.calibration(slice_).engine, make_machine(slice_.chip, [mesh])
    price = price_phase(setting, machine, np.array([float(batch)]), engine, n_microbatches=float(n_micro))
    sequences = batch // setting.dp // n_micro
    program, sizes = bind(setting, machine, float(sequences), batch_axes(mesh.sizes, sequences), engine)
    memory = memory_bytes(
        program,
        sizes,
        setting.formats,
        context=float(setting.workload.context_tokens),
        pp=setting.pp,
        n_microbatches=float(n_micro),
        page_size=setting.page_size,
        static=engine.static_buffers,
    )
    latency_s = float(price.latency_s[0])
    return Candidate(
        setting=setting,
        mesh=mesh,
        batch=batch,
        n_microbatches=n_micro,
        pass_s=float(price.pass_s[0]),
        latency_s=latency_s,
        chip_s=latency_s * slice_.n_chips / batch,
        weights=float(memory.weights),
        kv=float(memory.kv_cache),
        work=float(memory.activations + memory.gathered),
    )


@dataclass
class Brute:
    """What brute force found: (latency, chip-seconds, requests per second) of every feasible pair."""

    n_candidates: int
    feasible: list[tuple[float, float, float]]

    def best(self, objective: str) -> tuple[float, float, float]:
        """The best feasible pair by an objective, the other figure breaking ties."""
        keys = {
            "latency": lambda m: (digits(m[0]), m[1]),
            "cost": lambda m: (digits(m[1]), m[0]),
            "throughput": lambda m: (digits(-m[2]), m[0]),
        }
        return min(self.feasible, key=keys[objective])

    def frontier(self) -> list[tuple[float, float]]:
        """Points that no other beats, by rising latency."""
        kept: list[tuple[float, float]] = []
        for point in sorted({(digits(latency), digits(chip)) for latency, chip, _ in self.feasible}):
            if not kept or point[1] < kept[-1][1]:
                kept.append(point)
        return kept


def digits(value: float) -> float:
    """A value in ten digits: arrays and scalars may differ in the last bit."""
    return float(f"{value:.10g}")


def brute_force(request: PlanRequest) -> Brute:
    """Try every pair on the request's slices."""
    count, feasible = 0, []
    for slice_ in request.slices:
        limit = slice_.chip.hbm_bytes.value * request.memory_share
        prefill, decode = (list(every_phase(request, slice_, phase)) for phase in ("prefill", "decode"))
        for p, d in itertools.product(prefill, decode):
            if p.resident != d.resident or p.batch > d.batch:
                continue
            count += 1
            late = request.slo.ttft_s is not None and p.pass_s > request.slo.ttft_s
            slow = request.slo.tpot_s is not None and d.pass_s > request.slo.tpot_s
            if p.weights + max(p.kv, d.kv) + max(p.work, d.work) <= limit and not late and not slow:
                chip_s = p.chip_s + d.chip_s
                feasible.append((p.latency_s + d.latency_s, chip_s, slice_.n_chips / chip_s))
    return Brute(count, feasible)


def n_feasible(found: Found) -> int:
    """Pairs left when the refused are taken away."""
    return found.n_candidates - sum(found.rejected[reason] for reason in PAIR_REASONS)


def merits(pair: Pair) -> tuple[float, float, float]:
    """Figures of a pair as `Brute` has them."""
    return pair.latency_s, pair.chip_s, pair.requests_per_s


ODD_HEADS = {"n_layers": 2, "n_heads": 6, "n_kv_heads": 1, "block": "parallel", "gated": True}
GROUPED = {"n_layers": 4, "n_heads": 8, "n_kv_heads": 2, "d_ff": 768}
SMALL_SPACES = [
    pytest.param({"on": "tpu-v4:2x2x1"}, id="paper's engine on 4 chips"),
    pytest.param({"on": "tpu-v4:2x2x1", "model": small_model(**ODD_HEADS)}, id="padded or replicated heads"),
    pytest.param({"on": "tpu-v4:2x2x1", "model": small_model(n_layers=2, d_ff=510)}, id="d_ff that does not divide"),
    pytest.param({"on": "h100-sxm:4", "model": small_model(**GROUPED)}, id="stages and replicas behind a switch"),
    pytest.param({"on": "tpu-v4:2x2x1", "batches": (4,), "weights": "bf16,int8"}, id="two weight formats"),
    pytest.param({"on": "tpu-v4:2x2x2", "batches": (8,)}, id="8 chips"),
    pytest.param({"on": "tpu-v4:2x2x1", "engine": "shardwise", "batches": (4,)}, id="every layout, stages too"),
    pytest.param({"on": "tpu-v4:2x2x1", "memory_share": 1.7e-4}, id="little memory"),
    pytest.param({"on": "tpu-v4:2x2x1", "ttft_s": TTFT_S, "tpot_s": TPOT_S}, id="both limits bind"),
]


@pytest.mark.parametrize("asked", SMALL_SPACES)
def test_the_search_finds_what_brute_force_finds(asked: dict[str, object]) -> None:
    request = request_of(**asked)
    brute = brute_force(request)
    assert brute.feasible
    for objective in ("latency", "cost", "throughput"):
        found = search(replace(request, objective=objective))
        assert found.n_candidates == brute.n_candidates
        assert n_feasible(found) == len(brute.feasible)
        # 1e-9: sums of the same seconds in another order
        assert merits(found.pairs[0]) == pytest.approx(brute.best(objective), rel=1e-9)
        frontier = [(digits(pair.latency_s), digits(pair.chip_s)) for pair in found.frontier]
        assert frontier == brute.frontier()


@pytest.mark.slow
def test_the_search_finds_what_brute_force_finds_on_every_layout_of_8_chips() -> None:
    request = request_of("tpu-v4:2x2x2", engine="shardwise")
    brute = brute_force(request)
    found = search(request)
    assert (found.n_candidates, n_feasible(found)) == (brute.n_candidates, len(brute.feasible))
    assert merits(found.pairs[0]) == pytest.approx(brute.best("latency"), rel=1e-9)


def test_a_case_where_memory_and_limits_refuse_some_and_not_all() -> None:
    """The two spaces above that are meant to bind do bind."""
    tight = search(request_of("tpu-v4:2x2x1", memory_share=1.7e-4))
    assert 0 < tight.rejected["out of memory"] < tight.n_candidates
    limited = search(request_of("tpu-v4:2x2x1", ttft_s=TTFT_S, tpot_s=TPOT_S))
    assert limited.rejected["TTFT over the limit"] > 0
    assert limited.rejected["TPOT over the limit"] > 0
    assert n_feasible(limited) > 0


TWO_POOLS = [
    # TPU v4 claims no network between slices
    pytest.param({"on": "tpu-v4:2x2x1", "decode_on": "tpu-v4:1x2x2"}, id="no network"),
    # here the quickest prefill is not part of the quickest pair, for its bigger batch's cache is longer on the way
    pytest.param(
        {
            "on": "h100-sxm:4",
            "decode_on": "h100-sxm:4",
            "model": small_model(n_layers=2, n_kv_heads=8, d_head=64),
            "input_tokens": 1024,
            "batches": (1, 2, 4, 8, 16),
        },
        id="a network",
    ),
]


@pytest.mark.parametrize("asked", TWO_POOLS)
def test_two_pools_are_each_used_at_their_best(asked: dict[str, object]) -> None:
    """Prefill and decode on slices of their own: any prefill with any decode that keeps the cache in one format."""
    request = request_of(**asked)
    (p_slice,), (d_slice,) = request.slices, request.decode_slices
    pairs = []
    for p, d in itertools.product(every_phase(request, p_slice, "prefill"), every_phase(request, d_slice, "decode")):
        # the slower pool sets the pace, and the other is paid for while it waits
        rate = min(p_slice.n_chips / p.chip_s, d_slice.n_chips / d.chip_s)
        latency_s = p.latency_s + d.latency_s + handoff_s(request, p)
        pairs.append((latency_s, (p_slice.n_chips + d_slice.n_chips) / rate, rate))
    brute = Brute(len(pairs), pairs)
    for objective in ("latency", "cost", "throughput"):
        found = search(replace(request, objective=objective))
        assert merits(found.pairs[0]) == pytest.approx(brute.best(objective), rel=1e-9)
        assert [(digits(pair.latency_s), digits(pair.chip_s)) for pair in found.frontier] == brute.frontier()


def handoff_s(request: PlanRequest, prefill: Candidate) -> float:
    """Seconds for the cache of one prefill batch over all ports of the smaller of two pools of one chip."""
    port = request.slices[0].chip.scale_out_bytes_per_s
    if port is None:
        return 0.0
    model = request.model
    cache_bytes = (
        prefill.batch * request.workload.input_tokens * 2 * model.n_layers * model.n_kv_heads * model.d_head * 2
    )
    return cache_bytes / (port.value * min(request.slices[0].n_chips, request.decode_slices[0].n_chips))


def test_the_cache_goes_over_the_network_between_pools_of_gpus() -> None:
    """Bytes of the prefill batch's cache over every port of the smaller pool."""
    request = request_of("h100-sxm:2", decode_on="h100-sxm:1", batches=(4,))
    pair = search(request).pairs[0]
    model, port = request.model, request.slices[0].chip.scale_out_bytes_per_s
    assert port is not None
    cache_bytes = 4 * 64 * 2 * model.n_layers * model.n_kv_heads * model.d_head * 2
    assert pair.handoff_s == pytest.approx(cache_bytes / port.value)
    assert pair.latency_s > pair.handoff_s


@pytest.mark.parametrize("on", ["tpu-v4:2x2x1", "tpu-v4:..4", "h100-sxm:..4"])
def test_every_candidate_is_feasible_or_refused_with_a_reason(on: str) -> None:
    """The pairs a request allows less those refused are the pairs that are left, whatever the limits."""
    free = search(request_of(on))
    assert n_feasible(free) == free.n_candidates > 0
    for limit in ({"ttft_s": 1e-9}, {"tpot_s": 1e-9}):
        none = search(request_of(on, **limit))
        assert none.pairs == []
        assert n_feasible(none) == 0


def test_a_kept_pair_is_enough_to_price_it_again() -> None:
    request = request_of("tpu-v4:2x2x1")
    for pair in search(request).pairs[:5]:
        total = pair.handoff_s
        for choice in (pair.prefill, pair.decode):
            mesh = meshes_in_order(request, choice.slice, choice.setting)[choice.mesh_index]
            total += priced(request, choice.slice, choice.setting, mesh, choice.batch, choice.n_microbatches).latency_s
        assert pair.latency_s == pytest.approx(total, rel=1e-12)


def meshes_in_order(request: PlanRequest, slice_: Slice, setting: PhaseSetting) -> list[Mesh]:
    """Balanced meshes first, as a choice counts them."""
    return sorted(meshes(slice_, setting.pp, setting.dp), key=lambda mesh: -min(mesh.sizes))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param({"memory_share": 1e-12}, ("smallest candidate needs", "tpu-v4:1x2x2"), id="memory"),
        pytest.param({"ttft_s": 1e-9}, ("TTFT", "limit 1 ns"), id="ttft"),
        pytest.param({"tpot_s": 1e-9}, ("TPOT", "limit 1 ns"), id="tpot"),
    ],
)
def test_the_nearest_miss_says_how_far_it_was(asked: dict[str, float], words: tuple[str, ...]) -> None:
    request = request_of("tpu-v4:1x2x2", **asked)
    missed = nearest_miss(request, search(request))
    assert missed is not None
    assert all(word in missed for word in words)


def test_there_is_no_miss_where_there_is_a_plan() -> None:
    request = request_of("tpu-v4:1x2x2")
    assert nearest_miss(request, search(request)) is None


def test_the_nearest_miss_is_the_quickest_that_fits() -> None:
    request = request_of("tpu-v4:2x2x1")
    (slice_,) = request.slices
    quickest = min(candidate.pass_s for candidate in every_phase(request, slice_, "decode"))
    found = search(replace(request, slo=Slo(tpot_s=quickest / 2)))
    assert found.pairs == []
    assert found.least_tpot_s == pytest.approx(quickest)
    assert search(replace(request, slo=Slo(tpot_s=quickest * 1.001))).pairs
