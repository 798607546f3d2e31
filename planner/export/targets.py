"""What a plan can be written for: each target's writer, and the engine whose flags it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .dynamo import backend, dynamo_request
from .flags import FlagTable
from .kserve import kserve_manifest
from .launch import Launch
from .llmd import llmd_values
from .sglang import sglang_script
from .trtllm import trtllm_script
from .vllm import vllm_script


@dataclass(frozen=True, slots=True)
class Target:
    """A way to start servers.

    Parameters
    ----------
    engine : whose flag table it takes, for a launch
    write : text of a launch, with comments at its head
    is_manifest : YAML for a cluster, not a script
    vendors : makers of the chips it manages, None where its engine says
    """

    engine: Callable[[Launch], str]
    write: Callable[[Launch, FlagTable, Sequence[str]], str]
    is_manifest: bool = False
    vendors: tuple[str, ...] | None = None

    def runs_on(self, launch: Launch, table: FlagTable) -> bool:
        """Whether it starts servers on the launch's chips."""
        return launch.vendor in (self.vendors or table.vendors)


TARGETS: dict[str, Target] = {
    "vllm": Target(lambda launch: "vllm", vllm_script),
    "sglang": Target(lambda launch: "sglang", sglang_script),
    "trtllm": Target(lambda launch: "trtllm", trtllm_script),
    "dynamo": Target(backend, dynamo_request, is_manifest=True, vendors=("nvidia",)),
    "llm-d": Target(lambda launch: "vllm", llmd_values, is_manifest=True),
    "kserve": Target(lambda launch: "vllm", kserve_manifest, is_manifest=True),
}

# What was a target once, and what is in its place.
ARCHIVED = {
    "jetstream": "JetStream is archived (read-only since February 2026); TPUs are served by vLLM: --to vllm",
}
