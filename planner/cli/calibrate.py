"""placeholder"""


def calibrate() -> None:
    """placeholder"""
