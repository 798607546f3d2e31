"""The sheets of an offer, packed for a page, computed side by side where there are cores for it."""

import base64
import gzip
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ...hardware_specs.errors import SpecError
from .question import Question
from .sheet import Sheet, make_sheet

# Fewer sheets than this are computed before other processes have started.
_LEAST_SHEETS_A_JOB = 8


def make_grid(
    questions: Sequence[Question], *, jobs: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, dict[str, str]]:
    """Every question's sheet as ``{"packed": ...}``, or ``{"error": sentence}``, by the question's key.

    Parameters
    ----------
    jobs : processes
    progress : told how many of how many are done

    Raises
    ------
    SpecError : no question has an answer; or a process ended before it had answered
    """
    sheets: dict[str, dict[str, str]] = {}
    total = len(questions)
    progress(0, total)
    for done, (question, sheet) in enumerate(zip(questions, _sheets(questions, jobs), strict=True), start=1):
        sheets[question.key] = sheet
        progress(done, total)
    if all("error" in sheet for sheet in sheets.values()):
        raise SpecError(next(iter(sheets.values()))["error"])
    return sheets


def _sheets(questions: Sequence[Question], jobs: int) -> Iterator[dict[str, str]]:
    if jobs < 1:
        raise SpecError(f"jobs={jobs} must be at least 1")
    jobs = min(jobs, len(questions) // _LEAST_SHEETS_A_JOB)
    if jobs <= 1:
        yield from map(_sheet, questions)
        return
    pool = ProcessPoolExecutor(jobs, mp_context=_context(), initializer=_leave_interrupts)
    try:
        yield from pool.map(_sheet, questions)
    except BrokenProcessPool:
        raise SpecError("a process that plans was killed, perhaps for want of memory; try --jobs 1") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _sheet(question: Question) -> dict[str, str]:
    """One sheet; such as a request longer than the model's positions has none, and the page says so where it is chosen."""
    try:
        return {"packed": packed(make_sheet(question))}
    except SpecError as error:
        return {"error": str(error)}


def packed(sheet: Sheet) -> str:
    """A sheet as text that a page unpacks when it is looked at: a seventh of its JSON."""
    return base64.b64encode(gzip.compress(sheet.model_dump_json().encode(), mtime=0)).decode()


def _context() -> multiprocessing.context.BaseContext:
    """Processes forked from a clean one that has imported the planner, where the system can fork at all."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _leave_interrupts() -> None:
    """An interrupt at the terminal reaches every process; the one that collects the sheets ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
