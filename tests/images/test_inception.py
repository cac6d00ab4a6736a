from __future__ import annotations

import pytest
import torch

from treadle.images.inception import Inception
from treadle.images.pretrained import fill, read_tensors

# What `pytorch_fid.inception.InceptionV3` 0.3.0 gives for the same stand-in weights and the same picture: every 400th
# feature, and mean and standard deviation of all.
REFERENCE = [3.5023887157440186, 6.891294479370117, 12.81030559539795, 0.08530887961387634, 0.5925421118736267, 0.0]
MEAN, STD = 3.0155162811279297, 4.173613548278809


def test_as_the_reference(weights_file, noise):
    network = Inception()
    path = weights_file(network)
    fill(network, read_tensors(path, "Inception"), path, "Inception")
    with torch.inference_mode():
        features = network(noise(0))
    assert features.shape == (1, 2048)
    assert features[0, ::400].tolist() == pytest.approx(REFERENCE, rel=1e-4, abs=1e-4)
    assert features.mean().item() == pytest.approx(MEAN, rel=1e-5)
    assert features.std().item() == pytest.approx(STD, rel=1e-5)
