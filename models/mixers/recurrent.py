"""What all recurrent mixers have in common: a state of fixed size that every token updates and reads."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """Numbers of a mixer that are no matrix: norms, biases, decays, convolution weights.

    Parameters
    ----------
    size : numbers of one head (`per` H), of one group of heads (K), or in all
    """

    name: str
    size: int
    per: Literal["H", "K", ""] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Sizes of a recurrent mixer.

    A token is projected to `per_head` numbers for each head and `per_group` numbers for each group of heads; some channels
    pass a short convolution; a head's state of `d_state` x `d_value` is updated and read; what is read is projected back.

    Parameters
    ----------
    n_heads, d_value, d_state : of the state
    n_groups, per_group : numbers that heads of one group share (keys and queries, B and C); 0 where there are none
    low_rank, widened : numbers made from the convolved channels, and how many of them are widened to a number a channel
        again (the step size of Mamba); 0 where there are none
    squeezed : numbers made from the token and widened to one a channel again (decay and gate of Kimi's delta attention)
    convolved_per_head, convolved_per_group, d_conv : channels that pass a convolution, and how many tokens it sees
    keeps_sums : the state has one more column, the sum of the keys
    last_token : width of the last token where the next one is mixed with it, else 0
    vectors : all that is no matrix
    """

    n_heads: int
    d_value: int
    d_state: int
    per_head: int
    n_groups: int = 0
    per_group: int = 0
    low_rank: int = 0
    widened: int = 0
    squeezed: int = 0
    convolved_per_head: int = 0
    convolved_per_group: int = 0
    d_conv: int = 1
    keeps_sums: bool = False
    last_token: int = 0
    vectors: tuple[Vector, ...] = ()

    @property
    def d_inner(self) -> int:
        """Channels of all heads."""
        return self.n_heads * self.d_value

    @property
    def state_elements(self) -> int:
        """Numbers of one sequence's state in one layer."""
        return self.n_heads * self.d_state * (self.d_value + self.keeps_sums) + self.last_token

    @property
    def conv_elements(self) -> int:
        """Numbers of one sequence that the convolution of one layer still needs."""
        convolved = self.n_heads * self.convolved_per_head + self.n_groups * self.convolved_per_group
        return convolved * (self.d_conv - 1)

    @property
    def n_vector_params(self) -> int:
        """Numbers in all vectors."""
        times = {"H": self.n_heads, "K": self.n_groups, "": 1}
        return sum(vector.size * times[vector.per] for vector in self.vectors)

    def matrix_params(self, d_model: int) -> int:
        """Elements of all projections."""
        into = d_model * (self.n_heads * self.per_head + self.n_groups * self.per_group)
        squeezed = self.squeezed * (d_model + self.d_inner)
        return into + squeezed + self.d_inner * (self.low_rank + self.widened) + self.d_inner * d_model
