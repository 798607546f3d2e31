"""The layouts, as data: where each tensor of a block lies at each einsum.

A new layout is one entry. The collectives between the forms are derived by `reshard`, the outputs of the einsums by
contraction. Axes are written in the order that keeps every gather at the minor end: E_x F_zy loses y, then z.
"""

from dataclasses import dataclass
from typing import Literal

from ..hardware_specs.errors import UnknownNameError
from .forms import AXES, Form, parse_form

AttentionSharding = Literal["heads", "batch", "context"]
ATTENTION_SHARDINGS: tuple[AttentionSharding, ...] = ("heads", "batch", "context")
# Experts: each cut over all chips, each whole on one of them, or the same with tokens sent there instead of gathered.
ExpertSharding = Literal["tensor", "expert", "exchange"]
EXPERT_SHARDINGS: tuple[ExpertSharding, ...] = ("tensor", "expert", "exchange")


@dataclass(frozen=True, slots=True)
class Layout:
    """Forms of the feed-forward part; projections that carry heads take the same with H for F.

    Parameters
    ----------
    stored : W_in as it lies in memory (W_out is its transpose); layouts with one `stored` share one resident copy
    used : W_in at its einsum; where it differs from `stored`, the weights are gathered
    residual : the activations between blocks
    entry : what W_in multiplies
    hidden : the hidden activations where the activation function (or attention) sees them
    exit : what W_out multiplies
    embedding : the lookup table (V vocabulary); the unembedding is cut like W_in
    needs_2d : the layout is another one's twin where an axis group has size 1
    """

    name: str
    stored: Form
    used: Form
    residual: Form
    entry: Form
    hidden: Form
    exit: Form
    embedding: Form
    needs_2d: bool = False
    source: str = ""

    @property
    def token_axes(self) -> tuple[str, ...]:
        """Axes the sequences are cut over outside attention."""
        return self.residual.axes_of("B")

    @property
    def data_axes(self) -> tuple[str, ...]:
        """Axes that cut the batch and no weight: the chips along them are replicas, but for their experts."""
        return tuple(axis for axis in self.residual.axes_of("B") if axis not in self.stored.axes)

    @property
    def expert_axes(self) -> tuple[str, ...]:
        """Axes that experts, or their d_ff, are cut over where they are stored."""
        return (*self.stored.axes_of("F"), *self.data_axes)

    @property
    def gathered_axes(self) -> tuple[str, ...]:
        """Axes the weights are gathered over for their einsum."""
        return tuple(axis for axis in AXES if axis in self.stored.axes and axis not in self.used.axes)

    def names(self, sizes: tuple[int, int, int]) -> bool:
        """Whether the layout goes by this name on a mesh of sizes X, Y, Z.

        1D layouts take all chips as x. 2D ones need both axis groups, and a gather the last axis it is named for: over an
        axis of size 1 it is the shorter gather's twin.
        """
        size = dict(zip(AXES, sizes, strict=True))
        if not self.needs_2d:
            return size["y"] == size["z"] == 1
        last = self.gathered_axes[-1:]
        return size["x"] > 1 and size["y"] * size["z"] > 1 and all(size[axis] > 1 for axis in last)


def _layout(name: str, forms: str, *, needs_2d: bool, source: str) -> Layout:
    stored, used, residual, entry, hidden, exit_, embedding = (parse_form(text) for text in forms.split())
    return Layout(
        name=name,
        stored=stored,
        used=used,
        residual=residual,
        entry=entry,
        hidden=hidden,
        exit=exit_,
        embedding=embedding,
        needs_2d=needs_2d,
        source=source,
    )


