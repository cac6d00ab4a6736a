"""Evaluating: several sets, metric objects, predictions, and batches that are what they are."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from treadle import EMA, DatasetFeed, RunError, StreamFeed, TensorFeed, Trainer, UsageError
from treadle.data.named import NamedFeeds
from treadle.testing import Line, check_resume, line_data

X, Y = line_data(30)
EASY, HARD = (X[:12], Y[:12]), (X[12:], 2 * Y[12:])


class Reading:
    """A source that remembers how far it was read."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while self.at < 12:
            self.at += 1
            yield X[self.at], Y[self.at]
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


# Several sets -------------------------------------------------------------------------------------------------------


def test_several_validation_sets_are_told_apart():
    sets = {"easy": EASY, "hard": HARD}
    trainer = Line(data=(X, Y), validation_data=sets, batch_size=5, max_epochs=2, monitor="hard/loss")
    trainer.train()
    alone = {}
    for name, data in sets.items():
        other = Line(data=(X, Y), validation_data=data, batch_size=5, max_epochs=2)
        other.train()
        alone[f"{name}/loss"] = other.validation_metrics["loss"]
    assert trainer.validation_metrics == alone
    assert trainer.best["monitor"] == "hard/loss" and trainer.best["value"] == alone["hard/loss"]


def test_each_set_is_what_data_may_be_and_the_step_knows_which_it_is():
    class Telling(Line):
        def setup(self):
            super().setup()
            self.order = []

        def validation_step(self, batch):
            self.order.append((self.evaluated_set, len(batch[0])))
            return super().validation_step(batch)

    points = list(zip(X, Y, strict=True))
    sets = {
        "columns": (X[:4], Y[:4]),
        "feed": TensorFeed((X, Y), 20, shuffle=False),
        "dataset": DatasetFeed(points, 16, shuffle=False),
        "loader": DataLoader(TensorDataset(X, Y), 15),
        "stream": lambda epoch: points[:7],
    }
    trainer = Telling(data=(X, Y), validation_data=sets, batch_size=10, max_epochs=1, monitor="feed/loss")
    trainer.validate()
    assert trainer.order == [
        *[("columns", 4), ("feed", 20), ("feed", 10), ("dataset", 16), ("dataset", 14)],
        *[("loader", 15), ("loader", 15), ("stream", 7)],
    ]
    assert trainer.evaluated_set == ""
    assert set(trainer.validate()) == {f"{name}/loss" for name in sets}


def test_named_columns_are_still_one_set():
    class Columns(Line):
        def loss(self, batch):
            return super().loss((batch["x"], batch["y"]))

    data = {"x": X, "y": Y}
    trainer = Columns(data=data, validation_data=data, max_epochs=1)
    trainer.train()
    assert set(trainer.validation_metrics) == {"loss"}


def test_sets_are_tested_too_and_may_be_limited_each():
    class Counting(Line):
        def test_step(self, batch):
            return {"loss": self.loss(batch), "count": float(len(batch[0]))}

    sets = {"easy": EASY, "hard": HARD}
    trainer = Counting(data=(X, Y), test_data=sets, batch_size=6, max_epochs=1, limit_test_batches=1)
    assert trainer.test()["hard/count"] == 6 and set(trainer.test()) == {
        *("easy/loss", "easy/count", "hard/loss", "hard/count")
    }
    assert trainer.test(sets) == trainer.test()


def test_sets_with_a_state_resume_exactly(tmp_path):
    def build(**where):
        sets = {"easy": EASY, "stream": StreamFeed(Reading(), 5)}
        settings = {"validate_every": "2 steps", "save_every": "1 step", "monitor": "stream/loss", "patience": 2}
        return Line(data=(X, Y), validation_data=sets, batch_size=6, max_epochs=2, **settings, **where)

    check_resume(build, tmp_path, stops=[2, 3])


def test_a_set_that_has_changed_is_noticed_at_the_resume(tmp_path):
    Line(data=(X, Y), validation_data={"a": EASY, "b": HARD}, max_epochs=1, monitor="a/loss", run_dir=tmp_path).train()
    for sets in ({"a": EASY, "b": EASY}, {"a": EASY, "c": HARD}, {"a": EASY}):
        with pytest.raises(UsageError, match="the data of 'validation_feed' is not what it was"):
            Line(
                data=(X, Y),
                validation_data=sets,
                max_epochs=2,
                monitor="a/loss",
                run_dir=tmp_path / "v001",
                resume=True,
            )


