"""Price one deployment without searching: Llama 3 8B on one H100, and where a decode step's time goes."""

import shardwise

result = shardwise.estimate(
    "llama-3-8b",
    "h100-sxm:1",
    input_tokens=2048,
    output_tokens=64,
    batch=32,
    decode="ws-1d-allreduce/heads",
    bound=True,
)
decode = result.best.decode
print(f"{decode.layout} on {decode.slice}, batch {decode.batch}: {1e3 * decode.step_s:.2f} ms a token at the roofline")
print(f"bound by {decode.bound}, MFU {decode.mfu:.2f}, {decode.hbm_bytes_per_chip / 1e9:.1f} GB on the chip")
for step in sorted(decode.breakdown, key=lambda step: -step.total_s)[:5]:
    print(
        f"  {step.step:15} compute {1e6 * step.compute_s:6.1f} us  memory {1e6 * step.memory_s:7.1f} us  ({step.source})"
    )

memory = decode.memory
for name in ("weights", "kv_cache", "activations"):
    print(f"  {name:12} {getattr(memory, name) / 1e9:6.2f} GB")
