"""Encoders before a decoder, and models read both ways: their work in closed form, and what they keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shardwise.models.blocks import Block
from shardwise.models.catalogue import get_model
from shardwise.models.description import Model
from shardwise.models.layouts import ATTENTION_SHARDINGS, LAYOUTS
from shardwise.models.lower import lower
from shardwise.models.mixers.attention import AttentionMixer, Reach
from shardwise.models.program import Append, Attention
from shardwise.models.sizes import Sizes, TokenGroup
from shardwise.models.work import step_work
from shardwise.tests.strategies import BF16, small_model


def flop(model: Model, group: TokenGroup, *, reads_input: bool = True) -> float:
    """Matmuls and attention of a pass on one chip."""
    program = lower(model, "ws-1d-allreduce", "heads", reads_input=reads_input)
    sizes = Sizes(program, {}, [group])
    return sum(
        part.count * float(step_work(step, sizes.at(part), BF16).flop) for part in program.parts for step in part.steps
    )


def group(new: float, past: float, read: float | None = None, n: float = 1.0) -> TokenGroup:
    """Tokens of a decoder, and of the input its encoder read."""
    return TokenGroup(n_sequences=n, new_tokens=new, past_tokens=past, input_tokens=read)


@pytest.mark.parametrize("name", ["t5-small", "t5-11b", "ul2-20b"])
@pytest.mark.parametrize("n", [1.0, 512.0])
def test_a_t5_reads_its_input_in_the_flop_of_its_closed_form(name: str, n: float) -> None:
    """Vaswani et al. 2017, section 3.2: projections, pairs of queries and keys, two or three matrices of the hidden part."""
    model = get_model(name)
    (encoder,), (decoder,) = model.encoder.blocks.values(), model.kinds.values()
    d, layers = model.d_model, model.n_layers
    width = encoder.mixer.n_heads * encoder.mixer.d_head
    ffn = (3 if encoder.ffn.gated else 2) * d * encoder.ffn.d_ff
    reading = layers * (2 * n * (4 * d * width + ffn) + 4 * n * n * width)
    kept = layers * 2 * n * 2 * d * width
    # one start token: its own attention, that over the input, and the logits
    start = layers * (2 * (4 * d * width + 2 * d * width + ffn) + 4 * width * (1 + n)) + 2 * d * model.vocab_size
    assert decoder.cross.n_heads == encoder.mixer.n_heads
    assert flop(model, group(1.0, 0.0, n)) == pytest.approx(reading + kept + start, rel=1e-12)
    later = start + layers * 4 * width * 5
    assert flop(model, group(1.0, 5.0, n), reads_input=False) == pytest.approx(later, rel=1e-12)


def decoder_only(model: Model, n_layers: int) -> Model:
    """The decoder of a T5 without its encoder, so many layers deep."""
    (block,) = model.kinds.values()
    fields = model.model_dump(exclude={"stack", "blocks", "encoder", "n_layers"}) | {"n_layers": n_layers}
    fields |= {"blocks": {"decoder": block.model_copy(update={"cross": None})}, "n_norms_per_block": 2}
    return Model.model_validate(fields | {"stack": [{"repeat": n_layers, "blocks": ["decoder"]}]})


@pytest.mark.parametrize("name", ["t5-base", "t5-large", "ul2-20b"])
@pytest.mark.parametrize("n", [128.0, 512.0])
def test_twice_the_parameters_cost_an_encoder_decoder_what_half_of_them_cost_a_decoder(name: str, n: float) -> None:
    """Raffel et al. 2020, section 3.2.2 and table 2: L layers each way cost about M, as L layers of a language model do.

    A language model of 2L layers costs 2M. What is not counted there is attention over the input, a sixth of a layer of both
    stacks together at most: "about" is within a fifth.
    """
    both = get_model(name)
    layers = both.n_layers

    def all_flop(model: Model) -> float:
        if model.encoder is None:
            return flop(model, group(n, 0.0)) + flop(model, group(n, n))
        return flop(model, group(n, 0.0, n))

    half, whole = decoder_only(both, layers), decoder_only(both, 2 * layers)
    cost, as_half, as_whole = (all_flop(model) for model in (both, half, whole))
    assert cost == pytest.approx(as_half, rel=0.2)
    assert cost < as_whole
    assert abs(cost - as_half) < abs(cost - as_whole)


@given(n=st.integers(1, 4096).map(float), batch=st.integers(1, 64).map(float))
def test_every_token_of_a_model_read_both_ways_meets_every_other(n: float, batch: float) -> None:
    causal = small_model()
    both = Model.model_validate(causal.model_dump() | {"bidirectional": True})
    programs = [lower(model, "ws-1d-allreduce", "heads") for model in (causal, both)]
    pairs = []
    for program in programs:
        sizes = Sizes(program, {}, [group(n, 0.0, n=batch)])
        (step,) = (step for step in program.only.steps if isinstance(step, Attention))
        pairs.append(float(step_work(step, sizes, BF16).flop) / (4 * 16))
    assert pairs[0] == pytest.approx(batch * 64 * n * (n + 1) / 2)
    assert pairs[1] == batch * 64 * n * n


def test_a_model_read_both_ways_keeps_nothing_and_gives_no_logits() -> None:
    program = lower(get_model("bert-base"), "ws-1d-allreduce", "heads")
    assert program.only.state == ()
    assert not any(isinstance(step, Append) for step in program.only.steps)
    assert program.last == ()
    idle = lower(get_model("bert-base"), "ws-1d-allreduce", "heads", reads_input=False)
    assert not any(part.steps for part in idle.parts)
    assert idle.only.weights == program.only.weights


@pytest.mark.parametrize(("reach", "met"), [(None, 4096.0), (Reach(pattern="window", size=128), 128.0)])
def test_a_window_is_met_on_both_sides(reach: Reach | None, met: float) -> None:
    mixer = AttentionMixer(n_heads=64, n_kv_heads=64, d_head=16, reach=reach)
    stack = {"blocks": {"one": Block(mixer=mixer)}, "stack": [{"repeat": 3, "blocks": ["one"]}], "bidirectional": True}
    program = lower(small_model(**stack), "ws-1d-allreduce", "heads")
    (step,) = (step for step in program.only.steps if isinstance(step, Attention))
    work = step_work(step, Sizes(program, {}, [group(4096.0, 0.0)]), BF16)
    assert work.flop == 4 * 64 * 16 * 4096.0 * met
    # every key is read once, whoever meets it
    assert work.kv_bytes == 2 * 2 * 64 * 16 * 4096.0


@pytest.mark.parametrize("n", [512.0, 510.0])
def test_blocks_behind_a_pooling_do_the_work_of_the_tokens_that_are_left(n: float) -> None:
    """Dai et al. 2020, section 2.2: each block of layers halves the sequence; a decoder has all of it again."""
    model = get_model("funnel-small")
    program = lower(model, "ws-1d-allreduce", "heads")
    sizes = Sizes(program, {}, [group(n, 0.0)])
    found = {b.kind: sum(float(step_work(s, sizes.of(b), BF16).flop) for s in b.steps) for b in program.blocks}
    lengths = {"whole": n, "half": -(-n // 2), "quarter": -(-n // 4)}
    d, d_ff = model.d_model, 3072
    assert found == {kind: 2 * k * (4 * d * d + 2 * d * d_ff) + 4 * k * k * d for kind, k in lengths.items()}
    assert model.layers == ("whole",) * 4 + ("half",) * 4 + ("quarter",) * 4 + ("whole",) * 2


def test_what_is_kept_of_the_input_grows_with_it_alone() -> None:
    program = lower(get_model("t5-11b"), "ws-1d-allreduce", "heads")
    own, cross = program.only.state
    for past, read in ((1.0, 512.0), (100.0, 512.0), (1.0, 1024.0)):
        sizes = Sizes(program, {}, [group(0.0, past, read, n=3.0)]).of(program.only)
        width = 2 * 3 * 128 * 128
        assert (float(sizes.total(own)), float(sizes.total(cross))) == (width * past, width * read)


def test_encoders_lie_in_every_layout_their_decoders_do() -> None:
    """A layout changes where work is done, not how much of it there is, but for what it replicates."""
    model, tokens = get_model("t5-large"), group(1.0, 0.0, 64.0, n=16.0)
    for name, layout in LAYOUTS.items():
        mesh = {"x": 2.0, "y": 2.0, "z": 2.0} if layout.needs_2d else {"x": 8.0}
        for attention in ATTENTION_SHARDINGS:
            program = lower(model, name, attention)
            sizes = Sizes(program, mesh, [tokens])
            parts = [part for part in program.parts if part.block is not None]
            done = 8 * sum(p.count * float(step_work(s, sizes.at(p), BF16).flop) for p in parts for s in p.steps)
            one = lower(model, "ws-1d-allreduce", "heads")
            alone = Sizes(one, {}, [tokens])
            least = sum(
                p.count * float(step_work(s, alone.at(p), BF16).flop) for p in one.parts if p.block for s in p.steps
            )
            assert done >= least * (1 - 1e-9)


def test_stacks_that_do_not_hold_together_are_refused() -> None:
    t5 = get_model("t5-small").model_dump()
    with pytest.raises(ValidationError, match="no encoder to read"):
        Model.model_validate(t5 | {"encoder": None})
    with pytest.raises(ValidationError, match="cannot be bidirectional"):
        Model.model_validate(t5 | {"bidirectional": True})
    some = {"one": {"ffn": {"kind": "dense", "d_ff": 8, "gated": False, "activation": "relu"}, "share": 0.5}}
    with pytest.raises(ValidationError, match="bidirectional model alone"):
        small_model(blocks=some, stack=[{"repeat": 3, "blocks": ["one"]}])
    with pytest.raises(ValidationError, match="its blocks differ"):
        Model.model_validate(t5 | {"encoder": t5["encoder"] | {"stack": [{"repeat": 6, "blocks": ["other"]}]}})
