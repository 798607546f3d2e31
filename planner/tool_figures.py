"""What a simulated run comes to by a load generator's own definition of a figure."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..hardware_specs.errors import SpecError
from ..simulator.report import QUANTILES, Report, tpot_s
from ..validate.load_results import RATES, Definition


def value_of(report: Report, definition: Definition, statistic: str) -> float:
    """What a simulated run comes to by a tool's own definition.

    Raises
    ------
    SpecError : no answer has such a time
    """
    if definition.quantity == "itl":
        gaps = report.gaps
        return gaps.mean_s if statistic == "mean" else gaps.quantile_s(QUANTILES[statistic])
    if definition.quantity in RATES:
        return float(getattr(report.summary(), definition.quantity))
    values, weights = _VALUES[definition.quantity](report)
    known = ~np.isnan(values)
    values, weights = values[known], weights[known] if definition.weight == "tokens" else np.ones(int(known.sum()))
    if not len(values):
        raise SpecError(f"{definition.word}: no simulated answer has one; were answers of one token measured?")
    if statistic == "mean":
        return float(np.average(values, weights=weights))
    return weighted_quantile(values, weights, QUANTILES[statistic])


# Values of the requests, and the tokens each may be weighted by.
Columns = tuple[NDArray[np.float64], NDArray[np.float64]]


def _outputs(report: Report) -> NDArray[np.float64]:
    return np.asarray(report.columns["output_tokens"][report.kept], np.float64)


def _ttft(report: Report) -> Columns:
    return report.ttft_s, np.ones(len(report.ttft_s))


def _tpot(report: Report) -> Columns:
    outputs = report.columns["output_tokens"][report.kept]
    return tpot_s(report.ttft_s, report.e2e_s, outputs), _outputs(report) - 1.0


def _ntpot(report: Report) -> Columns:
    return report.e2e_s / np.maximum(_outputs(report), 1.0), _outputs(report)


def _e2e(report: Report) -> Columns:
    return report.e2e_s, np.ones(len(report.e2e_s))


_VALUES: dict[str, Callable[[Report], Columns]] = {"ttft": _ttft, "tpot": _tpot, "ntpot": _ntpot, "e2e": _e2e}


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The value that `share` of the weight does not exceed; with equal weights numpy's own quantile.

    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.ones(3), 0.5)
    2.0
    >>> weighted_quantile(np.array([1.0, 2.0]), np.array([1.0, 9.0]), 0.5)
    2.0
    """
    if np.ptp(weights) == 0.0:
        return float(np.quantile(values, share))
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, share * total[-1])])
