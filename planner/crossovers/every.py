"""All crossovers by name."""

from collections.abc import Callable

from ...hardware_specs.errors import UnknownNameError
from .attention import latent, multiquery, window
from .experts import deepseek, mixtral, switch
from .recurrent import recurrent
from .values import Crossover

CROSSOVERS: dict[str, Callable[[], Crossover]] = {
    "multiquery": multiquery,
    "latent": latent,
    "recurrent": recurrent,
    "window": window,
    "switch": switch,
    "experts-mixtral": mixtral,
    "experts-deepseek": deepseek,
}


def find_crossover(name: str) -> Crossover:
    """Work one out.

    Raises
    ------
    UnknownNameError : no such crossover
    """
    if name not in CROSSOVERS:
        raise UnknownNameError("crossover", name, CROSSOVERS)
    return CROSSOVERS[name]()
