"""A what-if as one page: pictures, the table behind them, the command and where the numbers come from."""

import json

from ..charts.whatif import whatif_charts
from ..figures import Page, PageTable
from .answers import COLUMNS
from .ask import WhatIf, plain_question
from .keys import KEYS

_LEFT_OUT = (
    "Every point is priced in closed form: no queue. `simulate` answers with traffic.",
    "A rate is compared with what the chips answer when they are never idle; waiting is left out.",
    "Figures that take the place of claimed ones are extrapolated: nobody measured such a chip.",
)


def whatif_page(answer: WhatIf, command: str) -> Page:
    """Lay out the answers.

    Parameters
    ----------
    command : what makes the page again
    """
    says = {name: f"{text} ({unit})" if unit else text for name, (unit, text) in COLUMNS.items()}
    says |= {axis.column: axis.says for axis in answer.axes}
    varied = ", ".join(f"{KEYS[axis.key].says}" for axis in answer.axes)
    return Page(
        title=f"What if: {answer.question.described.name}",
        lead=(
            f"{answer.n_points:,} points over {varied}; {answer.n_fitting:,} of them fit. "
            f"Each point is the best plan by {answer.objective}.",
        ),
        charts=whatif_charts(answer),
        table=PageTable(columns=answer.columns, says=says, file_name=f"whatif-{answer.digest}.csv"),
        command=command,
        provenance={
            "shardwise": answer.version,
            "hash of the inputs": answer.digest,
            "question": json.dumps(plain_question(answer.question), default=str),
        },
        notes=_LEFT_OUT,
    )
