"""Everything a phase can be on one slice: settings with their meshes, and the reasons for what is left out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.cluster import Mesh, Slice, meshes, splits
from ..models.blocks import RECURRENT, Block
from ..models.description import Model
from ..models.feed_forward import DenseFfn, ExpertsFfn
from ..models.formats import Formats
from ..models.forms import AXES
from ..models.layouts import EXPERT_SHARDINGS, LAYOUTS, AttentionSharding, ExpertSharding, Layout, parse_layout
from ..models.mixers.attention import AttentionMixer
from ..models.mixers.latent import LatentMixer
from ..simulator.cost.engines import get_engine
from ..simulator.cost.phases import PhaseSetting, engine_microbatches
from ..simulator.cost.price import Engine
from ..simulator.types import PhaseName
from .request import PlanRequest

_MAX_MICROBATCHES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate of a phase: enough to price it again alone."""

    setting: PhaseSetting
    slice: Slice
    mesh_index: int
    batch: int
    n_microbatches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Candidates of one phase that share a setting: `mesh` indexes `meshes`, one entry a candidate."""

    setting: PhaseSetting
    slice: Slice
    meshes: tuple[Mesh, ...]
    mesh: NDArray[np.int64]
    batch: NDArray[np.float64]
    n_microbatches: NDArray[np.float64]

    def choice(self, i: int) -> Choice:
        """Candidate `i` by itself."""
        return Choice(
            setting=self.setting,
            slice=self.slice,
            mesh_index=int(self.mesh[i]),
            batch=int(self.batch[i]),
            n_microbatches=int(self.n_microbatches[i]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """A setting that can lie on a slice: `chosen` are the places in `meshes` of the meshes it lies on."""

    setting: PhaseSetting
    slice: Slice
    meshes: tuple[Mesh, ...]
    chosen: tuple[int, ...]


def phase_cells(
    request: PlanRequest, slice_: Slice, phase: PhaseName, engine: Engine, refused: Counter[str]
) -> Iterator[Cells]:
    """Enumerate a phase on a slice, counting what is refused before it is priced."""
    batches = request.prefill_batches if phase == "prefill" else request.decode_batches
    for laid in phase_settings(request, slice_, phase, engine, refused):
        rows = _rows(laid.setting, laid.chosen, batches, engine, refused)
        if rows:
            yield _cells(laid.setting, slice_, laid.meshes, rows)


def phase_settings(
    request: PlanRequest, slice_: Slice, phase: PhaseName, engine: Engine, refused: Counter[str]
) -> Iterator[Laid]:
    """Everything a phase can be on a slice but for its batch; what is refused counts once a batch."""
    batches = request.prefill_batches if phase == "prefill" else request.decode_batches
    for pp, dp in splits(slice_):
        if not request.allows_split(pp, dp) or (pp > 1 and not (engine.pipelines and request.model.encoder is None)):
            continue
        if pp > request.model.n_layers:
            refused["more pipeline stages than layers"] += len(batches)
            continue
        usable = wanted_meshes(request, slice_, pp, dp)
        for cut in _cuts(request, slice_, phase):
            own = _own_meshes(request, cut, usable, phase)
            chosen = _fitting(request.model, cut, usable, own, len(batches), refused)
            if not chosen:
                continue
            for formats, page_size in product(request.formats, request.page_sizes):
                setting = PhaseSetting(
                    model=request.model,
                    phase=phase,
                    layout=cut.layout.name,
                    attention=cut.attention,
                    experts=cut.experts,
                    formats=formats,
                    workload=request.workload,
                    head_axes=cut.head_axes,
                    pp=pp,
                    dp=dp,
                    page_size=page_size,
                )
                yield Laid(setting=setting, slice=slice_, meshes=usable, chosen=tuple(chosen))


def wanted_meshes(request: PlanRequest, slice_: Slice, pp: int, dp: int) -> tuple[Mesh, ...]:
    """Meshes the request allows, balanced ones first: of equals, the first is taken."""
    found = [m for m in meshes(slice_, pp, dp) if request.mesh in (None, m.sizes) and request.tp in (None, m.tp)]
    return tuple(sorted(found, key=lambda m: -min(m.sizes)))


def _named(request: PlanRequest, phase: PhaseName) -> tuple[str, ...] | None:
    """The layouts the user allows for a phase, None for all."""
    return request.prefill_layouts if phase == "prefill" else request.decode_layouts


@dataclass(frozen=True, slots=True)
class Cut:
    """How one candidate cuts a model, on whatever mesh."""

    layout: Layout
    attention: AttentionSharding
    experts: ExpertSharding
    head_axes: tuple[str, ...]


def _cuts(request: PlanRequest, slice_: Slice, phase: PhaseName) -> Iterator[Cut]:
    """Layouts the request names, else those its engine can run, with the axes to cut the heads over."""
    profile = get_engine(request.engine_name(slice_))
    for text in _named(request, phase) or _open_layouts(request, profile.layouts, phase):
        name = parse_layout(text)
        ffn, attention = name.ffn, name.attention
        shardings = (name.experts,) if name.experts else _expert_shardings(request.model, LAYOUTS[ffn])
        for sharding in profile.attention if attention is None else (attention,):
            # splitting the cache over context is for decode, which reads all of it for one token
            if sharding == "context" and phase == "prefill" and attention is None:
                continue
            if ffn == "wg-xyz" and sharding != "batch" and attention is None and "batch" in profile.attention:
                continue
            for head_axes, experts in product(_head_choices(LAYOUTS[ffn]), shardings):
                yield Cut(LAYOUTS[ffn], sharding, experts, head_axes)


def _expert_shardings(model: Model, layout: Layout) -> tuple[ExpertSharding, ...]:
    """Ways to cut experts worth a look: tokens are sent to them where the batch is cut over the chips that hold them."""
    if not model.has_experts:
        return ("tensor",)
    return EXPERT_SHARDINGS if layout.data_axes else ("tensor", "expert")


def _open_layouts(request: PlanRequest, layouts: tuple[str, ...], phase: PhaseName) -> tuple[str, ...]:
    """Layouts for a phase that the request leaves open: the engine's, and what can share the other phase's weights."""
    other = _named(request, "decode" if phase == "prefill" else "prefill") or ()
    stored = {LAYOUTS[parse_layout(text).ffn].stored for text in other}
    alike = [name for name, x in LAYOUTS.items() if x.stored in stored]
    # replicas within a mesh are the replicas outside it, unless they have experts in common
    data = [name for name, x in LAYOUTS.items() if x.data_axes and request.model.has_experts]
    return tuple(dict.fromkeys((*layouts, *alike, *data)))


def _head_choices(layout: Layout) -> tuple[tuple[str, ...], ...]:
    """Heads cut over every axis, padded where they do not divide; or over fewer, attention replicated over the rest."""
    if layout.data_axes:
        return (tuple(axis for axis in AXES if axis not in layout.data_axes),)
    fewer = tuple(axis for axis in AXES if axis != "x")
    return (AXES, fewer) if layout.needs_2d else (AXES,)


def _own_meshes(request: PlanRequest, cut: Cut, usable: tuple[Mesh, ...], phase: PhaseName) -> list[int]:
    """Indices of the meshes on which a layout goes by its own name."""
    named = _named(request, phase) is not None
    return [i for i, mesh in enumerate(usable) if is_canonical(cut, mesh.sizes, named=named)]


def _fitting(
    model: Model,
    cut: Cut,
    usable: tuple[Mesh, ...],
    own: list[int],
    n_batches: int,
    refused: Counter[str],
) -> list[int]:
    """Those of the `own` meshes a layout can lie on."""
    chosen = []
    for i in own:
        reason = misfit(model, cut, usable[i].sizes)
        if reason == _REPLICATION_FOR_NOTHING:
            continue
        if reason is None:
            chosen.append(i)
        else:
            refused[reason] += n_batches
    return chosen


def is_canonical(cut: Cut, sizes: tuple[int, int, int], *, named: bool) -> bool:
    """Whether a layout on a mesh goes by this name.

    On one chip all are alike and go by the engine's 1D form over heads, unless the user `named` another.
    """
    if sizes == (1, 1, 1) and not named:
        return cut.layout.name in ("ws-1d", "ws-1d-allreduce") and cut.attention == "heads" and cut.experts == "tensor"
    return cut.layout.names(sizes)


_REPLICATION_FOR_NOTHING = "heads divide, no need to replicate attention"


def misfit(model: Model, cut: Cut, sizes: tuple[int, int, int]) -> str | None:
    """Why a layout of a model cannot lie on a mesh, or None."""
    size = dict(zip(AXES, sizes, strict=True))
    for form in (cut.layout.stored, cut.layout.used, cut.layout.residual, cut.layout.hidden, cut.layout.embedding):
        for dim, axes in form.dims:
            if dim == "E" and model.d_model % _product(size, axes):
                return "d_model does not divide over the mesh"
    for block in model.every_block:
        reason = _heads_misfit(model, block, cut, size) or _ffn_misfit(model, block, cut, size)
        if reason is not None:
            return reason
    return None


def _heads_misfit(model: Model, block: Block, cut: Cut, size: dict[str, int]) -> str | None:
    """Why the heads of a block cannot be cut so."""
    n_heads, n_groups = head_counts(model, block)
    shards = _product(size, cut.head_axes)
    if cut.head_axes != AXES and not cut.layout.data_axes:
        if n_heads % _product(size, AXES) == 0:
            return _REPLICATION_FOR_NOTHING
        if n_heads % shards:
            return "n_heads does not divide over the axes chosen"
    grouped = 1 < n_groups < n_heads
    if grouped and (n_heads % shards or (n_groups % shards and shards % n_groups)):
        return "query groups do not divide over the mesh"
    return None


def head_counts(model: Model, block: Block) -> tuple[int, int]:
    """Heads of a block's mixer, and the groups of them that share something; none without a mixer."""
    mixer = block.mixer
    if isinstance(mixer, AttentionMixer):
        return mixer.n_heads, mixer.n_kv_heads
    if isinstance(mixer, LatentMixer):
        return mixer.n_heads, 1
    if isinstance(mixer, RECURRENT):
        shape = mixer.recurrence(model.d_model)
        return shape.n_heads, shape.n_groups
    return 0, 0


