"""Distinct cases asked of a predictor, in one process or side by side in several."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

from ..hardware_specs.errors import SpecError
from .kernel_cases import KernelCase, KernelSeconds
from .measured_case import MeasuredCase
from .metrics import Outcome

Case = MeasuredCase | KernelCase
Predictor = Callable[[Case], Outcome | KernelSeconds]
Answer = Outcome | KernelSeconds | SpecError

# Fewer cases than this are answered before other processes have started.
_LEAST_CASES_A_JOB = 8


def answers(cases: Sequence[Case], predict: Predictor, *, jobs: int = 1) -> Iterator[tuple[Case, Answer]]:
    """Every case with its answer, in order.

    Parameters
    ----------
    predict : answers a case, or raises SpecError with the reason it cannot
    jobs : processes; more than one ask `predict` as a function of a module

    Raises
    ------
    SpecError : `jobs` is no count, or a process ended before it had answered
    """
    if jobs < 1:
        raise SpecError(f"jobs={jobs} must be at least 1")
    ask = partial(_ask, predict)
    jobs = min(jobs, len(cases) // _LEAST_CASES_A_JOB)
    if jobs <= 1:
        yield from zip(cases, map(ask, cases), strict=True)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=_context(predict), initializer=_leave_interrupts)
    try:
        yield from zip(cases, pool.map(ask, cases), strict=True)
    except BrokenProcessPool:
        raise SpecError("a process that predicts was killed, perhaps for want of memory; try --jobs 1") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ask(predict: Predictor, case: Case) -> Answer:
    """One answer; what goes wrong in one case is said beside its rows and keeps no other from being answered."""
    try:
        return predict(case)
    except SpecError as reason:
        # the bare sentence: errors with more to them do not travel between processes
        return SpecError(str(reason))
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        return SpecError(f"internal error, please report it: {type(error).__name__}: {first_line:.200}")


def _context(predict: Predictor) -> multiprocessing.context.BaseContext:
    """Processes forked from a clean one that has imported the predictor, where the system can fork at all."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([predict.__module__])
    return context


def _leave_interrupts() -> None:
    """An interrupt at the terminal reaches every process; the one that collects the answers ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
