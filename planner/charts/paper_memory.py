"""Figure 8 and Table 1: a decode step as the context grows, and the longest context that memory holds."""

import numpy as np

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import meshes, parse_pool
from ...hardware_specs.errors import SpecError
from ...models.description import Model
from ...models.formats import default_formats
from ...models.layouts import ATTENTION_SHARDINGS, LAYOUTS
from ...models.lower import lower
from ...models.sizes import Sizes, TokenGroup, batch_axes
from ...simulator.cost.calibrated import default_engine
from ...simulator.cost.engines import get_engine
from ...simulator.cost.memory import kv_cache_bytes
from ...validate.published import load_pope2022
from ..whatif.answers import Cell
from ..whatif.ask import what_if
from .published import is_papers
from .values import Chart, Curve, Panel, Scale

# The paper times so many layers at this batch.
_LAYERS, _BATCH = 8, 256
_CONTEXTS = tuple(2**i for i in range(7, 16))
_BATCHES = tuple(2**i for i in range(11))
# Table 1 gives the cache this share of every chip's memory.
_CACHE_SHARE = 0.30
_MULTIPLE = 16


def multihead_twin(model: Model) -> Model | None:
    """The same model with as many K/V heads as query heads and as many parameters; None where it has that already.

    >>> from shardwise.models.catalogue import get_model
    >>> multihead_twin(get_model("palm-540b-padded")).d_head
    128
    """
    h, k = model.n_heads, model.n_kv_heads
    if not h or h == k:
        return None
    narrower = model.d_head * (h + k) / (2 * h)
    d_head = max(_MULTIPLE, _MULTIPLE * round(narrower / _MULTIPLE))
    return model.model_copy(update={"name": f"{model.name}-multihead", "n_kv_heads": h, "d_head": d_head})


def context_chart(model: Model, on: str) -> Chart:
    """Decode of a few layers over the context, by how attention is cut; and the context that memory has room for.

    Raises
    ------
    SpecError : nothing fits, or a model that is no plain stack of attention

    References
    ----------
    [Pope2022] Figure 8, Table 1.
    """
    if not model.n_heads:
        raise SpecError(f"{model.name} has no plain attention, which Figure 8 is about")
    return Chart(
        name="8",
        title=f"Figure 8: {model.name} on {on}, decode as the context grows",
        says=f"{_layers(model)} layers at batch {_BATCH}; on the right the context that {_CACHE_SHARE:.2f} of memory holds",
        panels=(_step_panel(model, on), _room_panel(model, on)),
    )


def _layers(model: Model) -> int:
    return min(model.n_layers, _LAYERS)


def _step_panel(model: Model, on: str) -> Panel:
    curves = [*_steps(model, on, "")]
    twin = multihead_twin(model)
    if twin is not None:
        curves += [curve for curve in _steps(twin, on, "multihead, ") if curve.name.endswith("heads")]
    if not curves:
        raise SpecError(f"{_layers(model)} layers of {model.name} at batch {_BATCH} fit nowhere on {on}")
    return Panel(
        title="a decode step",
        x=Scale(title="context (tokens)", log=True),
        y=Scale(title="latency of an output token (ms)", log=True),
        curves=(*curves, *_published(model, on)),
    )


def _steps(model: Model, on: str, prefix: str) -> list[Curve]:
    """A curve for each way to cut attention, each at the best layout of the rest."""
    short = model.model_copy(update={"n_layers": _layers(model), "name": f"{model.name}-{_layers(model)}"})
    engine = get_engine(default_engine(get_chip(on.partition(":")[0])))
    cuts = [a for a in ATTENTION_SHARDINGS if a in engine.attention]
    stationary = [name for name in engine.layouts if not LAYOUTS[name].gathered_axes]
    contexts = [n for n in _CONTEXTS if model.max_context is None or n < model.max_context]
    answer = what_if(
        short,
        on,
        vary=[
            f"decode={','.join(f'{name}/{cut}' for cut in cuts for name in stationary)}",
            f"input={','.join(map(str, contexts))}",
        ],
        output_tokens=1,
        prefill_batch=1,
        decode_batch=_BATCH,
    )
    best: dict[str, dict[int, dict[str, Cell]]] = {}
    for row in answer.rows():
        if row["fits"]:
            cut, at = str(row["decode"]).partition("/")[2], int(str(row["input"]))
            held = best.setdefault(cut, {})
            if at not in held or float(str(row["tpot_s"])) < float(str(held[at]["tpot_s"])):
                held[at] = row
    return [
        Curve(
            name=f"{prefix}over {cut}",
            x=tuple(map(float, held)),
            y=tuple(1e3 * float(str(row["tpot_s"])) for row in held.values()),
            hover=tuple(
                f"{at} tokens: {1e3 * float(str(row['tpot_s'])):.4g} ms, {row['decode_layout']}, mesh {row['mesh']}"
                for at, row in held.items()
            ),
        )
        for cut, held in best.items()
    ]


