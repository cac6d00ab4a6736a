from __future__ import annotations

import copy

import torch

from treadle.tracts.feeds.cache import VolumeCache


def test_what_was_used_last_is_kept_within_the_limit():
    cache, read = VolumeCache(2 * 400), []

    def get(key, size=100):
        return cache.get(key, 4 * size, lambda: read.append(key) or torch.full((size,), float(key)))

    for key in (1, 2, 1, 3, 1, 2):
        assert get(key)[0] == key
    # 3 took the place of 2, which was used longest ago.
    assert read == [1, 2, 3, 2] and (cache.hits, cache.misses) == (2, 4) and cache.held == 800
    get(4, 201)
    assert read[-1] == 4 and cache.held == 800
    get(1)
    assert cache.hits == 3
    get(4, 201)
    assert cache.misses == 6


def test_a_copy_for_another_process_is_empty():
    cache = VolumeCache(1 << 20)
    cache.get(1, 36, lambda: torch.zeros(9))
    other = copy.deepcopy(cache)
    assert (other.limit, other.held, other.hits, other.misses) == (1 << 20, 0, 0, 0)
    other.get(1, 36, lambda: torch.ones(9))
    assert other.misses == 1


def test_room_is_made_before_a_volume_is_read():
    cache, held = VolumeCache(2 * 400), []

    def read():
        held.append(cache.held)
        return torch.zeros(100)

    for key in (1, 2, 3):
        cache.get(key, 400, read)
    assert held == [0, 400, 400]
