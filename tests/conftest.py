"""Fixtures that every test may use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Find the reference data beside the checkout, or skip the test that reads it."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "measured").is_dir():
            return folder / "shared"
    pytest.skip("no folder shared/ beside this checkout")
