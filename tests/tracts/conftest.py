"""Where the real diffusion data is, for the tests that use it; makes helpers importable, in spawned workers, too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def canon() -> Path:
    """What the files of `dwi_canon` begin with."""
    return there(SHARED / "dwi_canon" / "3000_DTI_PA-ortho_cl.bval").with_suffix("")


@pytest.fixture(scope="session")
def mrtrix() -> Path:
    """The folder `dwi_mrtrix`."""
    return there(SHARED / "dwi_mrtrix" / "SIFT_phantom_tracks.tck").parent


def there(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.parent.name} is not there: ../shared/data/{path.parent.name} holds it")
    return path
