"""Llama 2 70B on several pools: what each costs a request and where its time goes, as a table."""

import pandas as pd
import shardwise

POOLS = ("a100-80gb-sxm:8", "h100-sxm:8", "h200-sxm:4", "tpu-v5p:2x2x2")

tables = []
for pool in POOLS:
    result = shardwise.plan(
        "llama-2-70b", pool, input_tokens=2048, output_tokens=128, batch=32, objective="cost", bound=True, top=1
    )
    tables.append(result.to_pandas().assign(pool=pool))

table = pd.concat(tables)
table["layout"] = table["ffn"] + "/" + table["attention"]
table["step (ms)"] = (1e3 * table["step_s"]).map("{:.3g}".format)
table["chip-ms a token"] = (1e3 * table["cost_chip_s_per_token"]).map("{:.3g}".format)
table["memory"] = (table["hbm_bytes_per_chip"] / 1e9).map("{:.0f} GB".format)
columns = ["pool", "phase", "layout", "tp", "pp", "dp", "step (ms)", "chip-ms a token", "memory", "bound"]
print("Llama 2 70B, 32 requests at once, at the roofline:")
print(table[columns].to_string(index=False))
