"""placeholder"""


def calibrate() -> None:
    """Placeholder"""
