"""Answer many questions: those that differ in numbers alone are priced together, the rest planned one by one."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...hardware_specs.catalogue import get_chip
from ...hardware_specs.cluster import Slice
from ...hardware_specs.errors import SpecError
from ...simulator.cost.calibrated import Calibration
from ...simulator.cost.handoff import States
from ...simulator.types import Workload
from ..request import DEFAULT_BATCHES, PlanRequest, check_context, make_request
from ..result import Objective
from ..space import phase_settings
from .answers import Table
from .blocks import Priced, Variants, make_variants, price_variants
from .choose import Best, Bounds, Index, choose
from .fill import Chosen, fill_rows, reason_of
from .one_by_one import answer_alone, needs_search
from .points import Column, claimed, distinct, make_points, over_claimed
from .question import Question

# Cells that are priced at once, phases together: what they need stays below a gigabyte.
_MOST_CELLS = 6_000_000
# What must be equal for questions to be priced together.
_FAMILY = ("model", "hardware", "weights", "kv_dtype", "page_size", "prefill", "decode", "tp", "pp", "dp", "engine")


def evaluate(asked: Sequence[Question], objective: Objective) -> Table:
    """Answer every question, each by the best plan by `objective`."""
    table = Table.empty(len(asked))
    families: dict[tuple[object, ...], list[int]] = {}
    for i, question in enumerate(asked):
        families.setdefault(tuple(getattr(question, name) for name in _FAMILY), []).append(i)
    for places in families.values():
        _answer_family(asked, np.array(places), objective, table)
    return table


def _answer_family(asked: Sequence[Question], places: Index, objective: Objective, table: Table) -> None:
    alone = np.array([needs_search(asked[i]) for i in places])
    for i in places[alone]:
        answer_alone(asked[i], int(i), objective, table)
    together = _answerable(asked, places[~alone], table)
    parts = [_Part(asked, index, objective, table) for index in _by_chips(asked, together)]
    _answer_parts([part for part in parts if part.request is not None], objective, table)


def _by_chips(asked: Sequence[Question], places: Index) -> list[Index]:
    chips: dict[str | None, list[int]] = {}
    for i in places:
        chips.setdefault(asked[i].chips, []).append(int(i))
    return [np.array(index) for index in chips.values()]


def _answerable(asked: Sequence[Question], places: Index, table: Table) -> Index:
    """Those whose request can be: positions, batches, what the chip claims."""
    changed = [name for name in _CHANGED if any(getattr(asked[i], name) is not None for i in places)]
    checks = [(_misread, _READ), *((_unclaimed(figure), ("hardware", figure)) for figure in changed)]
    known: dict[tuple[object, ...], str | None] = {}
    kept = []
    for i in places:
        reason = None
        for check, fields in checks:
            key = fields + tuple(getattr(asked[i], name) for name in fields)
            if key not in known:
                known[key] = check(asked[i])
            reason = reason or known[key]
        if reason is None:
            kept.append(i)
        else:
            table.refuse(np.array([i]), reason)
    return np.array(kept, np.int64)


def _misread(q: Question) -> str | None:
    """Why no plan can serve such requests, whatever the chips; None where one may."""
    if q.prompt_tokens < 1:
        return f"a context of {q.context_tokens} tokens leaves no input beside {q.output_tokens} output tokens"
    if q.prefill_batch is not None and q.decode_batch is not None and q.prefill_batch > q.decode_batch:
        return (
            f"prefill batch {q.prefill_batch} is above decode batch {q.decode_batch}: "
            "prompts read at once are decoded together"
        )
    try:
        check_context(q.described, Workload(input_tokens=q.prompt_tokens, output_tokens=q.output_tokens or 0))
    except SpecError as error:
        return str(error)
    return None


def _unclaimed(figure: str) -> Callable[[Question], str | None]:
    def check(q: Question) -> str | None:
        try:
            over_claimed(get_chip(q.hardware or ""), figure, getattr(q, figure))
        except SpecError as error:
            return str(error)
        return None

    return check


_READ = ("input_tokens", "context_tokens", "output_tokens", "prefill_batch", "decode_batch")
_CHANGED = ("link", "network", "hbm_bandwidth", "hbm", "flops")


class _Part:
    """Questions about one count of chips: the request they share, and their pricing points."""

    def __init__(self, asked: Sequence[Question], index: Index, objective: Objective, table: Table) -> None:
        self.index = index
        self.asked = [asked[i] for i in index]
        self.request: PlanRequest | None = None
        self.refused: Counter[str] = Counter()
        try:
            self.request = _request(self.asked[0], objective)
        except SpecError as error:
            table.refuse(index, str(error))
            return
        every = make_points(self.request.slices[0].chip, self.asked)
        self.points, self.at = distinct(every)

    def halves(self) -> list["_Part"]:
        """The same questions in two parts."""
        middle = len(self.index) // 2
        return [self._taken(slice(0, middle)), self._taken(slice(middle, None))]

    def _taken(self, part: slice) -> "_Part":
        made = _Part.__new__(_Part)
        made.index, made.asked = self.index[part], self.asked[part]
        made.request, made.refused = self.request, Counter()
        made.points, at = distinct(self.points.take(self.at[part]))
        made.at = at
        return made


def _request(q: Question, objective: Objective) -> PlanRequest:
    return make_request(
        q.model,
        q.on,
        input_tokens=q.prompt_tokens,
        output_tokens=q.output_tokens or 0,
        weights=q.weights,
        kv_dtype=q.kv_dtype,
        page_size=q.page_size,
        prefill=q.prefill,
        decode=q.decode,
        tp=q.tp,
        pp=q.pp,
        dp=q.dp,
        objective=objective,
        engine=q.engine,
        bound=q.bound,
        memory_share=q.memory_share,
        beyond_positions=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Space:
    """What a part's slices hold of each phase."""

    part: _Part
    slice: Slice
    prefill: list[Variants]
    decode: list[Variants]


