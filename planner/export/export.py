"""From a result to the text of a target or a load generator."""

from dataclasses import dataclass

from ...hardware_specs.errors import SpecError, UnknownNameError
from ...models.description import Model
from ..result import PlanResult
from .differences import differences
from .flags import FlagTable, load_table
from .launch import Launch, LaunchOptions, make_launch
from .load import LOADS, load_script, make_load
from .script import head, predicted, wrapped
from .targets import ARCHIVED, TARGETS, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Text for a target.

    Parameters
    ----------
    engine, version : whose flags it uses
    notes : what the engine does otherwise than planned, each a sentence
    """

    target: str
    engine: str
    version: str
    text: str
    notes: tuple[str, ...]


def export_plan(
    result: PlanResult,
    target: str,
    *,
    rank: int = 1,
    engine_version: str | None = None,
    options: LaunchOptions | None = None,
    model: Model | None = None,
) -> Exported:
    """Write a plan down for what runs it.

    Parameters
    ----------
    target : one of `TARGETS`
    engine_version : of the engine whose flags are used; the newest there is a table of where it is None
    model : where the plan's model is none of the catalogue

    Raises
    ------
    SpecError : no such target, plan or version, or an engine that does not run on the plan's chips
    """
    if target in ARCHIVED:
        raise SpecError(ARCHIVED[target])
    if target not in TARGETS:
        raise UnknownNameError("target", target, TARGETS)
    launch, chosen = make_launch(result, rank, options or LaunchOptions(), model), TARGETS[target]
    table, nearest = load_table(chosen.engine(launch), engine_version)
    if not chosen.runs_on(launch, table):
        able = [name for name, other in TARGETS.items() if other.runs_on(launch, load_table(other.engine(launch))[0])]
        raise SpecError(f"{target} does not run on {launch.decode.chip}; export this plan --to {' or '.join(able)}")
    notes = (*_notes(launch, table, chosen), *((nearest,) if nearest else ()))
    text = chosen.write(launch, table, head(launch, table, notes))
    return Exported(target=target, engine=table.engine, version=table.version, text=text, notes=notes)


def _notes(launch: Launch, table: FlagTable, target: Target) -> tuple[str, ...]:
    found = differences(launch, table)
    if not target.is_manifest or launch.vendor != "google":
        return found
    hosts = max(servers.replica_hosts for servers in launch.servers)
    slices = "the node selectors of the TPU slice (its type and topology) are the cluster's; add them to the pods"
    ray = f"a replica lies on {hosts} hosts, and vLLM wants a Ray cluster over them; the manifest makes none"
    return (*found, slices, *((ray,) if hosts > 1 else ()))


def export_load(
    result: PlanResult,
    generator: str,
    *,
    rank: int = 1,
    version: str | None = None,
    options: LaunchOptions | None = None,
    url: str = "http://localhost:8000",
    rate_per_s: float | None = None,
    concurrency: int | None = None,
    n_requests: int | None = None,
    file: str = "results.json",
    model: Model | None = None,
) -> Exported:
    """Write down the command that sends a plan's traffic and measures it.

    Parameters
    ----------
    generator : one of `LOADS`
    url : where the server listens
    rate_per_s, concurrency, n_requests : other traffic than the plan's
    file : what the generator writes
    model : where the plan's model is none of the catalogue

    Raises
    ------
    SpecError : no such generator, plan or version, or traffic that is none
    """
    if generator not in LOADS:
        raise UnknownNameError("load generator", generator, LOADS)
    launch = make_launch(result, rank, options or LaunchOptions(), model)
    table, nearest = load_table(generator, version)
    load = make_load(launch, url=url, rate_per_s=rate_per_s, concurrency=concurrency, n_requests=n_requests, file=file)
    notes = (nearest,) if nearest else ()
    says = [*predicted(launch), f"then: shardwise check {file} --plan PLAN.json", *notes]
    comments = [part for line in says for part in wrapped(line)]
    text = load_script(generator, launch, load, table, comments)
    return Exported(target=generator, engine=table.engine, version=table.version, text=text, notes=notes)
