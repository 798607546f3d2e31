"""placeholder"""


def score() -> None:
    """placeholder"""
