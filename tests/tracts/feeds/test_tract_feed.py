from __future__ import annotations

import numpy as np
import pytest
import torch
from lines_cases import SIZES, subject, subjects

from treadle import Trainer
from treadle.data.feed import Batches
from treadle.errors import UsageError
from treadle.parallel import World
from treadle.testing import check_resume
from treadle.tracts.batch import LineBatch
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject

EVERYTHING = {
    "split": 0.5,
    "reverse": 0.5,
    "noise": 0.1,
    "noise_targets": 0.1,
    "rotate": True,
    "neighbourhood": "axes",
    "step_size": 0.4,
    "subjects_per_batch": 2,
}


class One(World):
    """Process `rank` of `size`."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def feed(given=None, *, training=True, ends=True, workers=0, seed=3, world=None, **settings) -> TractFeed:
    given = subjects(30, 40, 6) if given is None else given
    made = TractFeed(
        given, LinesSettings(**({"batch_size": 16} | settings)), training=training, ends=ends, workers=workers
    )
    made.bind(seed, "cpu", *([world] if world else []))
    return made


def assert_same(ours: list[LineBatch], theirs: list[LineBatch]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_same_bits_from_any_number_of_workers_lazily_and_in_memory():
    reference = feed(**EVERYTHING)
    expected = [list(reference.iterate(epoch)) for epoch in (0, 1)]
    count = len(expected[0])
    for workers, lazy in ((0, True), (1, False), (3, True)):
        other = feed(workers=workers, lazy=lazy, **EVERYTHING)
        for epoch in (0, 1):
            assert_same(list(other.iterate(epoch)), expected[epoch])
        assert_same(list(other.iterate(0, count - 2)), expected[0][-2:])
        assert (other.hits is not None) == lazy and (not lazy or 0 < other.hits < 1)
        other.close()
    assert_same([reference.gather(1, batch) for batch in reference.plan(1)], expected[1])
    reference.close()


def test_every_line_once_in_each_epoch_and_never_the_same_way_twice():
    made = feed(**EVERYTHING)
    epochs = [list(made.iterate(epoch)) for epoch in (0, 1)]
    for batches in epochs:
        assert sorted({*torch.cat([batch.lines for batch in batches]).tolist()}) == list(range(76))
    found = [{int(line): batch.points[batch.offsets[k]] for batch in batches for k, line in enumerate(batch.lines)}
             for batches in epochs]  # fmt: skip
    assert sum(torch.equal(found[0][line], found[1][line]) for line in range(76)) < 5


def test_the_order_may_stay_while_lines_change():
    made = TractFeed(subjects(30), LinesSettings(batch_size=8, noise=0.1), training=True, ends=True, shuffle=False)
    one, other = (list(made.iterate(epoch)) for epoch in (0, 1))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.lines, b.lines) and not torch.equal(a.points, b.points)


def test_validation_is_always_the_same_and_lines_are_as_they_are():
    settings = {key: value for key, value in EVERYTHING.items() if key != "step_size"}
    one = feed(training=False, **settings)
    assert_same(list(one.iterate(0)), list(feed(training=False, seed=9, lazy=True, **settings).iterate(4)))
    given = subjects(30, 40, 6)
    for batch in one.iterate(0):
        for k, line in enumerate(batch.lines.tolist()):
            own = line - (0, 30, 70)[int(batch.subject[k])]
            points = given[int(batch.subject[k])].streamlines("bundle")[own]
            np.testing.assert_allclose(batch.points[batch.offsets[k] : batch.offsets[k + 1]], points, atol=1e-6)
    one.close()


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_each_batch(size):
    whole = list(feed(**EVERYTHING).iterate(1))
    parts = [feed(world=One(rank, size), lazy=rank == 1, **EVERYTHING).iterate(1) for rank in range(size)]
    for batch in whole:
        shares = []
        for each in parts:
            assert isinstance(each, Batches)
            share = next(each)
            shares += [] if each.borrowed else [share]
        assert torch.equal(torch.cat([share.lines for share in shares]), batch.lines)
        for column in ("features", "points", "previous", "targets", "last"):
            assert torch.equal(torch.cat([getattr(share, column) for share in shares]), getattr(batch, column))
    assert all(each.exhausted for each in parts)


def test_hits_of_the_cache_are_told():
    assert feed().hits is None
    lazy = feed(lazy=True, subjects_per_batch=1)
    count = len(list(lazy.iterate(0)))
    assert lazy.hits == pytest.approx((count - 3) / count)
    none = feed(lazy=True, cache_mb=0)
    list(none.iterate(0))
    assert none.hits == 0


def test_fingerprints_tell_data_apart():
    one = feed()
    assert one.fingerprint() == feed(lazy=True, split=0.5).fingerprint()
    assert one.fingerprint() != feed(subjects(30, 40, 7)).fingerprint()
    assert not one.accept_fingerprint(feed(subjects(30, 40, 7)).fingerprint())


def test_lines_of_one_point_stay_away_and_are_counted():
    lines = Streamlines.of([np.full((1, 3), 4.0), [[4, 4, 4], [4, 5, 4]], np.zeros((0, 3))])
    given = MemorySubject("a", subject("a", 1).space, {}, {"l": lines})
    made = feed([given])
    assert made.left_out == 2 and made.inputs == 0
    (batch,) = made.iterate(0)
    assert batch.lines.tolist() == [1] and batch.targets[0].tolist() == [0, SIZES[1], 0]
    with pytest.raises(UsageError, match="no streamlines"):
        feed([MemorySubject("a", given.space, {}, {"l": lines.select(np.array([0, 2]))})])


def test_an_error_comes_at_the_batch_it_belongs_to_and_again():
    given = subject("a", 20)
    points = given.given_lines["bundle"].points.copy()
    points[given.given_lines["bundle"].offsets[7]] = np.nan
    broken = MemorySubject(
        "a", given.space, given.given_volumes, {"bundle": Streamlines(points, given.given_lines["bundle"].offsets)}
    )
    made = feed([broken], lazy=True, batch_size=4)
    bad = next(k for k, batch in enumerate(made.plan(0)) if 7 in batch)
    batches = made.iterate(0)
    for _ in range(bad):
        next(batches)
    for _ in range(2):
        with pytest.raises(UsageError, match="a: the streamlines 'bundle'"):
            next(batches)
    made.close()


# With a trainer ---------------------------------------------------------------------------------------------------


class Follower(Trainer):
    """Learns directions from features, by a line."""

    def __init__(self, *, given: dict, **settings) -> None:
        self.given = given
        super().__init__(**settings)

    def setup(self) -> None:
        self.feed = feed(**self.given)
        self.validation_feed = feed(training=False, **self.given)
        self.model = torch.nn.Linear(self.feed.inputs, 3)
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def step(self, batch: LineBatch) -> dict[str, torch.Tensor]:
        loss = self.loss(batch)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: LineBatch) -> dict[str, torch.Tensor]:
        return {"loss": self.loss(batch)}

    def loss(self, batch: LineBatch) -> torch.Tensor:
        return ((self.model(batch.features) - batch.targets) ** 2).mean()


UNEVEN = {"batch_size": 11, "subjects_per_batch": 1} | {"split": 0.3, "noise": 0.1}


def test_epochs_may_differ_in_length():
    plan = feed(**UNEVEN)
    counts = [len(plan.plan(epoch)) for epoch in range(6)]
    lengths = {len(feed(batch_size=40, batch_units="length_mm").plan(epoch)) for epoch in range(12)}
    assert plan.batches is None and len(lengths) > 1
    trainer = Follower(given=UNEVEN, max_epochs=6, seed=3, validate_every="2 epochs")
    summary = trainer.train()
    assert (summary.epoch, summary.step) == (6, sum(counts))


def test_a_percentage_of_epochs_that_differ_is_refused_and_of_steps_is_not():
    with pytest.raises(UsageError, match="needs the length of the run; set max_steps"):
        Follower(given=UNEVEN, max_epochs=2, seed=3, validate_every="50%").train()
    summary = Follower(given=UNEVEN, max_steps=10, seed=3, validate_every="50%").train()
    assert summary.step == 10
    fixed = {"batch_size": 40, "batch_units": "length_mm", "max_batches": 4}
    assert Follower(given=fixed, max_epochs=3, seed=3, validate_every="50%").train().step == 12


@pytest.mark.parametrize("given", [UNEVEN | {"lazy": True}, EVERYTHING])
def test_a_run_resumes_anywhere(given, tmp_path):
    check_resume(lambda **where: Follower(given=given, max_epochs=2, seed=3, **where), tmp_path, stops=[1, 4, 9])
