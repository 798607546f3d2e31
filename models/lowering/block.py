"""One kind of block as steps: norm, mixer, sum; norm, feed-forward part, sum; or both parts on one normed input."""

from ...hardware_specs.errors import SpecError
from ..blocks import RECURRENT, Block
from ..builder import Builder, contract
from ..description import Model
from ..feed_forward import DenseFfn, ExpertsFfn
from ..forms import Form
from ..layouts import AttentionSharding, ExpertSharding, Layout
from ..lifetimes import RESIDUAL, alive, buffers
from ..mixers.attention import AttentionMixer
from ..mixers.compressed import CompressedMixer
from ..mixers.latent import LatentMixer
from ..mixers.rwkv import RwkvMixer
from ..program import BlockProgram, Step, Tensor
from .attention import AttentionPart, CrossPart
from .compressed import CompressedPart
from .feed_forward import DensePart, ExpertsPart
from .forms import BlockForms
from .latent import LatentPart
from .part import Context, Leaving, Part, share_statistics
from .recurrent import RecurrentPart
from .rwkv import RwkvPart


def n_groups(model: Model, block: Block) -> int:
    """What K counts in a block: K/V heads, or groups of heads of a recurrent mixer; 1 where nothing is shared by heads."""
    mixer = block.mixer
    if isinstance(mixer, AttentionMixer):
        return mixer.n_kv_heads
    if isinstance(mixer, RECURRENT):
        return max(mixer.recurrence(model.d_model).n_groups, 1)
    return 1


def lower_block(
    model: Model,
    block: Block,
    kind: str,
    n_layers: int,
    layout: Layout,
    attention: AttentionSharding,
    experts: ExpertSharding,
    batch_axes: tuple[str, ...],
    head_axes: tuple[str, ...],
    *,
    looped: bool,
    materialised_scores: bool,
    both_ways: bool,
) -> BlockProgram:
    """Lower one kind of block.

    Parameters
    ----------
    both_ways : every token meets every other

    Raises
    ------
    SpecError : the layout cuts d_model where experts want it whole, or the block is parallel and has experts
    """
    attends = isinstance(block.mixer, AttentionMixer) and block.mixer.own_kv
    if both_ways and block.mixer is not None and not attends:
        raise SpecError(f"{model.name} is described and counted; read both ways, only plain attention has a plan yet")
    if block.cross is not None and model.block == "parallel":
        raise SpecError(f"{model.name} is described and counted; cross attention in a parallel block has no plan yet")
    if model.d_embedding is not None:
        raise SpecError(
            f"{model.name} is described and counted; a model embedded {model.d_embedding} wide has no plan yet"
        )
    if isinstance(block.ffn, ExpertsFfn) and (layout.used.axes_of("E") or model.block == "parallel"):
        raise SpecError(
            f"{model.name}: experts take whole tokens in a serial block; {layout.name} cuts d_model for them"
        )
    context = Context(
        model=model,
        block=block,
        layout=layout,
        forms=BlockForms(layout, attention, experts, batch_axes, head_axes, n_groups(model, block)),
        builder=Builder(looped=looped),
        scores=materialised_scores,
        both_ways=both_ways,
    )
    context.role = "mixer"
    mixer = _mixer(context)
    cross = None if block.cross is None else CrossPart(context, block.cross)
    context.role = "weight"
    ffn = _ffn(context)
    _run(context, mixer, cross, ffn)
    if block.n_other_params:
        context.vector("others", Form((("V", ()),)))
    norm = model.n_norms(block) * (model.norm_scale + model.norm_bias)
    norms = Tensor(name="norms", form=Form((("E", ()),)), role="end", copies=norm)
    steps = tuple(context.builder.steps)
    of_input, of_input_alive = _keep_input(context, cross, looped=looped)
    return BlockProgram(
        kind=kind,
        block=block,
        n_layers=n_layers,
        steps=steps,
        weights=(*context.stored.values(), norms, *context.vectors),
        state=tuple(context.state),
        alive=alive(steps),
        buffers=buffers(steps),
        of_input=of_input,
        of_input_alive=of_input_alive,
    )


def _keep_input(
    context: Context, cross: CrossPart | None, *, looped: bool
) -> tuple[tuple[Step, ...], tuple[tuple[Tensor, ...], ...]]:
    """The steps that keep what an encoder read, and what is held at each: what it gave, to the last of them."""
    if cross is None:
        return (), ()
    builder, given = Builder(looped=looped), encoded(context.forms)
    cross.keep(given, builder)
    return tuple(builder.steps), tuple((given, *held) for held in alive(builder.steps))


def encoded(forms: BlockForms) -> Tensor:
    """What an encoder gives, as every block of the decoder multiplies it."""
    return Tensor(name="encoded", form=forms.entry)


def _mixer(context: Context) -> Part | None:
    mixer = context.block.mixer
    if mixer is None:
        return None
    if isinstance(mixer, AttentionMixer):
        return AttentionPart(context, mixer)
    if isinstance(mixer, LatentMixer):
        return LatentPart(context, mixer)
    if isinstance(mixer, CompressedMixer):
        return CompressedPart(context, mixer)
    return RwkvPart(context, mixer) if isinstance(mixer, RwkvMixer) else RecurrentPart(context, mixer)


def _ffn(context: Context) -> Part | None:
    ffn = context.block.ffn
    if ffn is None:
        return None
    return DensePart(context, ffn) if isinstance(ffn, DenseFfn) else ExpertsPart(context, ffn)


