"""The program with Lightning: a checkpoint every few steps, `ckpt_path="last"`, a loader that knows its position."""

import sys

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from problem import BATCH, EPOCHS, SAVE_EVERY, Net, adadelta, report, test_data, train_data
from torch.nn.functional import nll_loss
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Net()

    def training_step(self, batch, index):
        x, y = batch
        loss = nll_loss(self.model(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, index):
        x, y = batch
        scores = self.model(x)
        self.log("val_loss", nll_loss(scores, y))
        self.log("accuracy", (scores.argmax(1) == y).float().mean())

    def configure_optimizers(self):
        optimizer = adadelta(self.model)
        return {"optimizer": optimizer, "lr_scheduler": StepLR(optimizer, step_size=1, gamma=0.7)}


def main():
    lightning.seed_everything(0)
    module = Digits()
    saving = ModelCheckpoint(dirpath=sys.argv[1], every_n_train_steps=SAVE_EVERY, save_last=True)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=EPOCHS, callbacks=[saving], default_root_dir=sys.argv[1], logger=False
    )
    trainer.fit(
        module,
        StatefulDataLoader(train_data(), batch_size=BATCH, shuffle=True),
        DataLoader(test_data(), batch_size=BATCH),
        ckpt_path="last",
    )
    print(trainer.callback_metrics)
    report(module.model)


if __name__ == "__main__":
    main()
