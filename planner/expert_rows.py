"""A measured case of a mixture of experts: the degrees its row gives, as a layout and a mesh."""

from dataclasses import replace

from ..validate.measured_case import MeasuredCase


def with_experts(case: MeasuredCase, n_chips: int) -> MeasuredCase:
    """The case with its experts where the row says they are.

    tp and dp are attention's. Where dp replicas of attention have their experts in common they are one replica to us, on a
    mesh whose first axis is dp; else each is one of its own. Experts cut both ways (ep and moe_tp) are priced as ep has it:
    a chip holds as many bytes of them either way.
    """
    if case.prefill_layout or case.decode_layout or case.tp is None:
        return case
    tp, dp = case.tp, case.dp or n_chips // (case.tp * (case.pp or 1))
    sharers = (case.ep or 1) * (case.moe_tp or 1)
    experts = "expert" if (case.ep or 1) > 1 else "tensor"
    if dp == 1 or sharers <= tp:
        layout = f"ws-1d-allreduce/heads/{experts}"
        return replace(case, prefill_layout=layout, decode_layout=layout)
    if tp == 1:
        layout, mesh = "dp/heads", f"{dp}x1x1"
    else:
        layout, mesh = "dp-tp/heads", f"{dp}x{tp}x1"
    ways = ("expert", "exchange") if experts == "expert" else ("tensor",)
    layouts = ",".join(f"{layout}/{way}" for way in ways)
    return replace(case, prefill_layout=layouts, decode_layout=layouts, mesh=mesh, tp=tp * dp, dp=1)
