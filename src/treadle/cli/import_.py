"""`treadle import`: networks of the official pix2pix and CycleGAN code, or of NectarGAN, become a run."""

from __future__ import annotations

from pathlib import Path

from treadle.cli.common import Parser, shown
from treadle.config.files import override

EXAMPLES = """  treadle import latest_net_G.pth
  treadle import checkpoints/facades_pix2pix --epoch 200
  treadle import checkpoints/horse2zebra --run runs/horse2zebra
  treadle import epoch40_netG.pth.tar epoch40_netD.pth.tar
  treadle import latest_net_G.pth --norm instance
                            as their test.py without --eval: by each picture's
                            own statistics, not the running ones"""


def run(arguments: list[str]) -> int:
    """Import, and say what became of each file; returns the exit code."""
    parser = Parser(
        "import",
        "Make a run of networks that the official PyTorch code of pix2pix and CycleGAN, or NectarGAN, has saved: to "
        "translate with, to export, or to train on from (init). What a file holds is told by the names and shapes in "
        "it; it is read as weights alone, so no code in it runs.",
        EXAMPLES,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="what torch.save wrote (.pth, .pth.tar), or a folder "
                        "of such files")  # fmt: skip
    parser.add_argument("--run", metavar="DIR", default="runs/imported", help="where the run goes; DIR/v001 is made, "
                        "then v002 (default: runs/imported)")  # fmt: skip
    parser.add_argument("--epoch", default="latest", help="of a folder: which epoch's files (default: latest)")
    parser.add_argument("--norm", choices=["instance"], help="take batch norms for instance norms")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="other settings of the run, such as direction=BtoA")  # fmt: skip
    options = parser.parse_args(arguments)
    from treadle.gans.imported import files_in, import_networks

    files = [file for path in options.files for file in files_in(path, options.epoch)]
    settings = override({}, options.overrides)
    made, networks = import_networks(files, Path(options.run), norm=options.norm, **settings)
    for each in networks:
        print(f"{each.file.name}: {each.network.layout}, the {each.name}")
    path = shown(made.path)
    print(f"run: {path}")
    print(f"next: treadle translate {path} PICTURES --out DIR")
    print(f"      treadle train {path}/config.yaml --data FOLDER --init {path}")
    return 0
