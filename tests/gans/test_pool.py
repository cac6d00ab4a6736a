from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from treadle import Trainer
from treadle.errors import StateError, UsageError
from treadle.gans.pool import ImagePool
from treadle.testing import capture, restore


def numbered(first, n=1, shape=(1, 2, 2)):
    """Pictures that are told apart by their value."""
    return torch.arange(first, first + n).float().reshape(n, *[1] * len(shape)).expand(n, *shape)


def test_until_it_is_full_pictures_are_handed_on():
    pool = ImagePool(5)
    images = numbered(0, 5)
    assert pool(images[:3]).equal(images[:3]) and pool(images[3:]).equal(images[3:])
    assert pool.count == 5 and pool.state_dict()["pictures"].equal(images)


def test_half_of_the_pictures_are_earlier_ones_each_as_likely():
    torch.manual_seed(0)
    pool, size, n = ImagePool(10), 10, 20000
    pool(numbered(-size, size))
    came = numbered(0, n, (1,))
    out = torch.cat([pool(batch) for batch in came.split(4)])
    earlier = (out != came).flatten()
    assert earlier.double().mean().item() == pytest.approx(0.5, abs=0.015)
    # A kept picture is given out with probability 1/2 * 1/size per new one: its age is geometric, its mean 2 * size.
    age = (came - out).flatten()[earlier & (out.flatten() >= 0)]
    assert age.min() >= 1 and age.mean().item() == pytest.approx(2 * size, rel=0.05)
    # Of those exchanged none comes out twice, and none that is still kept.
    exchanged = out.flatten()[earlier].tolist()
    assert len(set(exchanged)) == len(exchanged)
    assert not set(exchanged) & set(pool.state_dict()["pictures"].flatten().tolist())


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 5), batches=st.lists(st.integers(0, 6), max_size=8), seed=st.integers(0, 99))
def test_whatever_the_batches_the_pool_is_that_of_single_pictures(size, batches, seed):
    class Recorded(ImagePool):
        """Uses up chances and slots that were drawn before, whatever the batches are."""

        def _draw(self, n):
            drawn = chances[:n], slots[:n]
            del chances[:n], slots[:n]
            return drawn

    came, results = sum(batches), []
    torch.manual_seed(seed)
    source = torch.rand(came).tolist(), torch.randint(size, (came,)).tolist()
    for split in (batches, [1] * came):
        chances, slots = list(source[0]), list(source[1])
        pool = Recorded(size)
        out = [pool(images) for images in numbered(0, came).split(split)] if came else []
        results.append((torch.cat(out).flatten().tolist() if out else [], pool.count))
    assert results[0] == results[1]
    assert results[0][1] == min(size, came) and set(results[0][0]) <= set(range(came))


def test_pictures_are_detached_and_the_pool_keeps_its_own_copies():
    pool = ImagePool(2)
    images = torch.zeros(1, 1, 2, 2, requires_grad=True)
    given_on = pool(images * 1)
    assert not given_on.requires_grad
    given_on += 5
    assert pool.state_dict()["pictures"].equal(torch.zeros(1, 1, 2, 2))


def test_size_0_passes_through_and_draws_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    images = numbered(0, 3).clone().requires_grad_()
    out = ImagePool(0)(images)
    assert out.equal(images) and not out.requires_grad and torch.get_rng_state().equal(before)
    with pytest.raises(UsageError, match="an image pool of -1 pictures is not possible"):
        ImagePool(-1)


def test_pictures_of_several_shapes_and_dtypes_are_kept_together_and_exchanged_among_their_like():
    torch.manual_seed(0)
    pool, shapes, given_out = ImagePool(6), [(1, 2, 2), (1, 4, 4), (1, 2, 6)], 0
    for number in range(300):
        image = numbered(number, 1, shapes[number % 3])
        image = image.bfloat16() if number % 5 == 0 else image
        out = pool(image)
        assert (out.shape, out.dtype) == (image.shape, image.dtype)
        given_out += not out.equal(image)
    assert pool.count == 6 and 20 < given_out < 100
    copy = ImagePool(6)
    copy.load_state_dict(pool.state_dict())
    for number in range(300, 340):
        image, results = numbered(number, 1, shapes[number % 3]), []
        for one in (pool, copy):
            torch.manual_seed(number)
            results.append(one(image))
        assert results[0].equal(results[1])


@pytest.mark.parametrize("kept", [0, 2, 3])
def test_a_copy_by_state_goes_on_alike(kept):
    pool, copy = ImagePool(3), ImagePool(3)
    copy(numbered(90, 3, (1, 5, 5)))  # what it had is replaced, its shape too
    if kept:
        pool(numbered(0, kept))
    copy.load_state_dict(pool.state_dict())
    results = []
    for one in (pool, copy):
        torch.manual_seed(1)
        results.append(torch.cat([one(numbered(first, 2)) for first in range(10, 30, 2)]))
    assert results[0].equal(results[1])


class Pooled(Trainer):
    """A generator whose pictures a discriminator sees through a pool; the pictures grow at step `grow`."""

    size, grow = 4, None

    def setup(self):
        self.generator = nn.Conv2d(1, 1, 3, padding=1)
        self.optimizer = torch.optim.SGD(self.generator.parameters(), lr=0.1)
        self.pool = ImagePool(self.size)

    def step(self, batch):
        if self.grow is not None and self.progress.step >= self.grow:
            batch = batch.repeat(1, 1, 2, 2)
        fake = self.generator(batch)
        # What comes out of the pool decides the update: were it another picture, the weights would differ.
        loss = (fake.mean((0, 2, 3)) - self.pool(fake).mean() - 1).square().sum()
        self.minimize(loss)
        return {"loss": loss}


DATA = torch.linspace(-1, 1, 30 * 16).reshape(30, 1, 4, 4)
SETTINGS = {"batch_size": 2, "seed": 4, "max_steps": 20, "log_every": "1 step"}


@pytest.mark.parametrize(("grow", "stop"), [(None, 1), (None, 11), (10, 9), (10, 11), (10, 13)])
def test_a_run_resumed_from_its_checkpoint_ends_with_the_same_digest(tmp_path, monkeypatch, grow, stop):
    monkeypatch.setattr(Pooled, "grow", grow)
    whole = Pooled(data=DATA, **SETTINGS)
    whole.train()
    first = Pooled(data=DATA, run_dir=tmp_path / "run", **{**SETTINGS, "max_steps": stop})
    first.train()
    resumed = Pooled(data=DATA, run_dir=first.run.path, resume=True, **SETTINGS)
    assert resumed.progress.step == stop and resumed.pool.count == first.pool.count > 0
    resumed.train()
    assert resumed.digest() == whole.digest()
    monkeypatch.setattr(torch, "randint", lambda high, shape, **_: torch.zeros(shape, dtype=torch.int64))
    other = Pooled(data=DATA, **SETTINGS)
    other.train()
    assert other.digest() != whole.digest()  # the digest does depend on which pictures came out


def test_going_back_to_an_empty_pool_and_a_pool_too_small(monkeypatch):
    trainer = Pooled(data=DATA, **SETTINGS)
    beginning = capture(trainer).copy()
    trainer.iterate()
    full = capture(trainer).copy()
    assert trainer.pool.count == 2
    restore(trainer, beginning)
    assert trainer.pool.state_dict() == {"pictures": None}
    monkeypatch.setattr(Pooled, "size", 1)
    with pytest.raises(StateError, match=r"'pool' .* 2 pictures do not go into a pool of 1"):
        restore(Pooled(data=DATA, **SETTINGS), full)
