"""Figures 9 and B.1: whole requests, and one prompt read as quickly as can be."""

from ..whatif.ask import WhatIf, what_if
from .paper_case import PaperCase, Row, batch_label, batches, hover, need, number, over
from .published import published_points
from .values import Chart, Curve, Panel, Scale

_INPUTS_9 = ((60, 20), (20, 8))


def runtime_chart(case: PaperCase) -> Chart:
    """Figure 9: MFU of whole requests against their latency; the paper's other lengths beside it, with Table D.2."""
    panels = []
    for n_in, n_out in _INPUTS_9:
        answer = what_if(
            case.model,
            case.on,
            vary=[f"chips={','.join(map(str, case.counts))}", batches(case.batch)],
            input_tokens=n_in,
            output_tokens=n_out,
        )
        need(answer, case)

        def mfu(row: Row, n_in: int = n_in, n_out: int = n_out) -> float:
            """Of prefill and decode together: the mean of both, weighed by their times."""
            seconds = number(row, "prefill_latency_s"), number(row, "decode_latency_s")
            each = number(row, "prefill_mfu"), number(row, "decode_mfu")
            return (seconds[0] * each[0] + seconds[1] * each[1]) / sum(seconds)

        curves = over(answer, "chips", lambda row: 1e3 * number(row, "request_latency_s"), mfu)
        points = published_points(case.model, case.chip, "9", "total") if (n_in, n_out) == (20, 8) else ()
        panels.append(
            Panel(
                title=f"{n_in} tokens in, {n_out} out",
                x=Scale(title="latency of the batch (ms)", log=True),
                y=Scale(title="MFU", least=0.0),
                curves=(*(_with_batches(curve, answer) for curve in curves), *points),
            )
        )
    return Chart(
        name="9",
        title=f"Figure 9: {case.model.name} on {case.chip}, MFU of whole requests against latency",
        says="A curve a count of chips; numbers at the points are batches",
        panels=tuple(panels),
    )


def _with_batches(curve: Curve, answer: WhatIf) -> Curve:
    rows = [row for row in answer.rows() if row["fits"] and str(row["chips"]) == curve.name]
    return Curve(name=f"{curve.name} chips", x=curve.x, y=curve.y, labels=tuple(batch_label(row) for row in rows))


def shortest_prefill_chart(case: PaperCase) -> Chart:
    """Figure B.1: one prompt read as quickly as can be, over its length."""
    lengths = [n for n in (32, 64, 128, 256, 512, 1024) if case.model.max_context is None or n < case.model.max_context]
    answer = what_if(
        case.model,
        case.on,
        vary=[f"weights={','.join(case.weights)}", f"input={','.join(map(str, lengths))}"],
        output_tokens=1,
        prefill_batch=1,
        decode_batch=1,
    )
    need(answer, case)
    rows = [row for row in answer.rows() if row["fits"]]
    curves = []
    for weights in case.weights:
        own = [row for row in rows if row["weights"] == weights]
        curves.append(
            Curve(
                name=weights,
                x=tuple(1e3 * number(row, "ttft_s") for row in own),
                y=tuple(1e3 * number(row, "prefill_chip_s_per_token") for row in own),
                labels=tuple(str(row["input"]) for row in own),
                hover=tuple(f"{row['input']} tokens: {hover(row | {'batch': 1}, 'prefill')}" for row in own),
            )
        )
    return Chart(
        name="B.1",
        title=f"Figure B.1: {case.model.name} on {case.on}, the shortest prefill",
        says="Batch 1; numbers at the points are input tokens",
        panels=(
            Panel(
                title="",
                x=Scale(title="latency of the prompt (ms)", log=True),
                y=Scale(title="cost (chip-ms a token)", log=True),
                curves=tuple(curves),
            ),
        ),
    )
