"""placeholder"""


def score() -> None:
    """Placeholder"""
