"""Rows of the catalogues, for `show`."""

from collections.abc import Callable, Mapping
from typing import Any

from ...hardware_specs.catalogue import get_chip, load_chips
from ...hardware_specs.chip import Torus
from ...hardware_specs.cluster import build_graph, meshes, parse_pool, wraps
from ...hardware_specs.prices import Payment, chip_price
from ...hardware_specs.units import format_bytes
from ...models.catalogue import get_model, load_models
from ...models.layouts import LAYOUTS, get_layout
from ...simulator.cost.calibrated import load_engine_fits
from ...simulator.cost.engines import ENGINES, get_engine
from ...simulator.workload.presets import get_preset, load_presets
from ..drafts import DRAFT_PAIRS, draft_of
from .model_rows import model_in_full, model_row
from .text import console, table

Row = dict[str, Any]


def _chips() -> list[Row]:
    rows = []
    for chip in load_chips().values():
        price = chip_price(chip.name, Payment())
        peak = chip.dense_flop_per_s.get("bf16") or next(iter(chip.dense_flop_per_s.values()))
        rows.append(
            {
                "chip": chip.name,
                "bf16 Tflop/s": f"{peak.value / 1e12:.4g}",
                "HBM": format_bytes(chip.hbm_bytes.value),
                "HBM GB/s": f"{chip.hbm_bytes_per_s.value / 1e9:.4g}",
                "links": chip.scale_up.kind,
                "$/h": "-" if price is None else f"{price.usd_per_h:.2f}",
            }
        )
    return rows


def _models() -> list[Row]:
    return [model_row(model) for model in load_models().values()]


def _layouts() -> list[Row]:
    return [
        {
            "layout": x.name,
            "W_in stored": str(x.stored),
            "W_in used": str(x.used),
            "between blocks": str(x.residual),
            "source": x.source,
        }
        for x in LAYOUTS.values()
    ]


def _clusters() -> list[Row]:
    rows = []
    for chip in load_chips().values():
        link = chip.scale_up
        torus = isinstance(link, Torus)
        rows.append(
            {
                "chip": chip.name,
                "kind": f"{link.n_dims}D torus" if isinstance(link, Torus) else link.kind,
                "domain": link.max_chips if isinstance(link, Torus) else link.domain_chips,
                "GB/s a direction": f"{(link.link_bytes_per_s if isinstance(link, Torus) else link.bytes_per_s).value / 1e9:.4g}"
                + (" a link" if torus else " a chip"),
                "network GB/s": "-"
                if chip.scale_out_bytes_per_s is None
                else f"{chip.scale_out_bytes_per_s.value / 1e9:.4g}",
            }
        )
    return rows


def _cluster(pool: str) -> Row:
    """One slice, its graph and its meshes; or what a chip's slices are made of."""
    if ":" not in pool:
        return next(row for row in _clusters() if row["chip"] == get_chip(pool).name)
    slice_ = parse_pool(pool)[0]
    graph = build_graph(slice_)
    link = slice_.chip.scale_up
    shown = meshes(slice_)
    return {
        "slice": str(slice_),
        "chips": slice_.n_chips,
        "vertices": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "wrap-around": list(wraps(link, slice_.shape)) if isinstance(link, Torus) else "no torus",
        "meshes (x, y, z)": ["x".join(map(str, mesh.sizes)) for mesh in shown],
    }


def _engine(name: str) -> Row:
    """What an engine runs, and the constants it was fitted with."""
    profile, fit = get_engine(name), load_engine_fits().get(name)
    return {
        "engine": profile.name,
        "source": profile.source,
        "layouts": ", ".join(profile.layouts),
        "kernels": profile.stack or "by constants",
        "runs fitted": len(fit.residuals) if fit is not None else 0,
        "constants": {} if fit is None else dict(fit.constants),
    }


def _engines() -> list[Row]:
    columns = ("engine", "kernels", "runs fitted", "source")
    return [{column: _engine(name)[column] for column in columns} for name in ENGINES]


def _workloads() -> list[Row]:
    return [
        {"workload": preset.name, "requests a task": preset.n_requests, "is": preset.says}
        for preset in load_presets().values()
    ]


def _drafts() -> list[Row]:
    return [
        {"model": pair.model, "draft": pair.draft, "made": pair.made, "source": pair.source} for pair in DRAFT_PAIRS
    ]


def _drafts_of(name: str) -> Row:
    """The pair of a model."""
    model = get_model(name).name
    draft = draft_of(model)
    return next(row for row in _drafts() if (row["model"], row["draft"]) == (model, draft))


LISTS: Mapping[str, Callable[[], list[Row]]] = {
    "chips": _chips,
    "models": _models,
    "layouts": _layouts,
    "clusters": _clusters,
    "engines": _engines,
    "workloads": _workloads,
    "drafts": _drafts,
}
ONE: Mapping[str, Callable[[str], Row]] = {
    "chips": lambda name: get_chip(name).model_dump(mode="json"),
    "models": lambda name: model_in_full(get_model(name)),
    "layouts": lambda name: {field: str(getattr(get_layout(name), field)) for field in get_layout(name).__slots__},
    "clusters": _cluster,
    "engines": _engine,
    "workloads": lambda name: get_preset(name).model_dump(mode="json", exclude_defaults=True),
    "drafts": _drafts_of,
}


# Columns that a list does not break: names, and numbers that stand under each other.
_NAMES = ("model",)
_NUMBERS = ("parameters", "active", "layers", "KV B/token")


def print_rows(found: list[Row] | Row) -> None:
    """A table of many, or the fields of one."""
    out = console()
    if isinstance(found, list):
        made = table(*found[0], right=_NUMBERS, whole=_NAMES)
        for row in found:
            made.add_row(*(str(value) for value in row.values()))
        out.print(made, highlight=False)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            out.print(f"{name}:", highlight=False)
            for key, part in value.items():
                out.print(f"  {key}: {part}", highlight=False, soft_wrap=True)
        else:
            out.print(f"{name}: {value}", highlight=False, soft_wrap=True)
