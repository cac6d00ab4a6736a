"""The program with Ignite: a `DeterministicEngine`, which keeps the random state, and `Checkpoint`.

The engine's documentation promises the same order after a resume for loaders with workers; without them, the batches of
the epoch under way come in another one.
"""

import sys
from pathlib import Path

import torch
from ignite.engine import Events, create_supervised_evaluator
from ignite.engine.deterministic import DeterministicEngine, keep_random_state
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Accuracy, Loss
from ignite.utils import manual_seed
from problem import BATCH, EPOCHS, SAVE_EVERY, Net, adadelta, report, test_data, train_data
from torch.nn.functional import nll_loss
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader


def main():
    manual_seed(0)
    model = Net()
    optimizer = adadelta(model)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    loader = DataLoader(train_data(), batch_size=BATCH, shuffle=True, num_workers=2)
    test_loader = DataLoader(test_data(), batch_size=BATCH)

    def update(engine, batch):
        model.train()
        x, y = batch
        optimizer.zero_grad()
        loss = nll_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    trainer = DeterministicEngine(update)
    evaluator = create_supervised_evaluator(model, {"accuracy": Accuracy(), "loss": Loss(nll_loss)})

    @trainer.on(Events.EPOCH_COMPLETED)
    @keep_random_state
    def test(engine):
        scheduler.step()
        evaluator.run(test_loader)
        print(evaluator.state.metrics)

    objects = {"trainer": trainer, "model": model, "optimizer": optimizer, "scheduler": scheduler}
    saving = Checkpoint(objects, DiskSaver(sys.argv[1], create_dir=True, require_empty=False), n_saved=2)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=SAVE_EVERY), saving)
    saved = sorted(Path(sys.argv[1]).glob("*.pt"), key=lambda path: int(path.stem.rpartition("_")[2]))
    if saved:
        Checkpoint.load_objects(objects, torch.load(saved[-1], weights_only=False))
    trainer.run(loader, max_epochs=EPOCHS)
    report(model)


if __name__ == "__main__":
    main()
