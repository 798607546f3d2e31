"""What really happens on a rank: bytes handed to process groups, and the peak of memory. Knows nothing of any price."""

import weakref
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# torch's name of each operation that hands tensors to a process group -> what of its tensors leaves a chip of K
_SENT = {
    "_allgather_base_": lambda out, given, k: given * (k - 1),
    "_reduce_scatter_base_": lambda out, given, k: given * (k - 1) // k,
    "allreduce_": lambda out, given, k: 2 * given * (k - 1) // k,
    "alltoall_base_": lambda out, given, k: given * (k - 1) // k,
    "send": lambda out, given, k: given,
}
_SILENT = {"recv_", "barrier", "monitored_barrier_"}


def _n_bytes(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(value) if isinstance(t, torch.Tensor))


class SentBytes(TorchDispatchMode):
    """Bytes that left this rank, by the name of the group they went to.

    Parameters
    ----------
    names : name of each process group worth counting by torch's own name of it; any other counts under ``default``
    """

    def __init__(self, names: Mapping[str, str], default: str) -> None:
        super().__init__()
        self._names, self._default = names, default
        self.by_group: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, then do."""
        space, name = function._schema.name.split("::")
        if space == "c10d" and name not in _SILENT:
            if name not in _SENT:
                raise AssertionError(f"no rule for the bytes of c10d::{name}")
            self._count(name, args)
        return function(*args, **(kwargs or {}))

    def _count(self, name: str, args: Any) -> None:
        group = next(dist.ProcessGroup.unbox(a) for a in args if isinstance(a, torch.ScriptObject) and _is_group(a))
        out, given = (args[0], args[1]) if name.endswith("base_") else (None, args[0])
        sent = _SENT[name](_n_bytes(out), _n_bytes(given), group.size())
        self.by_group[self._names.get(group.group_name, self._default)] += sent


def _is_group(value: torch.ScriptObject) -> bool:
    return "ProcessGroup" in str(value._type())


class PeakBytes(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do, then look at what is new."""
        made = function(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in given:
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        n_bytes = storage.nbytes()
        self.now += n_bytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, n_bytes)

    def _forget(self, n_bytes: int) -> None:
        self.now -= n_bytes
