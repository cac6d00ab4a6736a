"""Proximal policy optimization on a small game of our own: a paddle that must be under the ball when it comes down.

After Schulman et al. (2017), with generalized advantages: many games are played at once, for HORIZON moves; several
epochs learn from these in shuffled batches; then comes the next round. The data of the run is the numbers of the moves,
and `pre_epoch` plays what they stand for: so order, position and resume are those of any other data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from treadle import LearningRate, Trainer

GAMES, HORIZON, PASSES, WIDTH, HEIGHT = 32, 32, 4, 9, 8
DISCOUNT, TRACE, CLIP, ENTROPY = 0.97, 0.95, 0.2, 0.01


class Catch:
    """Balls that fall in the wind and bounce off the walls; state: (games, 4) of ball x, ball y, wind and paddle x."""

    @staticmethod
    def begin(games: int) -> Tensor:
        """New games: the ball at the top, the paddle anywhere."""
        x, paddle = torch.randint(WIDTH, (2, games))
        return torch.stack([x, torch.zeros_like(x), torch.randint(-1, 2, (games,)), paddle], 1)

    @staticmethod
    def move(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """After actions 0 (left), 1 (stay) or 2 (right): the next states, rewards, and which games are over."""
        x, y, wind, paddle = state.T
        paddle = (paddle + action - 1).clamp(0, WIDTH - 1)
        wind = torch.where((x + wind < 0) | (x + wind >= WIDTH), -wind, wind)
        x, y = x + wind, y + 1
        over = y == HEIGHT
        reward = torch.where(over, torch.where((x - paddle).abs() <= 1, 1.0, -1.0), 0.0)
        after = torch.stack([x, y, wind, paddle], 1)
        return torch.where(over[:, None], Catch.begin(len(state)), after), reward, over


class PPO(Trainer):
    """One step learns from a batch of moves; one epoch from all of them; every PASSES epochs there are new ones."""

    def setup(self) -> None:
        self.policy = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
        self.value = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        both = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.Adam(both, eps=1e-5)
        self.rate = LearningRate(self.optimizer, "linear 5e-3 to 0")
        self.state = Catch.begin(GAMES)
        self.moves: dict[str, Tensor] = {}

    def pre_epoch(self) -> None:
        if self.epoch % PASSES == 0:
            self.play()

    @torch.no_grad()
    def play(self) -> None:
        """HORIZON moves of every game under the policy as it is, and the advantage of each over what was expected."""
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(HORIZON):
            seen = self.state / 4 - 1
            choice = Categorical(logits=self.policy(seen))
            action = choice.sample()
            self.state, reward, over = Catch.move(self.state, action)
            rows.append((seen, action, choice.log_prob(action), self.value(seen)[:, 0], reward, over))
        seen, action, chance, value, reward, over = map(torch.stack, zip(*rows, strict=True))
        following = torch.cat([value[1:], self.value(self.state / 4 - 1).T])
        surprise = reward + DISCOUNT * following * ~over - value
        advantage = surprise.clone()
        for t in reversed(range(HORIZON - 1)):
            advantage[t] += DISCOUNT * TRACE * ~over[t] * advantage[t + 1]
        moves = {"seen": seen, "action": action, "chance": chance, "advantage": advantage, "value": advantage + value}
        self.moves = {name: column.flatten(0, 1) for name, column in moves.items()}
        self.log("caught", (reward > 0).sum() / over.sum())

    def step(self, numbers: Tensor) -> dict[str, Tensor]:
        old = {name: column[numbers] for name, column in self.moves.items()}
        choice = Categorical(logits=self.policy(old["seen"]))
        ratio = (choice.log_prob(old["action"]) - old["chance"]).exp()
        gain = (old["advantage"] - old["advantage"].mean()) / (old["advantage"].std() + 1e-8)
        policy = -torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
        value = (self.value(old["seen"])[:, 0] - old["value"]).square().mean()
        self.minimize(policy + 0.5 * value - ENTROPY * choice.entropy().mean())
        return {"policy": policy, "value": value}


def main(rounds: int = 30, **settings: Any) -> PPO:
    settings = {"max_epochs": PASSES * rounds, "batch_size": 256, "clip_norm": 0.5, "log_every": "4 epochs", **settings}
    trainer = PPO(data=torch.arange(GAMES * HORIZON), device="cpu", **settings)
    trainer.train()
    return trainer


if __name__ == "__main__":
    print(f"caught: {main().metrics['caught']:.0%}")
