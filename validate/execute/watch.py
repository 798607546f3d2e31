"""What really happens on a rank: bytes handed to process groups, and the peak of memory. Knows nothing of any price."""

import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

# torch's name of each operation that hands tensors to a process group -> what of its tensors leaves a chip of K
_SENT = {
    "_allgather_base_": lambda out, given, k: given * (k - 1),
    "_reduce_scatter_base_": lambda out, given, k: given * (k - 1) // k,
    "allreduce_": lambda out, given, k: 2 * given * (k - 1) // k,
    "alltoall_base_": lambda out, given, k: given * (k - 1) // k,
    "send": lambda out, given, k: given,
}
# where an exchange says how many rows of its input go to each chip, if not equally many
_SPLITS = 4
_SILENT = {"recv_", "barrier", "monitored_barrier_"}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors an operation takes or gives, whatever lists hold them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _n_bytes(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in _tensors(value))


def _is_group(value: torch.ScriptObject) -> bool:
    return "ProcessGroup" in str(value._type())


class Watch(TorchDispatchMode):
    """Bytes that left this rank by the name of the group they went to, and the peak of what was made inside and was alive.

    Parameters
    ----------
    names : name of each process group worth counting by torch's own name of it; any other counts under ``default``
    has_memory : tensors lie in memory, whose peak is counted
    """

    def __init__(self, names: Mapping[str, str], default: str, *, has_memory: bool) -> None:
        super().__init__()
        self._names, self._default, self._has_memory = names, default, has_memory
        self.sent: dict[str, int] = defaultdict(int)
        self.peak = self._now = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keeping torch's compiler out would load all of it, on every rank."""
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is sent, do it, then look at what is new."""
        if function.namespace == "c10d":
            self._count(function._schema.name.split("::")[1], args)
        made = function(*args, **(kwargs or {}))
        if self._has_memory and not function.is_view:
            given = {id(t.untyped_storage()) for t in _tensors(args)}
            for tensor in _tensors(made):
                if id(tensor.untyped_storage()) not in given:
                    self._note(tensor.untyped_storage())
        return made

    def _count(self, name: str, args: Any) -> None:
        if name in _SILENT:
            return
        if name not in _SENT:
            raise AssertionError(f"no rule for the bytes of c10d::{name}")
        group = next(dist.ProcessGroup.unbox(a) for a in args if isinstance(a, torch.ScriptObject) and _is_group(a))
        out, given = (args[0], args[1]) if name.endswith("base_") else (None, args[0])
        sent = _SENT[name](_n_bytes(out), _n_bytes(given), group.size())
        if name == "alltoall_base_" and args[_SPLITS]:
            rows = args[_SPLITS]
            sent = _n_bytes(given) * (sum(rows) - rows[group.rank()]) // max(sum(rows), 1)
        self.sent[self._names.get(group.group_name, self._default)] += sent

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        n_bytes = storage.nbytes()
        self._now += n_bytes
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, n_bytes)

    def _forget(self, n_bytes: int) -> None:
        self._now -= n_bytes
