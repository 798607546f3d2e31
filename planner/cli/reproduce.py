"""placeholder"""


def reproduce() -> None:
    """placeholder"""
