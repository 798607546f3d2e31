"""The tables of the kernel database of aiconfigurator-core, and how the columns of each become ours.

Latency stands in ms, in the tables of expert all-to-all in us. Message sizes are elements. That they count the whole buffer
(gathered, or to be reduced) and not one chip's part of it was found from the rate they give: 512 MiB gathered over 8 A100
take 2.29 ms, which is 205 GB/s into each chip; were it one chip's part, 1642 GB/s would pass links of 300 GB/s.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from .dtypes import parse_dtype
from .errors import SpecError

_MS, _US = 1e-3, 1e-6

# d_ff, experts per token and experts of models whose experts have no gate (Nemotron 3). TensorRT-LLM's tables say so of them.
_UNGATED = {(1856, 6, 128), (2688, 22, 512), (5120, 22, 512)}

_DTYPES = {
    "bfloat16": "bf16",
    "half": "fp16",
    "float16": "fp16",
    "int8": "int8",
    "sq": "int8",
    "fp8": "fp8",
    "fp8_block": "fp8-block",
    "int8_wo": "int8-wo",
    "int4_wo": "int4-wo",
    "w4afp8": "int4-fp8",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "w4a16_mxfp4": "mxfp4-wo",
    "w4a8_mxfp4_mxfp8": "mxfp4-fp8",
    "default": "",
}

Reader = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """One file of the database.

    Parameters
    ----------
    op : what to ask for it by; several tables may share it
    folder, file : where it lies, below the chip's folder
    read : its columns as ours, with `seconds` and the columns that `hardware_specs.kernel_rows` names
    library : the folder of the library whose table it is, where it is none of a framework's own
    every_version : rows that only an older version has count too: newer ones were measured on fewer nodes
    """

    op: str
    folder: str
    file: str
    read: Reader
    library: str | None = None
    every_version: bool = False


def _dtypes(column: "pd.Series[str]") -> "pd.Series[str]":
    unknown = sorted(set(column.unique()) - set(_DTYPES))
    if unknown:
        raise SpecError(
            f"the kernel database names formats {unknown} that are not known here; known: {sorted(_DTYPES)}"
        )
    return column.map(_DTYPES)


def _columns(raw: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Some columns as float, under our names."""
    return pd.DataFrame({ours: raw[theirs].astype(float) for ours, theirs in names.items()})


def _window(raw: pd.DataFrame) -> "pd.Series[float]":
    return raw["window_size"].astype(float) if "window_size" in raw else pd.Series(0.0, index=raw.index)


def _context(raw: pd.DataFrame) -> "pd.Series[float]":
    """Tokens a decoded token attends to, itself among them."""
    return (raw["isl"] + raw["step"]).astype(float)


def _about(raw: pd.DataFrame, dtype: str, op: "pd.Series[str] | str", unit_s: float) -> pd.DataFrame:
    return pd.DataFrame({"op": op, "dtype": _dtypes(raw[dtype]), "seconds": raw["latency"] * unit_s}, index=raw.index)


def _matmul(raw: pd.DataFrame) -> pd.DataFrame:
    about = _about(raw, "gemm_dtype", "matmul", _MS)
    return about.join(_columns(raw, {"m": "m", "n": "n", "k": "k"}))


_HEADS = {"heads": "num_heads", "kv_heads": "num_key_value_heads", "d_head": "head_dim"}


def _prefill_attention(raw: pd.DataFrame) -> pd.DataFrame:
    about = _about(raw, "attn_dtype", "prefill attention", _MS)
    shape = _columns(raw, {"batch": "batch_size", "new": "isl", "past": "step", **_HEADS})
    return about.join(shape).assign(window=_window(raw), kv=_dtypes(raw["kv_cache_dtype"]))


def _decode_attention(raw: pd.DataFrame) -> pd.DataFrame:
    about = _about(raw, "attn_dtype", "decode attention", _MS).assign(batch=raw["batch_size"].astype(float))
    shape = _columns(raw, _HEADS)
    return (
        about.assign(context=_context(raw)).join(shape).assign(window=_window(raw), kv=_dtypes(raw["kv_cache_dtype"]))
    )