def _ffn_misfit(model: Model, block: Block, cut: Cut, size: dict[str, int]) -> str | None:
    """Why the feed-forward part of a block cannot be cut so."""
    layout, ffn = cut.layout, block.ffn
    for form in (layout.stored, layout.used, layout.hidden):
        shards = _product(size, form.axes_of("F"))
        if isinstance(ffn, DenseFfn) and ffn.d_ff % shards:
            return "d_ff does not divide over the mesh"
        if isinstance(ffn, ExpertsFfn) and ffn.d_ff_shared % shards:
            return "d_ff of the shared experts does not divide over the mesh"
    if not isinstance(ffn, ExpertsFfn):
        return None
    if layout.used.axes_of("E") or model.block == "parallel":
        return "experts take whole tokens, and the layout cuts d_model for them"
    shards = _product(size, layout.expert_axes)
    if cut.experts == "tensor":
        return "d_ff of the experts does not divide over the mesh" if ffn.d_ff % shards else None
    return "the experts do not divide over the mesh" if ffn.n_experts % shards else None


def _product(size: dict[str, int], axes: tuple[str, ...]) -> int:
    product = 1
    for axis in axes:
        product *= size[axis]
    return product


def _rows(
    setting: PhaseSetting, chosen: Sequence[int], batches: tuple[int, ...], engine: Engine, refused: Counter[str]
) -> list[tuple[int, int, int]]:
    """Every (mesh, batch, micro-batches) of a setting; what does not divide over an axis lies whole along it."""
    rows = []
    for batch in batches:
        if batch % setting.dp:
            refused["batch does not divide over the replicas"] += len(chosen)
        else:
            choices = microbatch_choices(setting, batch // setting.dp, engine)
            rows += [(i, batch, n_micro) for n_micro, i in product(choices, chosen)]
    return rows


def _cells(setting: PhaseSetting, slice_: Slice, usable: tuple[Mesh, ...], rows: list[tuple[int, int, int]]) -> Cells:
    mesh, batch, n_microbatches = np.array(rows).T
    return Cells(
        setting=setting,
        slice=slice_,
        meshes=usable,
        mesh=mesh,
        batch=batch.astype(np.float64),
        n_microbatches=n_microbatches.astype(np.float64),
    )


def microbatch_choices(setting: PhaseSetting, batch: int, engine: Engine) -> list[int]:
    """Micro-batches to try: the engine's own rule, or powers of two (and the stage count) that divide the batch.

    Without a pipeline, prefill may still be cut to fit its activations into memory; decode gains nothing from it.
    """
    if engine.microbatch_tokens is not None:
        new_tokens = setting.workload.input_tokens if setting.phase == "prefill" else 1
        return [engine_microbatches(batch, new_tokens, setting.pp, engine.microbatch_tokens)]
    if setting.pp == 1 and setting.phase == "decode":
        return [1]
    powers = {2**i for i in range(_MAX_MICROBATCHES.bit_length())} | {setting.pp}
    limit = _MAX_MICROBATCHES if setting.phase == "prefill" else 4 * setting.pp
    return sorted(n for n in powers if n <= limit and batch % n == 0)


def stored_key(setting: PhaseSetting) -> tuple[object, ...]:
    """What phases that share one copy of the weights must have in common of how they lie."""
    return LAYOUTS[setting.layout].stored, LAYOUTS[setting.layout].data_axes, setting.experts == "tensor"


def formats_key(formats: Formats) -> tuple[str, ...]:
    """What tells formats apart in a plan."""
    roles = ("weight", "mixer", "expert", "end", "kv")
    return tuple(dtype.name for role in roles if (dtype := formats.of(role)) is not None)
