"""A grid is the same from one process and from several."""

import base64
import gzip
import json
from typing import Any

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.explorer import make_offer
from shardwise.planner.explorer.grid import make_grid
from shardwise.planner.explorer.question import Question


def questions() -> list[Question]:
    offer = make_offer(
        models=["gpt2"], chips=["l40s"], counts=[1], input_tokens=[16, 32, 64, 1020], output_tokens=[2, 4, 8, 16]
    )
    return list(offer.questions())


def read(grid: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Sheets without the seconds they took."""
    return {
        key: held.get("error") or json.loads(gzip.decompress(base64.b64decode(held["packed"]))) | {"wall_s": 0.0}
        for key, held in grid.items()
    }


def test_several_processes_make_the_grid_of_one() -> None:
    one, two = (read(make_grid(questions(), jobs=jobs)) for jobs in (1, 2))
    assert one == two
    assert list(one) == [question.key for question in questions()]
    assert "positions" in one["gpt2|l40s|1020|16|own|own"]


def test_no_processes_at_all_are_refused() -> None:
    with pytest.raises(SpecError, match="jobs=0 must be at least 1"):
        make_grid(questions(), jobs=0)