def _mla(op: str) -> Reader:
    """Attention over a latent; the tables call the heads of one chip `num_heads`."""

    def read(raw: pd.DataFrame) -> pd.DataFrame:
        frame = _about(raw, "mla_dtype", op, _MS).assign(batch=raw["batch_size"].astype(float))
        if "prefill" in op:
            frame = frame.join(_columns(raw, {"new": "isl", "past": "step"}))
        else:
            frame = frame.assign(context=_context(raw))
        frame = frame.assign(heads=raw["num_heads"].astype(float), kv=_dtypes(raw["kv_cache_dtype"]))
        return frame.assign(gemm=_dtypes(raw["gemm_type"])) if "module" in op else frame

    return read


def _moe(raw: pd.DataFrame) -> pd.DataFrame:
    names = {
        "tokens": "num_tokens", "d_model": "hidden_size", "d_ff": "inter_size", "top_k": "topk",
        "experts": "num_experts", "tp": "moe_tp_size", "ep": "moe_ep_size",
    }  # fmt: skip
    frame = _about(raw, "moe_dtype", "moe", _MS).join(_columns(raw, names))
    exponents = {text: _exponent(text) for text in raw["distribution"].unique()}
    ungated = raw.set_index(["inter_size", "topk", "num_experts"]).index.isin(_UNGATED)
    gated = ~raw["kernel_source"].str.contains("nongated") & ~ungated
    return frame.assign(skew=raw["distribution"].map(exponents).astype(float), gated=gated.astype(float))


def _exponent(distribution: str) -> float:
    """How unequal experts are chosen: the exponent of their power law.

    >>> _exponent("power_law_1.01"), _exponent("balanced")
    (1.01, 0.0)
    """
    if distribution in ("balanced", "uniform"):
        return 0.0
    return float(distribution.removeprefix("power_law_"))


def _bytes(raw: pd.DataFrame, dtype: str) -> "pd.Series[float]":
    sizes = {name: parse_dtype(name).bytes_per_element for name in raw[dtype].unique()}
    return raw["message_size"] * raw[dtype].map(sizes).astype(float)


def _library_collective(raw: pd.DataFrame) -> pd.DataFrame:
    """NCCL's own test program, or oneCCL's."""
    frame = _about(raw, "nccl_dtype", raw["op_name"].replace("alltoall", "all_to_all"), _MS)
    mode = raw["kernel_source"].str.lower()
    return frame.assign(bytes=_bytes(raw, "nccl_dtype"), chips=raw["num_gpus"].astype(float), mode=mode)


def _all_reduce(raw: pd.DataFrame) -> pd.DataFrame:
    """A framework's own all_reduce. Where no launch mode is named it is a graph's: 2.6 us cannot be launched eagerly."""
    frame = _about(raw, "allreduce_dtype", "all_reduce", _MS)
    mode: pd.Series[str] | str = "graph"
    if "backend" in raw:
        mode = raw["backend"].str.rpartition("_")[2].where(raw["backend"].notna(), "graph")
    return frame.assign(bytes=_bytes(raw, "allreduce_dtype"), chips=raw["num_gpus"].astype(float), mode=mode)


_EXCHANGED = {"d_model": "hidden_size", "top_k": "topk", "experts": "num_experts"}


def _expert_exchange(raw: pd.DataFrame) -> pd.DataFrame:
    """Dispatch and combine, a row each; `latency` is in us here."""
    frame = _about(raw, "comm_dtype", "moe all_to_all", _US).assign(tokens=raw["num_tokens"].astype(float))
    frame = frame.join(_columns(raw, {**_EXCHANGED, "chips": "ep_size", "nodes": "node_num", "sms": "sms"}))
    return frame.assign(phase=raw["phase"], via=raw["comm_backend"])


