"""Figure 3: what one feed-forward layer sends over the links, by layout and tokens of a batch."""

import math
from collections.abc import Mapping

from ...hardware_specs.cluster import Slice
from ...hardware_specs.errors import SpecError
from ...models.description import Model
from ...models.layouts import LAYOUTS
from ...validate.published import load_pope2022
from ...validate.volumes import best_2d_mesh, ffn_model, ffn_volume_bytes
from .values import Chart, Curve, Panel, Scale

_LAYOUTS = ("ws-1d-allreduce", "ws-2d", "wg-x", "wg-xy", "wg-xyz")
_TOKENS = tuple(2**i for i in range(11, 25))


def volume_chart(model: Model, slice_: Slice) -> Chart:
    """Bytes a chip sends for one feed-forward layer: the model's on the slice, and the paper's own beside it.

    Raises
    ------
    SpecError : a model without one dense feed-forward part, or one chip

    References
    ----------
    [Pope2022] Figure 3, section 3.2.
    """
    if not model.d_ff:
        raise SpecError(f"{model.name} has no single dense feed-forward part, which Figure 3 is about")
    if slice_.n_chips < 2:
        raise SpecError(f"{slice_} is one chip, which sends nothing")
    figure = load_pope2022().fig3
    own = _panel(f"{model.name} on {slice_}", model.d_model, model.d_ff, mesh_of(model, slice_))
    theirs = _panel(f"d_model {figure.d_model}, d_ff {figure.d_ff} on 4x4x4", figure.d_model, figure.d_ff, figure.mesh)
    points = tuple(
        Curve(
            name=f"{layout}, published",
            group=layout,
            style="published",
            x=tuple(float(tokens) for tokens in volumes),
            y=tuple(volumes.values()),
        )
        for layout, volumes in figure.volumes_gb.items()
    )
    papers = Panel(title=theirs.title, x=theirs.x, y=theirs.y, curves=(*theirs.curves, *points))
    return Chart(
        name="3",
        title=f"Figure 3: {model.name}, what a feed-forward layer sends",
        says="Two matrices, 2 bytes a number; the lowest curve is the layout that sends least",
        panels=(own, papers),
    )


def mesh_of(model: Model, slice_: Slice) -> Mapping[str, float]:
    """The torus as it is; elsewhere the 2D mesh that sends least, its second axis cut in two for the gathers."""
    if len(slice_.shape) == 3:
        return dict(zip("xyz", (float(n) for n in slice_.shape), strict=True))
    n = slice_.n_chips
    if n & (n - 1):
        return {"x": float(n), "y": 1.0, "z": 1.0}
    x, _ = best_2d_mesh(ffn_model(model.d_model, model.d_ff), n, 1024.0)
    rest = int(n / x)
    y = 2 ** ((rest.bit_length() - 1) // 2)
    return {"x": x, "y": float(rest // y), "z": float(y)}


def _panel(title: str, d_model: int, d_ff: int, mesh: Mapping[str, float]) -> Panel:
    model = ffn_model(d_model, d_ff)
    flat = {"x": math.prod(mesh.values())}
    curves = []
    for layout in _LAYOUTS:
        sizes = mesh if LAYOUTS[layout].needs_2d else flat
        at = (int(sizes["x"]), int(sizes.get("y", 1.0)), int(sizes.get("z", 1.0)))
        if LAYOUTS[layout].names(at):
            volumes = tuple(ffn_volume_bytes(model, layout, sizes, float(tokens)) / 1e9 for tokens in _TOKENS)
            curves.append(Curve(name=layout, x=tuple(map(float, _TOKENS)), y=volumes))
    return Panel(
        title=title,
        x=Scale(title="tokens of a batch", log=True),
        y=Scale(title="sent by a chip (GB a layer)", log=True),
        curves=tuple(curves),
    )
