"""What tests of every root share: the photos beside the project. No helper that one test needs."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photo archives beside the project; they may not be shipped with it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the photos of ../shared/data are not here")
    return folder