def test_a_monitor_that_no_set_has_names_the_nearest():
    trainer = Line(data=(X, Y), validation_data={"easy": EASY, "hard": HARD}, max_epochs=1)
    with pytest.raises(UsageError, match=r"monitor is 'loss', which validation_step does not return"):
        trainer.train()


def test_names_of_sets_have_no_slash():
    with pytest.raises(UsageError, match="a set of data is called 'a/b'"):
        Line(data=(X, Y), validation_data={"a/b": EASY}, max_epochs=1)
    with pytest.raises(UsageError, match="no sets"):
        NamedFeeds({})


def test_named_feeds_give_one_set_after_the_other():
    feed = NamedFeeds({"a": TensorFeed(X, 20, shuffle=False), "b": StreamFeed(lambda epoch: X[:3], 2)})
    assert [len(batch) for batch in feed.iterate(0)] == [20, 10, 2, 1]
    assert [len(batch) for batch in feed.iterate(0, 2)] == [2, 1]
    assert feed.batches is None and NamedFeeds({"a": TensorFeed(X, 20)}).batches == 2


# Metric objects -----------------------------------------------------------------------------------------------------


class Spread:
    """As torchmetrics has them: of a whole set it says what no mean over batches does."""

    def __init__(self):
        self.values = []
        self.computed = 0

    def update(self, values):
        self.values += values.flatten().tolist()

    def compute(self):
        self.computed += 1
        return torch.tensor(max(self.values) - min(self.values))

    def reset(self):
        self.values = []

    def state_dict(self):
        return {"values": list(self.values)}

    def load_state_dict(self, state):
        self.values = list(state["values"])


class Measured(Line):
    transient = ("spread",)

    def setup(self):
        super().setup()
        self.spread = Spread()

    def validation_step(self, batch):
        self.spread.update(batch[1])
        return {"loss": self.loss(batch), "spread": self.spread}


def test_a_metric_object_is_computed_once_over_the_whole_set_and_reset():
    trainer = Measured(data=(X, Y), validation_data=(X, Y), batch_size=4, max_epochs=2, monitor="spread")
    trainer.train()
    assert trainer.validation_metrics["spread"] == pytest.approx(6.0) == trainer.best["value"]
    assert trainer.spread.computed == 2 and trainer.spread.values == []


def test_each_set_is_computed_by_itself():
    sets = {"easy": EASY, "hard": HARD}
    trainer = Measured(data=(X, Y), validation_data=sets, batch_size=4, max_epochs=1, monitor="hard/spread")
    expected = {f"{name}/spread": float(y.max() - y.min()) for name, (_, y) in sets.items()}
    found = trainer.validate()
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_it_is_reset_where_a_step_fails():
    class Failing(Measured):
        def validation_step(self, batch):
            outputs = super().validation_step(batch)
            if len(batch[0]) < 4:
                raise ValueError("the last one")
            return outputs

    trainer = Failing(data=(X, Y), validation_data=(X, Y), batch_size=4, max_epochs=1)
    with pytest.raises(ValueError, match="the last one"):
        trainer.validate()
    assert trainer.spread.values == []


def test_what_a_metric_cannot_mean_is_one_line():
    class Table(Spread):
        def compute(self):
            return torch.ones(3)

    class Odd(Measured):
        def setup(self):
            super().setup()
            self.spread = Table()

    with pytest.raises(UsageError, match=r"metric 'spread' computes a tensor of shape \(3,\): let it average"):
        Odd(data=(X, Y), validation_data=(X, Y), max_epochs=1).validate()

    class Anew(Measured):
        def validation_step(self, batch):
            return {"spread": Spread()}

    with pytest.raises(UsageError, match="metric 'spread' is another object for each batch: make it once, in setup"):
        Anew(data=(X, Y), validation_data=(X, Y), batch_size=4, max_epochs=1).validate()

    class Training(Measured):
        def step(self, batch):
            return super().step(batch) | {"spread": self.spread}

    with pytest.raises(UsageError, match="metric 'spread' is a Spread: return a number here"):
        Training(data=(X, Y), max_epochs=1).train()


