import os
import zlib

import pytest

torch = pytest.importorskip("torch", reason="kernels need torch")
if not torch.cuda.is_available():
    # read when a kernel is declared, triton's own among them
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="kernels need triton")

if not torch.cuda.is_available():
    torch.set_num_threads(1)
    from shardwise.kernels import interpreter

    interpreter.install()


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """What a kernel leaves unwritten is seen: fresh memory holds NaN, or the largest integer."""

    def poison(made):
        made.view(torch.uint8).fill_(0x7F) if made.element_size() == 1 else made.fill_(
            float("nan") if made.is_floating_point() else torch.iinfo(made.dtype).max
        )
        return made

    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(empty_like(*a, **k)))


@pytest.fixture
def generator(request):
    """Fresh random inputs for every test, the same ones every run."""
    return torch.Generator().manual_seed(zlib.crc32(request.node.nodeid.encode()))
