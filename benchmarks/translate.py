"""Translating a folder of pictures: `treadle translate` beside onnxruntime on the exported file.

    python benchmarks/translate.py              the table, and whether the promises hold (exit 1 where not)
    python benchmarks/translate.py --write      also stores it in benchmarks/results/translate.md
    python benchmarks/translate.py --run RUN    with the generator of a run of your own
    python benchmarks/translate.py --quick      few small pictures and a fresh network; for the tests

How it is measured. The U-Net of the pix2pix recipe is trained on house fronts for a hundred steps, exported by
`treadle export --onnx`, and translates 200 label maps of 512 x 384 pixels, PNG files that the facade grammar draws.
Both have as many threads as the machine has cores. Treadle does as its command does: it reads and writes in threads
beside the network. The program for onnxruntime is the one that its users write, a picture after the other with Pillow,
and again with Treadle's functions that read and write, in as many threads beside the network.

"Network alone" is what tensors in memory take, one by one; "end to end" goes from files to files. All take turns,
picture folders in rounds; the median of the rounds counts. The results must be equal: no value of any picture may
differ by more than one level of 8 bits.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from _report import Gate, machine, table
from PIL import Image

from treadle.export.onnx import write_onnx
from treadle.gans.facades import facades
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.gans.translating import THREADS, translate_files
from treadle.gans.translator import Translator
from treadle.gans.values import Values
from treadle.images.reading import read_array
from treadle.images.writing import write_picture
from treadle.recipes.registry import load_recipe
from treadle.runs.run import find_run

RESULTS = Path(__file__).parent / "results" / "translate.md"
HEAD = ["pictures per second", "network alone", "end to end", "of onnxruntime, in threads"]
WIDTH, HEIGHT = 512, 384


def trained(directory: Path, quick: bool) -> Path:
    """A run of the recipe."""
    small = {"features": 4, "d_features": 4, "size": 32, "patch": 1, "downs": 3} if quick else {}
    every = {"max_steps": 2 if quick else 100, "examples_every": None, "validate_every": None}
    recipe = load_recipe("pix2pix").with_settings(small | every)
    trainer = recipe.build(run_dir=directory)
    trainer.train()
    assert trainer.run is not None
    return trainer.run.path


def draw(folder: Path, count: int, width: int, height: int) -> None:
    """Label maps of house fronts."""
    folder.mkdir()
    for index, labels in enumerate(facades(0, count, width)[0]):
        Image.fromarray(labels[:height]).save(folder / f"{index:03}.png")


class Ort:
    """The exported generator, and the programs around it."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(self, x: np.ndarray) -> np.ndarray:
        """(N, C, H, W) to the same."""
        return self.session.run(["output"], {"input": x})[0]

    def one_by_one(self, source: Path, out: Path) -> None:
        """The program that everybody writes."""
        for path in sorted(source.iterdir()):
            save(self.run(opened(path)[None])[0], out / path.name)

    def in_threads(self, source: Path, out: Path) -> None:
        """The same with threads that read and write, as Treadle reads and writes."""
        with ThreadPoolExecutor(THREADS) as pool:
            paths, written = sorted(source.iterdir()), []
            for path, x in zip(paths, pool.map(read, paths), strict=True):
                written.append(pool.submit(write, self.run(x[None])[0], out / path.name))
            for future in written:
                future.result()


def read(path: Path) -> np.ndarray:
    """A picture as the network takes it, by Treadle's functions."""
    return Values().encode(read_array(path)).numpy()


def write(made: np.ndarray, path: Path) -> None:
    """What the network made as a file, by Treadle's functions."""
    write_picture(path, Values().decode(torch.from_numpy(made)))


def opened(path: Path) -> np.ndarray:
    """A picture as the network takes it."""
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1), np.float32) / 127.5 - 1


def save(made: np.ndarray, path: Path) -> None:
    """What the network made, as PNG."""
    levels = ((made + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0))).save(path)


