"""PaLM 540B on 64 TPU v4: the quickest plan, the cheapest, and what lies between.

The setting of Pope et al., "Efficiently Scaling Transformer Inference" (2022): 2048 tokens in, 64 out, int8 weights.
"""

import shardwise
from shardwise import Plan


def describe(title: str, plan: Plan) -> None:
    """One plan in two lines."""
    print(f"{title}: {plan.request_latency_s:.1f} s a request, {plan.chip_s_per_request:.0f} chip-seconds")
    for phase in (plan.prefill, plan.decode):
        mesh = f"{phase.mesh.x}x{phase.mesh.y}x{phase.mesh.z}"
        print(f"  {phase.phase:8} {phase.layout:13} mesh {mesh:7} batch {phase.batch:4}  MFU {phase.mfu:.2f}")


quick = shardwise.plan("palm-540b", "tpu-v4:4x4x4", input_tokens=2048, output_tokens=64, weights="int8", top=1)
cheap = shardwise.plan(
    "palm-540b", "tpu-v4:4x4x4", input_tokens=2048, output_tokens=64, weights="int8", objective="cost", top=1
)
describe("quickest", quick.best)
describe("cheapest", cheap.best)

interactive = shardwise.plan(
    "palm-540b", "tpu-v4:4x4x4", input_tokens=2048, output_tokens=64, weights="int8", ttft_s=2.0, tpot_s=0.03, top=1
)
describe("cheapest within 2 s to the first token and 30 ms a token", interactive.best)
for reason in ("out of memory", "TTFT over the limit", "TPOT over the limit"):
    print(f"  refused {interactive.rejected[reason] / interactive.n_candidates:.2f} of the candidates: {reason}")
