"""Rows that lie further apart than 32 bits count: memory is asked for and hardly any of it touched."""

import pytest
import torch
from shardwise.kernels.decode_attention import decode_attention, decode_attention_reference
from shardwise.kernels.matmul import matmul
from shardwise.kernels.prefill_attention import prefill_attention, prefill_attention_reference
from shardwise.kernels.variant import Config

# three rows this far apart: the last begins where a signed 32-bit offset is negative
_APART = 2**30


@pytest.fixture
def far(device, generator):
    """Random fp16 of a shape, its leading dimension in far strides."""
    if device == "cuda":
        pytest.skip("a GPU gives all the memory that is asked for")

    def make(*shape):
        inner = torch.empty(shape[1:]).stride()
        made = torch.empty_strided(shape, (_APART, *inner), dtype=torch.float16)
        return made.copy_(torch.randn(shape, generator=generator))

    return make


def _close(got, want) -> None:
    assert (got.double() - want).abs().max() <= 2**-9 * max(want.abs().max(), 1.0)


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_a_matmul_reaches_far_rows_and_columns(side, far) -> None:
    apart, near = far(3, 32), torch.ones((5, 32), dtype=torch.float16)
    x, w = (apart, near.T) if side == "rows" else (near, apart.T)
    config = Config({"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 32, "GROUP_M": 1}, 4, 1)
    _close(matmul(x, w, config=config), x.double() @ w.double())


def test_prompts_of_far_sequences(far) -> None:
    q, (k, v) = torch.ones((3, 2, 1, 16), dtype=torch.float16), (far(3, 4, 1, 16) for _ in range(2))
    got, _ = prefill_attention(q, k, v, config=Config({"BLOCK_M": 16, "BLOCK_N": 16}, 4, 1))
    _close(got, prefill_attention_reference(q.double(), k.double(), v.double())[0])


@pytest.mark.parametrize("is_paged", [False, True])
def test_caches_of_far_sequences_and_pages(is_paged, far) -> None:
    q, (k, v) = torch.ones((3, 1, 16), dtype=torch.float16), (far(3, 4, 1, 16) for _ in range(2))
    lengths = torch.full((3,), 4, dtype=torch.int32)
    table = torch.arange(3, dtype=torch.int32)[:, None] if is_paged else None
    got, _ = decode_attention(q, k, v, lengths, block_table=table, config=Config({"BLOCK_N": 16}, 4, 1))
    _close(got, decode_attention_reference(q.double(), k.double(), v.double(), lengths)[0])