#                    stored    used      residual    entry    hidden     exit       embedding
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        _layout(
            "ws-1d",
            "EF_xyz    EF_xyz    BLE_xyz     BLE      BLF_xyz    BLF_xyz   V_xyzE",
            needs_2d=False,
            source="Pope2022 section 3.2.1",
        ),
        _layout(
            "ws-1d-allreduce",
            "EF_xyz    EF_xyz    BLE         BLE      BLF_xyz    BLF_xyz   V_xyzE",
            needs_2d=False,
            source="Shoeybi2019 section 3",
        ),
        _layout(
            "ws-1d-sequence",
            "EF_xyz    EF_xyz    BL_xyzE     BLE      BLF_xyz    BLF_xyz   V_xyzE",
            needs_2d=False,
            source="Korthikanti2022 section 4.2.2",
        ),
        _layout(
            "dp",
            "EF        EF        B_xyzLE     B_xyzLE  B_xyzLF    B_xyzLF   VE",
            needs_2d=False,
            source="every chip the whole model but its experts: SGLang's and vLLM's data-parallel attention",
        ),
        _layout(
            "dp-tp",
            "EF_zy     EF_zy     B_xLE       B_xLE    B_xLF_zy   B_xLF_zy  V_zyE",
            needs_2d=True,
            source="replicas along x of Megatron's forms along y and z, with experts over all",
        ),
        _layout(
            "ws-2d",
            "E_xF_zy   E_xF_zy   BLE_xyz     BLE_x    BLF_zyx    BLF_zy   VE_xyz",
            needs_2d=True,
            source="Pope2022 section 3.2.2",
        ),
        _layout(
            "wg-x",
            "E_xF_zy   EF_zy     B_xLE_zy    B_xLE    B_xLF_zy   B_xLF_zy   VE_xyz",
            needs_2d=True,
            source="Pope2022 section 3.2.3, appendix A.2",
        ),
        _layout(
            "wg-xy",
            "E_xF_zy   EF_z      B_xyLE_z    B_xyLE   B_xyLF_z   B_xyLF_z   VE_xyz",
            needs_2d=True,
            source="Pope2022 section 3.2.3, appendix A.2",
        ),
        _layout(
            "wg-xyz",
            "E_xF_zy   EF        B_xyzLE     B_xyzLE  B_xyzLF    B_xyzLF   VE_xyz",
            needs_2d=True,
            source="Pope2022 section 3.2.3, appendix A.2",
        ),
    )
}


def get_layout(name: str) -> Layout:
    """Find a feed-forward layout by name."""
    if name not in LAYOUTS:
        raise UnknownNameError("layout", name, LAYOUTS)
    return LAYOUTS[name]


@dataclass(frozen=True, slots=True)
class LayoutName:
    """A layout as a user writes it; None where a part is left open."""

    ffn: str
    attention: AttentionSharding | None = None
    experts: ExpertSharding | None = None


def layout_text(ffn: str, attention: str, experts: str) -> str:
    """A layout as the command line writes it; how experts are cut is left out where they are like all else.

    >>> layout_text("ws-2d", "batch", "tensor"), layout_text("dp", "heads", "exchange")
    ('ws-2d/batch', 'dp/heads/exchange')
    """
    return f"{ffn}/{attention}" + (f"/{experts}" if experts != "tensor" else "")


def parse_layout(text: str) -> LayoutName:
    """Split ``ws-2d/batch`` or ``dp/heads/exchange`` into feed-forward layout, attention and experts.

    >>> parse_layout("wg-xyz"), parse_layout("dp/heads/expert").experts
    (LayoutName(ffn='wg-xyz', attention=None, experts=None), 'expert')
    """
    ffn, *others = text.strip().split("/")
    get_layout(ffn)
    attention: AttentionSharding | None = None
    experts: ExpertSharding | None = None
    for part in others:
        if known := [name for name in ATTENTION_SHARDINGS if name == part]:
            attention = known[0]
        elif cut := [name for name in EXPERT_SHARDINGS if name == part]:
            experts = cut[0]
        else:
            raise UnknownNameError("attention or expert sharding", part, (*ATTENTION_SHARDINGS, *EXPERT_SHARDINGS))
    return LayoutName(ffn, attention, experts)