def _published(model: Model, on: str) -> tuple[Curve, ...]:
    paper = load_pope2022()
    if get_chip(on.partition(":")[0]).name != paper.hardware.chip:
        return ()
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in (row for claim in paper.claims if claim.id == "A5" for row in claim.timings):
        twin = is_papers(row.model.replace("-multihead", ""), model) and "-multihead" in row.model
        if is_papers(row.model, model) or twin:
            name = f"{'multihead, ' if twin else ''}over {row.attention}"
            curves.setdefault(name, []).append((float(row.input), 1e3 * row.value_s))
    return tuple(
        Curve(
            name=f"{name}, published",
            group=name,
            style="published",
            x=tuple(x for x, _ in points),
            y=tuple(y for _, y in points),
        )
        for name, points in curves.items()
    )


def longest_context(model: Model, on: str, attention: str, batch: int) -> float:
    """Tokens a sequence may have if a share of memory is for the cache, on the slice's most even mesh."""
    slice_ = parse_pool(on)[0]
    mesh = min(meshes(slice_), key=lambda found: (max(found.sizes), found.sizes))
    layout = "ws-2d" if LAYOUTS["ws-2d"].names(mesh.sizes) else "ws-1d"
    if layout == "ws-1d":
        mesh = next(found for found in meshes(slice_) if LAYOUTS["ws-1d"].names(found.sizes))
    axes = batch_axes(mesh.sizes, batch)
    program = lower(model, layout, attention, batch_axes=axes)
    sizes = dict(zip("xyz", (float(n) for n in mesh.sizes), strict=True))
    group = TokenGroup(n_sequences=float(batch), new_tokens=1.0, past_tokens=0.0)
    formats = default_formats(model)
    many = 65536.0
    held = kv_cache_bytes(program, Sizes(program, sizes, [group]), formats, context=many)
    return _CACHE_SHARE * slice_.chip.hbm_bytes.value / (float(np.max(held)) / many)


def _room_panel(model: Model, on: str) -> Panel:
    named = [("", model), *([("multihead, ", twin)] if (twin := multihead_twin(model)) is not None else [])]
    curves = [
        Curve(
            name=f"{prefix}over {cut}",
            x=tuple(map(float, _BATCHES)),
            y=tuple(longest_context(one, on, cut, batch) for batch in _BATCHES),
        )
        for prefix, one in named
        for cut in (("heads",) if prefix else ATTENTION_SHARDINGS)
    ]
    return Panel(
        title="the longest context",
        x=Scale(title="batch", log=True),
        y=Scale(title="context (tokens)", log=True),
        curves=(*curves, *_table_1(model, on)),
    )


def _table_1(model: Model, on: str) -> tuple[Curve, ...]:
    paper = load_pope2022()
    slice_ = parse_pool(on)[0]
    if slice_.chip_name != paper.hardware.chip or slice_.n_chips != int(np.prod(list(paper.fig3.mesh.values()))):
        return ()
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in paper.table1:
        twin = is_papers(row.model.replace("-multihead", ""), model) and "-multihead" in row.model
        if is_papers(row.model, model) or twin:
            name = f"{'multihead, ' if twin else ''}over {row.attention}"
            curves.setdefault(name, []).append((float(row.batch), row.max_context))
    return tuple(
        Curve(
            name=f"{name}, Table 1",
            group=name,
            style="published",
            x=tuple(x for x, _ in points),
            y=tuple(y for _, y in points),
        )
        for name, points in curves.items()
    )
