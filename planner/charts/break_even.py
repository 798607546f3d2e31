"""Cost against the rate for several pools, and where they cross."""

from ..break_even import BreakEven, PoolCurve
from .values import Chart, Curve, Panel, Scale


def break_even_chart(found: BreakEven) -> Chart:
    """What each pool costs a month and a million tokens at rising rates, with lines where another becomes the cheapest."""
    work = found.workload
    ends = [stretch.high_per_s for stretch in found.stretches[:-1]]
    rate = "requests a second"
    month = Panel(
        title="every month",
        x=Scale(title=rate, least=0.0),
        y=Scale(title="USD a month", least=0.0),
        curves=(*(_month(pool) for pool in found.pools), *_guides(ends, _most(found, "usd_per_month"))),
    )
    token = Panel(
        title="each million tokens, in and out",
        x=Scale(title=rate, least=0.0),
        y=Scale(title="USD a million tokens", log=True),
        curves=tuple(_token(pool) for pool in found.pools),
    )
    return Chart(
        name="break-even",
        title=f"Which pool is cheapest: {work.input_tokens} tokens in, {work.output_tokens} out",
        says="Each pool is bought as often as the rate needs; dotted lines are where another one becomes the cheapest",
        panels=(month, token),
    )


def _month(pool: PoolCurve) -> Curve:
    return Curve(name=pool.name, style="steps", x=pool.rate_per_s, y=pool.usd_per_month, hover=_hover(pool))


def _token(pool: PoolCurve) -> Curve:
    return Curve(name=pool.name, style="line", x=pool.rate_per_s, y=pool.usd_per_mtok, hover=_hover(pool))


def _hover(pool: PoolCurve) -> tuple[str, ...]:
    rows = zip(pool.rate_per_s, pool.copies, pool.utilization, pool.usd_per_month, pool.usd_per_mtok, strict=True)
    return tuple(
        f"{rate:.4g} requests/s: {n} copies, {load:.2f} busy<br>${month:,.0f} a month, ${mtok:.4g} a million tokens"
        for rate, n, load, month, mtok in rows
    )


def _most(found: BreakEven, name: str) -> float:
    return float(max(max(getattr(pool, name)) for pool in found.pools))


def _guides(ends: list[float], most: float) -> tuple[Curve, ...]:
    return tuple(Curve(name=f"{end:.4g} requests/s", style="guide", x=(end, end), y=(0.0, most)) for end in ends)