def classifier():
    metrics = pytest.importorskip("torchmetrics")

    class Classifier(Trainer):
        def setup(self):
            self.model = nn.Linear(1, 3)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
            kind = {"task": "multiclass", "num_classes": 3}
            self.f1 = metrics.F1Score(average="macro", **kind)
            self.several = metrics.MetricCollection([metrics.Accuracy(**kind), metrics.AUROC(**kind)])

        def step(self, batch):
            loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.minimize(loss)
            return {"loss": loss}

        def validation_step(self, batch):
            x, y = batch
            scores = self.model(x).softmax(1)
            self.f1(scores, y)
            self.several.update(scores, y)
            return {"loss": nn.functional.cross_entropy(self.model(x), y), "f1": self.f1, "of": self.several}

    labels = torch.bucketize(X[:, 0], torch.tensor([-0.3, 0.4]))
    return Classifier, (X, labels), metrics


@pytest.mark.filterwarnings("ignore")
def test_torchmetrics_are_computed_as_over_the_whole_set():
    kind, data, metrics = classifier()
    trainer = kind(data=data, validation_data=data, batch_size=7, max_epochs=3, monitor="f1", monitor_mode="max")
    trainer.train()
    with trainer.evaluating():
        scores = trainer.model(data[0]).softmax(1)
    found = trainer.validate()
    whole = {"task": "multiclass", "num_classes": 3}
    assert found["f1"] == pytest.approx(metrics.functional.f1_score(scores, data[1], average="macro", **whole).item())
    expected = metrics.functional.auroc(scores, data[1], **whole).item()
    assert found["of/MulticlassAUROC"] == pytest.approx(expected)
    assert "of/MulticlassAccuracy" in found and not trainer.f1.update_called


@pytest.mark.filterwarnings("ignore")
def test_with_torchmetrics_it_resumes_exactly(tmp_path):
    kind, data, _ = classifier()

    def build(**where):
        settings = {"validate_every": "2 steps", "save_every": "1 step", "monitor": "f1", "monitor_mode": "max"}
        return kind(data=data, validation_data=data, batch_size=7, max_epochs=2, **settings, **where)

    check_resume(build, tmp_path, stops=[3, 4])


def test_what_torchmetrics_gather_in_training_resumes_exactly(tmp_path):
    """Whether or not the scores had a graph when they were given to it."""
    kind, data, metrics = classifier()

    class Gathering(kind):
        def setup(self):
            super().setup()
            self.auroc = metrics.AUROC(task="multiclass", num_classes=3)
            self.epochs = []

        def step(self, batch):
            self.auroc.update(self.model(batch[0]).softmax(1), batch[1])
            return super().step(batch)

        def post_epoch(self):
            self.epochs.append(self.auroc.compute().item())
            self.auroc.reset()

    def build(**where):
        return Gathering(data=data, batch_size=7, max_epochs=2, save_every="1 step", **where)

    check_resume(build, tmp_path, stops=[3, 5])


# Predictions --------------------------------------------------------------------------------------------------------


def test_predictions_come_in_order_one_for_each_batch():
    trainer = Line(data=(X, Y), batch_size=7, max_epochs=1)
    trainer.train()
    before = trainer.digest()
    found = trainer.predict(X)
    assert [len(batch) for batch in found] == [7, 7, 7, 7, 2]
    with torch.no_grad():
        assert torch.equal(torch.cat(found), torch.cat([trainer.model(part) for part in X.split(7)]))
    assert not any(batch.requires_grad for batch in found) and trainer.digest() == before


class Dropping(Trainer):
    def setup(self):
        self.model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.criterion = nn.MSELoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.average = EMA(self.model, decay=0.5)

    def step(self, batch):
        loss = self.criterion(self.model(batch[0]), batch[1])
        self.minimize(loss)
        return {"loss": loss}


