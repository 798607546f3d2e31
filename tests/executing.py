"""What every executed run is held to."""

from collections.abc import Mapping

from shardwise.validate.execute.priced import priced_bytes
from shardwise.validate.execute.ranks import run_ranks
from shardwise.validate.execute.run import compare, tolerance
from shardwise.validate.execute.spec import RunSpec


def check_runs(named: Mapping[str, RunSpec]) -> None:
    """Run all of them; logits and tokens are the unsharded model's, and what is sent is what was priced."""
    for spec in named.values():
        spec.check_shards("prefill")
        spec.check_shards("decode")
    for (name, spec), reports in zip(named.items(), run_ranks(list(named.values()), limit_s=300), strict=True):
        error, equal = compare(spec, reports)
        assert error <= tolerance(spec), name
        assert equal, name
        for phase, by_axes in priced_bytes(spec).items():
            counted: dict[str, int] = {}
            for report in reports:
                for axes, n_bytes in report.sent_bytes.get(phase, {}).items():
                    counted[axes] = counted.get(axes, 0) + n_bytes
            assert counted == by_axes, (name, phase)
