"""`treadle tracts score`: what is right about a tractogram, where the truth is known."""

from __future__ import annotations

from pathlib import Path

from treadle.cli.common import Parser, show, shown
from treadle.errors import UsageError
from treadle.files import existing, make_report_directory

EXAMPLES = """  treadle tracts score tracks.trk --truth phantom
  treadle tracts score tracks.tck --truth ismrm/config.json --wpc --dilate-ends 1
  treadle tracts score tracks.trx --truth phantom --out scores --segmented"""


def run(arguments: list[str]) -> int:
    """Score streamlines, write the report, print a table; returns the exit code."""
    parser = Parser(
        "tracts score",
        "Score streamlines by known bundles, as scilpy's tractometer does: valid and invalid bundles and streamlines, "
        "overlap and overreach of each bundle. The truth is scilpy's config.json with the masks that it names.",
        EXAMPLES,
    )
    parser.add_argument("tracks", metavar="TRACKS", help="streamlines: TRK, TCK or TRX")
    parser.add_argument("--truth", metavar="DIR", required=True,
                        help="a directory with config.json, or such a file: bundles with head and tail (or endpoints), "
                        "gt_mask, all_mask, any_mask, angle, length ...")  # fmt: skip
    parser.add_argument("--gt-dir", metavar="DIR", help="where its file names lead from (default: where it lies)")
    parser.add_argument("--out", metavar="DIR", help="where the report goes (default: TRACKS-scores)")
    parser.add_argument("--wpc", action="store_true", help="count wrong-path connections for themselves")
    parser.add_argument("--unique", action="store_true", help="a line belongs to the first bundle that it fits alone")
    parser.add_argument("--gt-as-all", action="store_true", help="valid lines must stay in their bundle's gt_mask")
    parser.add_argument("--dilate-ends", metavar="N", type=int, default=0, help="grow end regions by N voxels")
    parser.add_argument("--segmented", action="store_true", help="write the lines of each bundle, too, as TRK")
    options = parser.parse_args(arguments)
    if options.dilate_ends < 0:
        raise UsageError(f"--dilate-ends {options.dilate_ends}: expected 0 or more")
    from treadle.reports.report import PAGE
    from treadle.tracts.files import read_streamlines
    from treadle.tracts.scoring.report import RESULTS, write_scores
    from treadle.tracts.scoring.tractometer import score
    from treadle.tracts.scoring.truth import read_truth

    tracks = existing(options.tracks, "TRACKS")
    gt_dir = existing(options.gt_dir, "--gt-dir") if options.gt_dir else None
    truth = read_truth(existing(options.truth, "--truth"), gt_dir, gt_as_all=options.gt_as_all)
    lines, space = read_streamlines(tracks, truth.space)
    scores = score(lines, truth, space, unique=options.unique, wrong_paths=options.wpc, dilate_ends=options.dilate_ends)
    out = Path(options.out).expanduser() if options.out else tracks.with_name(f"{tracks.stem}-scores")
    if not out.parent.is_dir():
        raise UsageError(f"--out {options.out}: there is no directory {out.parent}")
    make_report_directory(out)
    out = out.resolve()
    write_scores(out, scores, lines, truth, title=f"Scores of {tracks.name}", segmented=options.segmented)

    found = scores.as_dict()
    counts = [f"{found[name]:,} {name} ({found[f'{name}_ratio']:.1%})" for name in ("VS", "WPC", "IC", "NC")
              if name in found]  # fmt: skip
    print(f"{found['total_streamlines']:,} streamlines: {', '.join(counts)}")
    print(f"{found['VB']} of {len(truth.bundles)} bundles found, {found['IB']} invalid ones")
    columns = ["bundle", "VS", "OL", "OR (truth)", "OR (bundle)", "F1", "ends"]
    table = []
    for name, bundle in scores.bundles.items():
        shares = [bundle.overlap, bundle.overreach, bundle.overreach_of_bundle, bundle.f1, bundle.regions_hit]
        table.append([name, f"{len(bundle.valid):,}", *(f"{each:.3f}" if bundle.scored else "-" for each in shares)])
    show(columns, table, right=columns[1:])
    print(f"written: {shown(out / PAGE)}, {shown(out / RESULTS)}")
    return 0