def _deepep(via: str, columns: dict[str, tuple[str, ...]]) -> Reader:
    """Dispatch and combine side by side in us; formats are not named. `chips` follows from the nodes, see the database."""

    def read(raw: pd.DataFrame) -> pd.DataFrame:
        raw = raw.rename(columns={"num_topk": "topk"})
        phases = []
        for phase, parts in columns.items():
            frame = pd.DataFrame({"op": "moe all_to_all", "dtype": ""}, index=raw.index)
            frame["seconds"] = sum((raw[part] for part in parts), start=0.0 * raw["node_num"]) * _US
            frame["tokens"] = raw["num_token"].astype(float)
            frame = frame.join(_columns(raw, {**_EXCHANGED, "nodes": "node_num"}))
            sms = raw[f"{phase}_sms"] if f"{phase}_sms" in raw else pd.Series(0.0, index=raw.index)
            phases.append(frame.assign(sms=sms.astype(float), phase=phase, via=via, kernel=raw["kernel_source"]))
        return pd.concat(phases, ignore_index=True)

    return read


def _nvlink_exchange(raw: pd.DataFrame) -> pd.DataFrame:
    """TensorRT-LLM's own over NVLink, in ms; one NVLink domain counts as one node. Before, ranks tell counts."""
    op = pd.Series("moe all_to_all", index=raw.index).mask(raw["op_name"] == "alltoall_prepare", "moe prepare")
    frame = _about(raw, "moe_dtype", op, _MS).assign(tokens=raw["num_tokens"].astype(float))
    frame = frame.join(_columns(raw, {**_EXCHANGED, "chips": "moe_ep_size"})).assign(nodes=1.0, sms=0.0)
    return frame.assign(phase=raw["op_name"].str.removeprefix("alltoall_"), via=raw["kernel_source"])


TABLES: tuple[KernelTable, ...] = (
    KernelTable(op="matmul", folder="gemm", file="gemm_perf", read=_matmul),
    KernelTable(op="prefill attention", folder="attention", file="context_attention_perf", read=_prefill_attention),
    KernelTable(op="decode attention", folder="attention", file="generation_attention_perf", read=_decode_attention),
    KernelTable(op="collective", folder="comm", file="nccl_perf", read=_library_collective, library="nccl"),
    KernelTable(op="collective", folder="comm", file="oneccl_perf", read=_library_collective, library="oneccl"),
    KernelTable(op="collective", folder="comm", file="custom_allreduce_perf", read=_all_reduce),
    KernelTable(op="moe", folder="moe", file="moe_perf", read=_moe),
    KernelTable(op="mla prefill", folder="mla", file="context_mla_perf", read=_mla("mla prefill")),
    KernelTable(op="mla decode", folder="mla", file="generation_mla_perf", read=_mla("mla decode")),
    KernelTable(op="mla prefill module", folder="mla", file="mla_context_module_perf", read=_mla("mla prefill module")),
    KernelTable(
        op="mla decode module", folder="mla", file="mla_generation_module_perf", read=_mla("mla decode module")
    ),
    KernelTable(op="moe all_to_all", folder="comm", file="moe_a2a_perf", read=_expert_exchange),
    KernelTable(op="moe all_to_all", folder="comm", file="trtllm_alltoall_perf", read=_nvlink_exchange),
    KernelTable(
        op="moe all_to_all",
        folder="comm",
        file="wideep_deepep_ll_perf",
        read=_deepep("deepep_ll", {"dispatch": ("dispatch_avg_t_us",), "combine": ("combine_avg_t_us",)}),
        every_version=True,
    ),
    KernelTable(
        op="moe all_to_all",
        folder="comm",
        file="wideep_deepep_normal_perf",
        read=_deepep(
            "deepep_ht",
            {
                "dispatch": ("dispatch_transmit_us", "dispatch_notify_us"),
                "combine": ("combine_transmit_us", "combine_notify_us"),
            },
        ),
        every_version=True,
    ),
)