def compete(
    translator: Translator, ort: Ort, source: Path, directory: Path, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Pictures per second of each, alone and end to end, round by round."""
    paths = sorted(source.iterdir())
    x = np.stack([opened(path) for path in paths[:8]])
    alone: dict[str, Callable[[], object]] = {
        "Treadle": lambda: [translator.run(torch.from_numpy(one[None])) for one in x],
        "onnxruntime, one by one": lambda: [ort.run(one[None]) for one in x],
        "onnxruntime, in threads": lambda: [ort.run(one[None]) for one in x],
    }
    files: dict[str, Callable[[Path], object]] = {
        "Treadle": lambda out: translate_files(translator, source, out),
        "onnxruntime, one by one": lambda out: ort.one_by_one(source, out),
        "onnxruntime, in threads": lambda out: ort.in_threads(source, out),
    }
    found: dict[str, dict[str, list[float]]] = {name: {"alone": [], "files": []} for name in files}
    for call in alone.values():
        call()  # a first time, which prepares
    for index in range(rounds):
        names = list(files)[index % 3 :] + list(files)[: index % 3]
        for name in names:
            found[name]["alone"].append(len(x) / seconds(alone[name]))
        for name in names:
            out = directory / name
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            found[name]["files"].append(len(paths) / seconds(lambda name=name, out=out: files[name](out)))
    check([directory / name for name in files])
    return found


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def check(folders: Sequence[Path]) -> None:
    """Raise SystemExit unless all have made the same pictures."""
    for path in sorted(folders[0].iterdir()):
        first = np.asarray(Image.open(path)).astype(int)
        for other in folders[1:]:
            difference = np.abs(np.asarray(Image.open(other / path.name)).astype(int) - first).max()
            if difference > 1:
                raise SystemExit(f"{path.name} of {other.name} differs from Treadle's by {difference} levels")


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a run of pix2pix whose generator is taken")
    parser.add_argument("--quick", action="store_true", help="few small pictures, a small network, no promises")
    parser.add_argument("--write", action="store_true", help=f"store the table in {RESULTS.name}")
    options = parser.parse_args()
    count, width, height, rounds = (3, 64, 32, 1) if options.quick else (200, WIDTH, HEIGHT, 3)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        run = find_run(options.run) if options.run else trained(directory / "run", options.quick)
        write_onnx(Pix2PixTrainer.exportable(run)["generator"], directory / "generator.onnx")
        draw(directory / "labels", count, width, height)
        translator = next(iter(Pix2PixTrainer.translators(run).values()))
        found = compete(translator, Ort(directory / "generator.onnx"), directory / "labels", directory, rounds)
    medians = {
        name: (statistics.median(figures["alone"]), statistics.median(figures["files"]))
        for name, figures in found.items()
    }
    peer = found["onnxruntime, in threads"]["files"]
    rows, ratios = [], {}
    for name, (alone, files) in medians.items():
        ratios[name] = statistics.median(ours / theirs for ours, theirs in zip(found[name]["files"], peer, strict=True))
        rows.append([name, f"{alone:.2f}", f"{files:.2f}", f"{ratios[name]:.2f}"])
    text = table(HEAD, rows)
    print(f"{count} pictures of {width} x {height}, {translator.name}\n\n{text}")
    if options.quick:
        return 0
    gate = Gate("onnxruntime in threads / Treadle, pictures per second end to end", 1 / ratios["Treadle"], 1.0)
    verdict = table(Gate.HEAD, [gate.row()])
    print(f"\n{verdict}")
    if options.write:
        how = __doc__.split("\n\n", 2)[2].strip()
        head = ["# What translating a folder of pictures takes", "", how, "", machine(["onnxruntime", "pillow"]), ""]
        RESULTS.write_text("\n".join([*head, text, "", "### Promises", "", verdict, ""]))
        print(f"written to {RESULTS}")
    return 0 if gate.held else 1


if __name__ == "__main__":
    sys.exit(main())
