"""What a paper's communication volumes and cache sizes are by the programs that are priced."""

import math
from collections.abc import Mapping

from ..hardware_specs.units import parse_quantity
from ..models.catalogue import get_model
from ..models.description import Model
from ..models.lower import lower
from ..models.program import Collective, ShardedProgram
from ..models.sizes import Sizes, TokenGroup
from ..models.work import step_work
from ..simulator.cost.memory import kv_cache_bytes
from .cases import formats_of
from .compared import Compared, compared
from .published import MaxContext, Pope2022

_BF16 = formats_of("bf16")
# Table 1 gives the cache this share of every chip's memory.
_CACHE_SHARE = 0.30


def ffn_model(d_model: int, d_ff: int) -> Model:
    """A block whose feed-forward part has two matrices and a norm of its own."""
    return Model(
        name=f"ffn-{d_model}-{d_ff}",
        source="Pope2022 section 3.2",
        n_layers=1,
        d_model=d_model,
        d_ff=d_ff,
        n_heads=64,
        n_kv_heads=64,
        d_head=max(d_model // 64, 1),
        vocab_size=d_model,
        gated=False,
        activation="gelu",
        block="serial",
        norm="rmsnorm",
        n_norms_per_block=2,
        positions="none",
        tied_embeddings=True,
    )


def ffn_collectives(program: ShardedProgram) -> list[Collective]:
    """The collectives of a serial block's feed-forward part, but for the norm's statistics."""
    names = [step.name for step in program.only.steps]
    steps = program.only.steps[names.index("attention out add") + 1 :]
    return [step for step in steps if isinstance(step, Collective) and step.tensors[0].role != "statistic"]


def ffn_volume_bytes(model: Model, layout: str, mesh: Mapping[str, float], tokens: float) -> float:
    """Bytes one feed-forward part moves through a chip, (K-1)/K taken as 1: the full tensor of every collective.

    References
    ----------
    [Pope2022] section 3.2 and appendix A.
    """
    program = lower(model, layout, "heads")
    sizes = Sizes(program, mesh, [TokenGroup(n_sequences=tokens, new_tokens=1.0, past_tokens=0.0)])
    return float(sum(step_work(step, sizes, _BF16).full_bytes for step in ffn_collectives(program)))


def crossing_tokens(model: Model, start: str, end: str, mesh: Mapping[str, float]) -> float:
    """Tokens from which `end` moves less than `start`, by halving."""
    low, high = 1024.0, 2.0**24
    while high / low > 1.0 + 1e-6:
        middle = math.sqrt(low * high)
        if ffn_volume_bytes(model, start, mesh, middle) < ffn_volume_bytes(model, end, mesh, middle):
            low = middle
        else:
            high = middle
    return low


def best_2d_mesh(model: Model, n_chips: int, tokens: float) -> tuple[float, float]:
    """X and volume of the 2D mesh that moves least, over powers of two."""
    xs = [2.0**i for i in range(int(math.log2(n_chips)) + 1)]
    volume, x = min((ffn_volume_bytes(model, "ws-2d", {"x": x, "y": n_chips / x}, tokens), x) for x in xs)
    return x, volume


def figure3_rows(paper: Pope2022) -> tuple[Compared, ...]:
    """Every point of Figure 3."""
    figure = paper.fig3
    model = ffn_model(figure.d_model, figure.d_ff)
    return tuple(
        compared(
            f"{layout}-{tokens}",
            "Figure 3",
            layout,
            "B",
            gb * 1e9,
            ffn_volume_bytes(model, layout, figure.mesh, float(tokens)),
        )
        for layout, points in figure.volumes_gb.items()
        for tokens, gb in points.items()
    )


def switch_rows(paper: Pope2022) -> tuple[Compared, ...]:
    """The tokens at which Figure 3's layouts change places."""
    figure = paper.fig3
    model = ffn_model(figure.d_model, figure.d_ff)
    rows = []
    for point in figure.switch_tokens:
        name, ours = f"{point.start} to {point.end}", crossing_tokens(model, point.start, point.end, figure.mesh)
        rows.append(compared(name, "Figure 3", "switch", "tokens", point.tokens, ours))
    return tuple(rows)


def max_context_tokens(paper: Pope2022, row: MaxContext) -> float:
    """Tokens a sequence may have if Table 1's share of memory is for the cache, on Figure 3's slice."""
    program = lower(get_model(row.model), "ws-2d", row.attention)
    group = TokenGroup(n_sequences=float(row.batch), new_tokens=1.0, past_tokens=0.0)
    sizes = Sizes(program, paper.fig3.mesh, [group])
    per_token = float(kv_cache_bytes(program, sizes, _BF16, context=1000.0)) / 1000.0
    return _CACHE_SHARE * parse_quantity(paper.hardware.hbm_bytes, "B") / per_token


def table1_rows(paper: Pope2022) -> tuple[Compared, ...]:
    """Table 1: longest contexts."""
    return tuple(
        compared(
            f"{row.model}/{row.attention} batch {row.batch}",
            "Table 1",
            row.attention,
            "tokens",
            row.max_context,
            max_context_tokens(paper, row),
        )
        for row in paper.table1
    )