def test_they_are_made_in_eval_mode_with_averaged_weights():
    trainer = Dropping(data=(X, Y), batch_size=10, max_epochs=2)
    trainer.train()
    found = torch.cat(trainer.predict(X))
    with trainer.average.applied(), torch.no_grad():
        trainer.model.eval()
        expected = torch.cat([trainer.model(part) for part in X.split(10)])
        trainer.model.train()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("wrap", [lambda x: (x,), lambda x: {"input": x}, lambda x: TensorFeed(x, 10, shuffle=False)])
def test_by_default_the_only_model_predicts(wrap):
    trainer = Line(data=(X, Y), batch_size=10, max_epochs=1)
    assert torch.equal(torch.cat(trainer.predict(wrap(X))), torch.cat(trainer.predict(X)))


def test_a_predict_step_says_what_a_prediction_is():
    class Naming(Line):
        def predict_step(self, batch):
            x, _ = batch
            return {"y": self.model(x), "count": len(x)}

    trainer = Naming(data=(X, Y), batch_size=20, max_epochs=1)
    first, second = trainer.predict((X, Y))
    assert (first["count"], second["count"]) == (20, 10) and first["y"].shape == (20, 1)


def test_with_several_models_it_has_to_be_said():
    class Two(Line):
        def setup(self):
            super().setup()
            self.other = nn.Linear(1, 1)

    with pytest.raises(UsageError, match=r"Two has 2 modules with parameters, and no predict_step\(self, batch\)"):
        Two(data=(X, Y), max_epochs=1).predict(X)


def test_predicting_within_a_run_changes_nothing_of_it():
    class Looking(Dropping):
        def post_step(self, batch, outputs):
            self.predict(X)

    digests = []
    for kind in (Dropping, Looking):
        trainer = kind(data=(X, Y), batch_size=10, max_epochs=2)
        trainer.train()
        digests.append(trainer.digest())
    assert digests[0] == digests[1]


def test_the_stream_that_is_trained_on_keeps_its_place():
    trainer = Line(data=StreamFeed(lambda epoch: zip(X, Y, strict=True), 10), max_epochs=1)
    trainer.iterate()
    for evaluate in (trainer.predict, trainer.test):
        with pytest.raises(UsageError, match="data is the stream that the run trains on"):
            evaluate(trainer.feed)


# Batches are what they are ------------------------------------------------------------------------------------------


class Encoding(UserDict):
    """As Hugging Face's BatchEncoding is."""

    def to(self, device):
        self.data = {key: value.to(device) for key, value in self.data.items()}
        return self


@dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize(
    "make", [lambda x, y: Encoding({"x": x, "y": y}), Pair], ids=["mapping with a class of its own", "dataclass"]
)
@pytest.mark.parametrize("whole", [True, False], ids=["ready", "joined"])
def test_batches_arrive_as_what_they_are_in_training_and_validation(make, whole):
    kinds = set()

    class Typed(Line):
        def loss(self, batch):
            kinds.add(type(batch))
            return super().loss((batch["x"], batch["y"]) if isinstance(batch, Encoding) else (batch.x, batch.y))

    if whole:
        data = [make(x, y) for x, y in zip(X.split(10), Y.split(10), strict=True)]
    else:
        data = [make(x, y) for x, y in zip(X, Y, strict=True)]
    trainer = Typed(data=data, validation_data=data, batch_size=None if whole else 10, max_epochs=2)
    summary = trainer.train()
    assert kinds == {type(data[0])} and summary.step == 6
    plain = Line(data=(X, Y), batch_size=10, max_epochs=2)
    plain.train()
    assert summary.metrics.keys() == plain.metrics.keys()


def test_a_whole_mapping_with_a_class_of_its_own_is_cut_into_such():
    kinds = set()

    class Typed(Line):
        def loss(self, batch):
            kinds.add(type(batch))
            return super().loss((batch["x"], batch["y"]))

    data = Encoding({"x": X, "y": Y})
    Typed(data=data, validation_data=data, batch_size=10, max_epochs=1).train()
    assert kinds == {Encoding}


def test_a_validation_without_batches_is_one_line():
    with pytest.raises(RunError, match="validation_step was given no batch"):
        Line(data=(X, Y), validation_data=lambda epoch: [], max_epochs=1).validate()
