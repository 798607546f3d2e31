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


BOUND = Constants()
