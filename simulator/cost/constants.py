"""The fitted numbers of the cost model: each with a physical name and a unit, nothing else."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What a chip and its software reach of what is claimed; the defaults are the bound.

    Parameters
    ----------
    matmul_efficiency : share of the dense peak a large matmul reaches
    hbm_efficiency : share of the HBM rate a long read reaches
    link_efficiency : share of its links' rate that a collective on its own reaches
    network_efficiency : share of a network port that a collective between nodes reaches
    ring_efficiency : share of one ring's rate that a looped collective reaches beside its matmul
    collective_launch_s : start of one collective, whatever its size
    hop_s : one hop between neighbours
    kernel_launch_s : fixed cost of one kernel, whatever its size
    pass_s : once per forward pass: dispatch, sampling, the host
    sequence_s : once per sequence and forward pass: what the host does for each, sampling and detokenising among it
    dispatch_s : the host launches one kernel; a pass takes no less than launching all of its kernels one by one
    launch_share : part of a measured kernel's fixed time that is left among others: in a graph a kernel starts while the one
        before it ends, and what was timed with it alone (the format's conversion, say) is fused elsewhere
    pointwise_slowdown : memory traffic of norms, activations and sums over what they must read and write: engines that fuse
        little pass over their data again and again
    matmul_slowdown, attention_slowdown, collective_slowdown, experts_slowdown, latent_slowdown, scan_slowdown : time of this
        software's kernels over that of the kernels
        that were measured on the chip, or over the bound where none were
    """

    matmul_efficiency: float = 1.0
    hbm_efficiency: float = 1.0
    link_efficiency: float = 1.0
    network_efficiency: float = 1.0
    ring_efficiency: float = 1.0
    collective_launch_s: float = 0.0
    hop_s: float = 0.0
    kernel_launch_s: float = 0.0
    pass_s: float = 0.0
    sequence_s: float = 0.0
    dispatch_s: float = 0.0
    launch_share: float = 1.0
    pointwise_slowdown: float = 1.0
    matmul_slowdown: float = 1.0
    attention_slowdown: float = 1.0
    collective_slowdown: float = 1.0
    experts_slowdown: float = 1.0
    latent_slowdown: float = 1.0
    scan_slowdown: float = 1.0


BOUND = Constants()