def _answer_parts(parts: Sequence[_Part], objective: Objective, table: Table) -> None:
    """Answer the parts of a family, all of them together as far as memory allows."""
    if not parts:
        return
    request = parts[0].request
    assert request is not None
    calibration = request.calibration(request.slices[0])
    spaces = [space for part in parts for space in _spaces(part, calibration, objective)]
    cells = sum(int(v.allowed.sum()) for space in spaces for v in (*space.prefill, *space.decode))
    if cells > _MOST_CELLS and (len(parts) > 1 or len(parts[0].index) > 1):
        middle = len(parts) // 2
        halves = (parts[:middle], parts[middle:]) if len(parts) > 1 else ([half] for half in parts[0].halves())
        for half in halves:
            _answer_parts(list(half), objective, table)
        return
    forms: dict[States, int] = {}
    priced: dict[int, Priced] = {}
    for phase in ("prefill", "decode"):
        held = [v for space in spaces for v in getattr(space, phase)]
        priced |= {id(p.variants): p for p in price_variants(held, calibration.engine, forms)}
    for part in parts:
        own = [space for space in spaces if space.part is part]
        _answer_part(part, own, priced, tuple(forms), objective, calibration, table)


def _spaces(part: _Part, calibration: Calibration, objective: Objective) -> list[_Space]:
    assert part.request is not None
    batches = DEFAULT_BATCHES
    if objective == "latency" and all(q.rate_per_s is None for q in part.asked):
        batches = (1,)  # a larger batch is never quicker
    made = []
    for slice_ in part.request.slices:
        held: dict[str, list[Variants]] = {}
        for phase in ("prefill", "decode"):
            laid = phase_settings(part.request, slice_, phase, calibration.engine, part.refused)
            variants = (make_variants(one, phase, part.points, batches, calibration.engine) for one in laid)
            held[phase] = [v for v in variants if v.allowed.any()]
        made.append(_Space(part=part, slice=slice_, prefill=held["prefill"], decode=held["decode"]))
    return made


def _answer_part(
    part: _Part,
    spaces: Sequence[_Space],
    priced: dict[int, Priced],
    forms: tuple[States, ...],
    objective: Objective,
    calibration: Calibration,
    table: Table,
) -> None:
    """Choose on each slice, keep the better slice of each point, write the rows."""
    assert part.request is not None
    bounds = _bounds(part)
    found: list[tuple[_Space, Best]] = []
    for space in spaces:
        best = choose(
            space.slice,
            [priced[id(v)] for v in space.prefill],
            [priced[id(v)] for v in space.decode],
            points=part.points,
            at=part.at,
            bounds=bounds,
            objective=objective,
            engine=calibration.engine,
            forms=forms,
        )
        found.append((space, best))
    merits = np.array([np.where(best.prefill >= 0, best.merit, np.inf) for _, best in found])
    winner = np.argmin(merits, axis=0)
    for i, (space, best) in enumerate(found):
        where = np.flatnonzero((winner == i) & np.isfinite(merits[i]))
        if len(where):
            chosen = Chosen(
                request=part.request,
                slice=space.slice,
                best=best,
                where=where,
                points=part.points,
                at=part.at[where],
                calibration=calibration,
                limit_bytes=bounds.limit_bytes[where],
                asked=[part.asked[j] for j in where],
            )
            fill_rows(table, part.index[where], chosen)
    for j in np.flatnonzero(~np.isfinite(merits).any(axis=0)):
        table.refuse(
            part.index[[j]], reason_of(part.asked[j], [best for _, best in found], int(j), bounds, part.refused)
        )


def _bounds(part: _Part) -> Bounds:
    assert part.request is not None
    chip, share = part.request.slices[0].chip, part.request.memory_share

    def limit(name: str) -> Column:
        return np.array([np.inf if getattr(q, name) is None else getattr(q, name) for q in part.asked], float)

    shares = np.array([share if q.memory_share is None else q.memory_share for q in part.asked])
    return Bounds(
        limit_bytes=claimed(chip, "hbm") * np.array([over_claimed(chip, "hbm", q.hbm) for q in part.asked]) * shares,
        ttft_s=limit("ttft_s"),
        tpot_s=limit("tpot_s"),
        least_rate_per_s=np.array([q.rate_per_s or 0.0 for q in part.asked]),
    )
