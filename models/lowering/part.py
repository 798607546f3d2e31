"""What a mixer and a feed-forward part of a block have in common: weights that enter, what leaves, steps between."""

from dataclasses import dataclass, field
from typing import Protocol

from ..blocks import Block
from ..builder import Builder
from ..description import Model
from ..forms import Form
from ..layouts import Layout
from ..program import Tensor, WeightRole
from .forms import BlockForms

# What leaves a part: a tensor and the weight that takes it back to d_model; no weight where it is there already.
Leaving = tuple[Tensor, str | None]


@dataclass(slots=True, kw_only=True)
class Context:
    """A block on its way to steps.

    Parameters
    ----------
    stored, used : every matrix as it lies in memory, and the form its einsum takes it in
    vectors : norms, biases and the like: whole on every chip
    both_ways : every token meets every other, so nothing is kept of them
    state : what a layer keeps of every sequence
    """

    model: Model
    block: Block
    layout: Layout
    forms: BlockForms
    builder: Builder
    scores: bool
    both_ways: bool = False
    role: WeightRole = "weight"
    stored: dict[str, Tensor] = field(default_factory=dict)
    used: dict[str, Form] = field(default_factory=dict)
    vectors: list[Tensor] = field(default_factory=list)
    state: list[Tensor] = field(default_factory=list)

    def matrix(self, name: str, stored: Form, used: Form, *, copies: int = 1) -> None:
        """Declare a matrix of the block; `role` says what kind of weights those declared now are."""
        self.stored[name] = Tensor(name=name, form=stored, role=self.role, copies=copies)
        self.used[name] = used

    def vector(self, name: str, form: Form, copies: int = 1) -> None:
        """Declare a vector of the block."""
        self.vectors.append(Tensor(name=name, form=form, role="end", copies=copies))

    def weights(self, names: tuple[str, ...], partner: str) -> list[Tensor]:
        """The weights as their einsum takes them; gathered in one collective if the layout says so."""
        return self.builder.bring([(self.stored[name], self.used[name]) for name in names], partner=partner)

    def share_statistics(self, name: str, form: Form, dim: str, letter: str) -> None:
        """Every chip's own numbers about its part of `dim` go to all that hold another part; `letter` counts them."""
        share_statistics(self.builder, name, form, dim, letter)


def share_statistics(builder: Builder, name: str, form: Form, dim: str, letter: str) -> None:
    """Every chip's own numbers about its part of `dim` go to all that hold another part; `letter` counts them."""
    axes = form.axes_of(dim)
    if axes:
        rest = tuple(item for item in form.dims if item[0] not in (dim, "Q"))
        parts = Tensor(name=name, form=Form((*rest, (letter, axes))), role="statistic")
        builder.bring([(parts, Form((*rest, (letter, ()))))])


def mix_tokens(context: Context, x: Tensor, name: str, weights: tuple[str, ...]) -> dict[str, Tensor]:
    """Mix every token with the one before it, for each of `weights` in shares of its own; the last one is kept."""
    letters = tuple(item for item in x.form.dims if item[0] != "L")
    context.state.append(Tensor(name=f"last of {name}", form=Form(letters), role="state"))
    made = [Tensor(name=f"{name} for {weight}", form=x.form) for weight in weights]
    context.builder.pointwise("mix", name, [x], made)
    return dict(zip(weights, made, strict=True))


class Part(Protocol):
    """A mixer or a feed-forward part of one block."""

    @property
    def entering(self) -> tuple[tuple[str, str], ...]:
        """(weight, what it makes of the normed input), all in one einsum."""
        ...

    def mixed(self, x: Tensor) -> dict[str, Tensor]:
        """Add steps on the normed input `x` as it enters; what each weight multiplies where that is not `x` itself."""
        ...

    def goal(self, out: str) -> Form:
        """The form that what entered is wanted in, once its partial sums are added up."""
        ...

    def run(self, x: Tensor, made: dict[str, Tensor]) -> list[Leaving]:
        """Add the steps between; `x` is the normed input as it entered."""
        ...