def _run(context: Context, mixer: Part | None, cross: CrossPart | None, ffn: Part | None) -> None:
    residual = Tensor(name=RESIDUAL, form=context.forms.residual)
    b = context.builder
    if context.model.block == "parallel" and mixer is not None and ffn is not None:
        x = normed(b, context.forms, residual, "", "project")
        x, made = _project(context, x, (mixer, ffn), "project")
        leaving = [*mixer.run(x, made), *ffn.run(x, made)]
        _merge(context, leaving, "merge", "update", residual, made)
        return
    if mixer is not None:
        x = normed(b, context.forms, residual, "attention ", "project")
        x, made = _project(context, x, (mixer,), "project")
        _merge(context, mixer.run(x, made), "attention out", "attention update", residual, made)
    if cross is not None:
        x = normed(b, context.forms, residual, "cross ", "cross project")
        x, made = _project(context, x, (cross,), "cross project")
        _merge(context, cross.run(x, made), "cross out", "cross update", residual, made)
    if ffn is not None:
        x = normed(b, context.forms, residual, "ffn ", "ffn in")
        x, made = _project(context, x, (ffn,), "ffn in")
        _merge(context, ffn.run(x, made), "ffn out", "ffn update", residual, made)


def normed(b: Builder, forms: BlockForms, residual: Tensor, which: str, partner: str) -> Tensor:
    """Norm where E is least cut: in the residual's form if E is whole there, else gathered to the entry's.

    What is still cut there has its statistics gathered (N: each chip's sum of squares, for layernorm also its sum)
    and added up by every chip.
    """
    whole = not residual.form.axes_of("E")
    entry = Form(tuple(item for item in forms.entry.dims if item[0] in residual.form.letters))
    goal = Form(residual.form.dims) if whole else entry
    (x,) = b.bring([(Tensor(name=f"{which}normed", form=residual.form), goal)], partner=partner)
    share_statistics(b, f"{which}norm statistics", x.form, "E", "N")
    b.pointwise("norm", f"{which}norm", [x], [x])
    return x


def _project(context: Context, x: Tensor, parts: tuple[Part, ...], name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Enter the tensor-parallel region: gather x, multiply, and sum what is partial into the declared forms."""
    b = context.builder
    entering = [(part, weight, out) for part in parts for weight, out in part.entering]
    if not entering:
        return x, {}
    weights = context.weights(tuple(weight for _, weight, _ in entering), name)
    (x,) = b.bring([(x, context.forms.entry)], partner=name)
    mixed = {weight: t for part in parts for weight, t in part.mixed(x).items()}
    made = b.matmul(name, [(mixed.get(w.name, x), w) for w in weights], tuple(out for _, _, out in entering))
    brought = b.bring([(t, part.goal(out)) for t, (part, _, out) in zip(made, entering, strict=True)], partner=name)
    return x, {tensor.name: tensor for tensor in brought}


def _merge(
    context: Context, leaving: list[Leaving], name: str, update: str, residual: Tensor, made: dict[str, Tensor]
) -> None:
    """Leave the tensor-parallel region: multiply, add equal partial sums, reduce once, add the residual."""
    b = context.builder
    there = [tensor for tensor, weight in leaving if weight is None]
    sums = [*there, *_multiplied(context, [(t, w) for t, w in leaving if w is not None], name, update)]
    first, *others = sums
    if others and set(others[0].form.partial) < set(first.form.partial):
        (first,) = b.bring([(first, others[0].form)], partner=name)
    sums = [first, *others]
    alike = [tensor for tensor in others if tensor.form == first.form and tensor.name != first.name]
    if alike:
        b.pointwise("add", f"{name} sum", [first, *alike], [first])
        sums = [tensor for tensor in sums if tensor not in alike]
    updates = b.bring([(tensor, residual.form) for tensor in sums], partner=name)
    if "receptance" in made:
        b.pointwise("gate", "receptance gate", [updates[0], made["receptance"]], [updates[0]])
    if context.model.post_norms:
        if len(updates) > 1:
            b.pointwise("add", f"{name} sum of parts", updates, updates[:1])
            updates = updates[:1]
        share_statistics(b, f"{name} post norm statistics", updates[0].form, "E", "R")
        b.pointwise("norm", f"{name} post norm", [updates[0]], [updates[0]])
    b.pointwise("add", f"{name} add", [residual, *updates], [residual])


def _multiplied(context: Context, parts: list[tuple[Tensor, str]], name: str, update: str) -> list[Tensor]:
    """What the matrices down make: one tensor where their sums are equal partial sums."""
    if not parts:
        return []
    b = context.builder
    weights = context.weights(tuple(weight for _, weight in parts), name)
    xs = b.bring([(x, _exit(context, x)) for x, _ in parts], partner=name)
    pairs = list(zip(xs, weights, strict=True))
    alike = len({contract(x.form, w.form) for x, w in pairs}) == 1
    made = b.matmul(name, pairs, tuple(update if alike else f"{update} of {w.name}" for w in weights))
    return list(dict.fromkeys(made))


def _exit(context: Context, x: Tensor) -> Form:
    """What a matrix down multiplies: the layout's exit, by what its hidden dimension is called."""
    forms, exit_ = context.forms, context.forms.exit
    letters = x.form.letters
    if "H" in letters or "T" in letters:
        per_head = forms.per_head(exit_, "H")
        return Form(tuple((letters[i], axes) for i, (_, axes) in enumerate(per_head.dims)))
    return Form(tuple((letters[i], axes) for i, (_, axes) in enumerate(exit_.dims)))
