"""What a trained run's exporters know of what it was trained with."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.cameras.procedural import procedural_capture
from treadle.errors import UsageError
from treadle.splats.scene import trained_scene
from treadle.splats.trainer import SplatsTrainer


def test_photographs_that_a_program_gave_are_not_taken_for_others(tmp_path: Path) -> None:
    capture = procedural_capture(16, 3, 1)
    trainer = SplatsTrainer(
        data=capture, max_steps=2, run_dir=tmp_path / "own", random=20, examples_every=None, turntable=0, device="cpu"
    )
    trainer.train()
    scene = trained_scene(SplatsTrainer, tmp_path / "own" / "v001")
    assert len(scene.cloud) == len(trainer.model)
    with pytest.raises(UsageError, match="was trained on photographs that a program gave it"):
        scene.setting()
