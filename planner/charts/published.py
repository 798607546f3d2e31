"""The paper's public points as curves to lay over ours, where the model and the chip are the paper's."""

from collections.abc import Iterator

from ...models.description import Model
from ...validate.published import Pope2022, Timing, load_pope2022
from ...validate.reproduce import published_mfu
from .values import Curve

FIGURES = ("1", "3", "6", "7", "8", "9", "B.1", "C.1")
_PADDED = "-padded"


def is_papers(name: str, model: Model) -> bool:
    """Whether a published model is this one, whose heads the paper pads."""
    return name.removesuffix(_PADDED) == model.name.removesuffix(_PADDED)


def published_points(model: Model, chip: str, figure: str, phase: str) -> tuple[Curve, ...]:
    """Public points of one figure and phase; none for models and chips that the paper does not have."""
    paper = load_pope2022()
    if figure == "9":
        return tuple(_table_d2(paper, model, chip))
    if chip != paper.hardware.chip:
        return ()
    rows = [row for row in _timings(paper) if row.phase == phase and is_papers(row.model, model)]
    wanted = {
        "1": ("Figure 1", "Table 2", "Table 3"),
        "C.1": ("Table 2", "Table 3"),
        "6": ("Figure 6",),
        "7": ("Figure 7",),
    }
    curves: dict[str, list[Timing]] = {}
    for row in rows:
        if row.source in wanted.get(figure, ()):
            curves.setdefault(_named(figure, row), []).append(row)
    return tuple(_curve(name, figure, held) for name, held in curves.items())


def _timings(paper: Pope2022) -> Iterator[Timing]:
    """Every timed phase, those of the conclusions too, each once."""
    seen: set[tuple[object, ...]] = set()
    for row in (*paper.timings, *(row for claim in paper.claims for row in claim.timings)):
        key = (row.source, row.model, row.chips, row.phase, row.ffn, row.attention, row.weights, row.batch, row.input)
        if key not in seen:
            seen.add(key)
            yield row


def _named(figure: str, row: Timing) -> str:
    """The curve of ours that a point belongs to."""
    return row.ffn if figure in ("6", "7") else f"{row.chips} chips, {row.weights}"


def _curve(name: str, figure: str, rows: list[Timing]) -> Curve:
    points = [_point(figure, row) for row in rows]
    return Curve(
        name=f"{name}, published",
        style="published",
        group=name,
        x=tuple(x for x, _ in points),
        y=tuple(y for _, y in points),
        hover=tuple(
            f"published: {row.source}, batch {row.batch}, {row.chips} chips, {row.ffn}/{row.attention}" for row in rows
        ),
    )


def _point(figure: str, row: Timing) -> tuple[float, float]:
    """Where a published phase lies in a figure."""
    pass_s = row.value_s if row.per_pass or row.phase == "prefill" else row.value_s / row.output
    tokens = row.batch * (row.input if row.phase == "prefill" else 1)
    latency = pass_s if row.phase == "prefill" else 1e3 * pass_s
    if figure == "1":
        return latency, 1e3 * row.chips * pass_s / tokens
    if figure == "C.1":
        return latency, row.mfu or 0.0
    if figure == "6":
        return float(row.chips), 1e3 * pass_s
    return float(tokens), row.mfu or 0.0


def _table_d2(paper: Pope2022, model: Model, chip: str) -> Iterator[Curve]:
    """Whole requests of 20 tokens in and 8 out."""
    rows = [row for row in paper.table_d2 if row.phase == "total" and is_papers(row.model, model) and row.chip == chip]
    for n_chips in sorted({row.chips for row in rows}):
        own = [row for row in rows if row.chips == n_chips]
        yield Curve(
            name=f"Table D.2: {n_chips} chips",
            group=f"{n_chips} chips",
            style="published",
            x=tuple(1e3 * row.value_s for row in own),
            y=tuple(published_mfu(row.model, row.chip, row.chips, 28.0 * row.batch, row.value_s) for row in own),
            hover=tuple(f"published: Table D.2, batch {row.batch}, {row.chips} chips" for row in own),
        )
