"""``shardwise cost``: dollars, joules and carbon of plans, and where one pool becomes cheaper than another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Price

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..break_even import BreakEven
    from ..result import PlanResult


def cost(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="PLAN.json...", help="Outputs of `plan --json` or `estimate --json`; several are compared."
        ),
    ],
    rank: Annotated[int, typer.Option("--rank", help="Plan of each file.")] = 1,
    price: Price = None,
    utilization: Annotated[
        float, typer.Option("--utilization", help="Mean load, as a share of the rate or throughput planned for.")
    ] = 1.0,
    power: Annotated[
        str | None, typer.Option("--power", help="Power of a chip, e.g. 500W; its rated power unless said.")
    ] = None,
    carbon: Annotated[
        float | None,
        typer.Option("--carbon", help="Carbon intensity of your grid in gCO2e/kWh; no carbon unless said."),
    ] = None,
    pue: Annotated[
        float, typer.Option("--pue", help="Energy of the building over that of its machines; 1 counts the chips alone.")
    ] = 1.0,
    most: Annotated[
        float | None, typer.Option("--up-to", help="Requests a second up to which several plans are compared.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the costs of several plans over the rate (.html, .png, .svg, .pdf)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what plans cost a month, a token, a joule and a gram; of several, which is cheapest at which rate."""
    import json

    from ...hardware_specs.prices import parse_payment
    from ...hardware_specs.units import parse_quantity
    from ..break_even import break_even
    from ..cost import CostTerms, with_cost
    from ..explain import read_result
    from .plots import check_plot

    check_plot(plot)
    terms = CostTerms(
        utilization=utilization,
        power_w=None if power is None else parse_quantity(power, "W"),
        grid_g_per_kwh=carbon,
        pue=pue,
    )
    payment = parse_payment(price)
    results = []
    for file in files:
        result = read_result(file)
        plan = with_cost(result.of_rank(rank), result.workload, payment, terms)
        results.append(result.model_copy(update={"plans": (plan.model_copy(update={"rank": 1}),)}))
    is_compared = len(results) > 1 or most is not None or plot is not None
    compared = break_even(results, most_per_s=most) if is_compared else None
    if plot is not None and compared is not None:
        _plot(compared, plot)
    if as_json:
        document = {
            "pools": [
                {"file": str(file), "model": result.model, "on": result.on, "cost": _dumped(result.best.cost)}
                for file, result in zip(files, results, strict=True)
            ],
            "break_even": _dumped(compared),
        }
        typer.echo(json.dumps(document, indent=1))
        return
    for file, result in zip(files, results, strict=True):
        _print_one(file, result)
    if compared is not None:
        _print_break_even(compared)


def _plot(compared: "BreakEven", path: Path) -> None:
    from ..charts.break_even import break_even_chart
    from .plots import write_plot

    write_plot(path, "Which pool is cheapest", [break_even_chart(compared)])


def _dumped(model: "BaseModel | None") -> dict[str, object] | None:
    return None if model is None else model.model_dump()


def _print_one(file: Path, result: "PlanResult") -> None:
    from .money_text import cost_lines, price_lines
    from .text import console, print_lines

    plan = result.best
    assert plan.cost is not None
    work = result.workload
    chips = f"{plan.n_chips} chip{'s' if plan.n_chips > 1 else ''}"
    console().print(
        f"{file}: {result.model} on {chips} of {result.on}, {work.input_tokens} tokens in, {work.output_tokens} out",
        highlight=False,
    )
    print_lines([*cost_lines(plan.cost), *price_lines(plan)])


def _print_break_even(compared: "BreakEven") -> None:
    from .money_text import usd
    from .text import console, table

    out = console()
    columns = ("pool", "$/h", "carries req/s", "$/Mtok full")
    made = table(*columns, right=columns[1:], title="each pool, bought as often as the traffic needs")
    for pool in compared.pools:
        made.add_row(pool.name, usd(pool.usd_per_h), f"{pool.capacity_per_s:.4g}", usd(pool.usd_per_mtok_full))
    out.print(made, highlight=False)
    heads = ("req/s above", "up to", "cheapest", "copies", "load", "$/month", "$/Mtok")
    right = tuple(name for name in heads if name != "cheapest")
    made = table(*heads, right=right, title="\nwhich is cheapest; figures at the upper end, tokens in and out")
    for x in compared.stretches:
        ends = (f"{x.low_per_s:.4g}", f"{x.high_per_s:.4g}")
        made.add_row(*ends, x.name, str(x.copies), f"{x.utilization:.2f}", usd(x.usd_per_month), usd(x.usd_per_mtok))
    out.print(made, highlight=False)
