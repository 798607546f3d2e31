"""placeholder"""


def reproduce() -> None:
    """Placeholder"""
