"""Figures 6 and 7: layouts set beside each other, over chips in decode and over tokens in prefill."""

from ...hardware_specs.catalogue import get_chip
from ...models.layouts import LAYOUTS
from ...simulator.cost.calibrated import default_engine
from ...simulator.cost.engines import get_engine
from ..whatif.ask import what_if
from .paper_case import LATENCY_TITLES, PaperCase, Row, batches, need, number, over
from .published import published_points
from .values import Chart, Panel, Scale


def cut_layouts(case: PaperCase) -> tuple[str, ...]:
    """Weight-stationary layouts that are set beside each other: the engine's 1D ones, and 2D."""
    engine = get_engine(default_engine(get_chip(case.chip)))
    own = [name for name in engine.layouts if name.startswith("ws-")]
    return tuple(dict.fromkeys((*own, "ws-2d")))


def chips_chart(case: PaperCase) -> Chart:
    """Figure 6: a decode step on more and more chips, by layout."""
    answer = what_if(
        case.model,
        case.on,
        vary=[f"decode={','.join(cut_layouts(case))}", f"chips={','.join(map(str, case.counts))}"],
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
        prefill_batch=1,
        decode_batch=case.batch,
    )
    need(answer, case)
    ticks = tuple((float(n), str(n)) for n in case.counts)
    x = Scale(title="chips", log=True, ticks=ticks)

    def chips(row: Row) -> float:
        return number(row, "n_chips")

    latency = over(answer, "decode", chips, lambda row: 1e3 * number(row, "tpot_s"))
    mfu = over(answer, "decode", chips, lambda row: number(row, "decode_mfu"))
    points = published_points(case.model, case.chip, "6", "decode")
    return Chart(
        name="6",
        title=f"Figure 6: {case.model.name} on {case.chip}, decode by layout as chips are added",
        says=f"Batch {case.batch}, {case.lengths}",
        panels=(
            Panel(
                title="latency",
                x=x,
                y=Scale(title=LATENCY_TITLES["decode"]),
                curves=(*latency, *points),
            ),
            Panel(title="MFU", x=x, y=Scale(title="MFU", least=0.0), curves=tuple(mfu)),
        ),
    )


def prefill_chart(case: PaperCase) -> Chart:
    """Figure 7: MFU of prefill over the tokens of a batch, by layout."""
    layouts = [*cut_layouts(case), *(name for name, layout in LAYOUTS.items() if layout.gathered_axes)]
    answer = what_if(
        case.model,
        case.on,
        vary=[f"prefill={','.join(dict.fromkeys(layouts))}", batches(2 * case.batch)],
        input_tokens=case.input_tokens,
        output_tokens=case.output_tokens,
    )
    need(answer, case)
    curves = over(
        answer,
        "prefill",
        lambda row: number(row, "batch") * case.input_tokens,
        lambda row: number(row, "prefill_mfu"),
    )
    return Chart(
        name="7",
        title=f"Figure 7: {case.model.name} on {case.on}, MFU of prefill by layout",
        says=f"{case.input_tokens} tokens a prompt; weights stay where they are (ws), or are gathered (wg)",
        panels=(
            Panel(
                title="",
                x=Scale(title="tokens of a batch", log=True),
                y=Scale(title="MFU", least=0.0),
                curves=(*curves, *published_points(case.model, case.chip, "7", "prefill")),
            ),
        ),
    )
