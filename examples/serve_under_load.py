"""Serve Llama 3 8B on one H100 under growing traffic: where the waiting begins, and what chunked prefill does for it."""

import shardwise

plan = shardwise.estimate("llama-3-8b", "h100-sxm:1", input_tokens=1024, output_tokens=128)
print("requests/s  scheduler  TTFT p50  TTFT p99  gap p99  in limits  goodput/s")
for rate in (10.0, 20.0, 30.0):
    for scheduler in ("vllm", "chunked"):
        report = shardwise.simulate(
            plan,
            rate_per_s=rate,
            n_requests=2000,
            lengths="lognormal:1.0",
            scheduler=scheduler,
            token_budget=2048,
            ttft_s=0.5,
            tpot_s=0.03,
            warmup_requests=200,
        )
        found = report.summary()
        milliseconds = (1e3 * t for t in (found.ttft_s.p50, found.ttft_s.p99, found.itl_s.p99))
        ttft, worst, gap = (f"{t:.0f} ms" for t in milliseconds)
        print(
            f"{rate:10.0f}  {scheduler:9}  {ttft:>8}  {worst:>8}  {gap:>7}  {found.within_slo:9.2f}  {found.goodput_per_s:9.1f}"
        )
