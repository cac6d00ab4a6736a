"""The program with Treadle."""

import sys
from pathlib import Path

from problem import BATCH, EPOCHS, SAVE_EVERY, Net, report, test_data, train_data
from torch.nn.functional import nll_loss
from torch.optim import Adadelta
from torch.optim.lr_scheduler import StepLR

from treadle import Trainer


class Digits(Trainer):
    def setup(self):
        self.model = Net()
        self.optimizer = Adadelta(self.model.parameters(), lr=1.0)
        self.rate = StepLR(self.optimizer, step_size=1, gamma=0.7)

    def step(self, batch):
        x, y = batch
        loss = nll_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}

    def post_epoch(self):
        self.rate.step()

    def validation_step(self, batch):
        x, y = batch
        scores = self.model(x)
        return {"loss": nll_loss(scores, y), "accuracy": (scores.argmax(1) == y).float().mean()}


def main(kind=Digits):
    run = Path(sys.argv[1]) / "v001"
    trainer = kind(
        data=train_data(),
        validation_data=test_data(),
        batch_size=BATCH,
        max_epochs=EPOCHS,
        save_every=f"{SAVE_EVERY} steps",
        run_dir=run,
        resume=run.exists(),
    )
    trainer.train()
    print(trainer.validation_metrics)
    report(trainer.model)


if __name__ == "__main__":
    main()
