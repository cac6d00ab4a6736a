"""Networks of other programs as a run: what can be translated with, exported, tested, and begun with (`init`)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from treadle.engine.summary import Summary
from treadle.errors import UsageError
from treadle.files import hash_file
from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.importing import Network, read_pickled, recognise
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.gans.settings import TranslationConfig
from treadle.gans.translation import TranslationTrainer
from treadle.runs.aside import create_run
from treadle.runs.best import Best, write_best
from treadle.runs.names import document, label
from treadle.runs.run import Run

FILE = re.compile(r"(?P<epoch>.*?)_?net_?(?P<network>[GD](_[AB])?)\.pth(\.tar)?")
"""What both programs call their files: latest_net_G_A.pth, 200_net_D.pth, epoch40_netG.pth.tar."""

DIRECTIONS = {"G_A": "generator_ab", "G_B": "generator_ba", "D_A": "discriminator_b", "D_B": "discriminator_a"}
"""The networks of the official CycleGAN here. Its D_A judges what G_A makes: pictures of B."""


@dataclass(frozen=True)
class Imported:
    """A network, where it was, and what it is called here."""

    file: Path
    network: Network
    name: str


def files_in(path: str | Path, epoch: str = "latest") -> list[Path]:
    """The files of networks at `path`: itself, or of a folder those of `epoch`, "latest" or a number.

    Where a folder has none called "latest", that is the highest number. Raises UsageError where there are none.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return [path]
    found: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        if match := FILE.fullmatch(file.name):
            found.setdefault(match["epoch"].removeprefix("epoch"), []).append(file)
    if epoch == "latest" and epoch not in found:
        epoch = max((each for each in found if each.isdecimal()), key=int, default=epoch)
    if epoch not in found:
        there = ", ".join(sorted(found)) or "none"
        raise UsageError(f"{path} has no networks of epoch {epoch!r} (latest_net_G.pth, say); epochs there: {there}")
    return found[epoch]


def import_networks(
    files: Sequence[str | Path],
    run_dir: str | Path,
    *,
    norm: str | None = None,
    **settings: Any,
) -> tuple[Run, list[Imported]]:
    """Make a run of networks of the official pix2pix and CycleGAN code, or of NectarGAN, that `torch.save` wrote.

    Args:
        files: a generator, alone or with its discriminator; or the two of a CycleGAN, G_A and G_B by their files'
            names, alone or with D_A and D_B.
        run_dir: `runs/imported` makes the next version in there.
        norm: see `recognise`.
        settings: others of the run, such as `size` or `direction`; those of the networks are what the files say.

    Returns the run, with the networks as its model, and what each file was.

    Raises UsageError in one line for what cannot be read or be one of Treadle's networks, and for networks that do not
    belong together.

    Example:
        run, _ = import_networks(["checkpoints/facades/latest_net_G.pth"], "runs/imported")
        picture = translate(Pix2PixTrainer.load_model(run.path), picture)
    """
    found = [(Path(file), recognise(read_pickled(file), str(file), norm)) for file in files]
    generators = [file for file, network in found if network.role == "generator"]
    if not generators:
        raise UsageError(f"no generator in {', '.join(map(str, files))}: name its file too (latest_net_G.pth, say)")
    named = [Imported(file, network, _name(file, network, len(generators))) for file, network in found]
    for each in named:
        same = [str(other.file) for other in named if other.name == each.name]
        if len(same) > 1:
            raise UsageError(f"{same[0]} and {same[1]} would both be the {each.name}: import one of them")
    kind: type[TranslationTrainer] = CycleGANTrainer if len(generators) > 1 else Pix2PixTrainer
    config = _config(kind, named, settings)
    weights = {f"{each.name}.{key}": value for each in named for key, value in each.network.weights.items()}

    def fill(run: Run) -> None:
        run.write_config(document(label(kind), config, None))
        info: dict[str, Any] = {"monitor": None, "mode": "min", "value": None, "step": 0, "epoch": 0, "metrics": {}}
        write_best(run, Best(weights, info))
        origin = [
            {
                "file": each.file.name,
                "sha256": hash_file(each.file),
                "layout": each.network.layout,
                "network": each.name,
            }
            for each in named
        ]
        run.journal.append({"event": "import", "step": 0, "time": time.time(), "networks": origin})
        summary = Summary("finished", "imported", 0, 0, {}, {}, None, 0.0, None)
        run.write_summary(summary.to_dict())

    return create_run(run_dir, fill), named


def _name(file: Path, network: Network, generators: int) -> str:
    """The attribute of our trainer that a network is: in a CycleGAN by its file's name."""
    if generators == 1:
        return network.role
    match = FILE.fullmatch(file.name)
    if match is None or match["network"] not in DIRECTIONS:
        raise UsageError(
            f"{file} is one of {generators} generators or belongs to them, and its name does not say which: two make a "
            "CycleGAN, in files called latest_net_G_A.pth and latest_net_G_B.pth"
        )
    name = DIRECTIONS[match["network"]]
    if not name.startswith(network.role):
        raise UsageError(f"{file} holds a {network.role}, and is called as if it were a {name.partition('_')[0]}")
    return name


def _config(kind: type[TranslationTrainer], named: Sequence[Imported], given: Mapping[str, Any]) -> Any:
    """The settings that make all of the networks. Raises UsageError where no settings make both of two."""
    settings: dict[str, Any] = {}
    said: dict[str, Imported] = {}
    for each in named:
        for name, value in each.network.settings.items():
            if settings.setdefault(name, value) != value:
                other = said[name]
                raise UsageError(
                    f"{other.file} has {name}={settings[name]!r} and {each.file} {name}={value!r}: Treadle's networks "
                    "share it; import the generator alone"
                )
            said.setdefault(name, each)
    first = next(each.network for each in named if each.network.role == "generator")
    if len(named) > 1:
        first = next((each.network for each in named if each.name in ("generator", "generator_ab")), first)
    settings |= {"in_channels": first.inputs, "out_channels": first.outputs}
    multiple = 2 ** settings["downs"]
    if clash := sorted(settings.keys() & given.keys()):
        raise UsageError(f"{clash[0]} is what the files say, {settings[clash[0]]!r}: leave it out")
    given = {"max_epochs": 200, "size": 256 if 256 % multiple == 0 else multiple, **given}
    config: TranslationConfig = kind.Config(**settings, **given)  # type: ignore[assignment]
    for each in named:
        _check(each, config)
    return config


def _check(each: Imported, config: TranslationConfig) -> None:
    """Raise UsageError unless our network of these settings takes the weights."""
    inputs, outputs = config.in_channels, config.out_channels
    takes = {"discriminator": inputs + outputs, "discriminator_a": inputs, "discriminator_b": outputs}
    takes |= {"generator": inputs, "generator_ab": inputs, "generator_ba": outputs}
    if each.network.inputs != takes[each.name]:
        raise UsageError(
            f"{each.file} takes {each.network.inputs} channels, and the {each.name} of pictures with {inputs} and "
            f"{outputs} takes {takes[each.name]}: import the generator alone"
        )
    with torch.device("meta"):
        made = (
            config.build_generator(reverse=each.name == "generator_ba")
            if each.network.role == "generator"
            else config.build_discriminator(takes[each.name])
        )
    try:
        made.load_state_dict(each.network.weights, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).partition("\n")[2].split())[:200]
        raise UsageError(f"{each.file} looks like the {each.network.layout}, and is another: {problem}") from None
