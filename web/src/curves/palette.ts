// Colours and dashes of curves: told apart without colour too, by people and by printers that see none.

const COLOURS = Array.from({ length: 8 }, (_, at) => `--series-${at + 1}`);

/** In CSS pixels: stroke, gap, stroke, gap ... */
export const DASHES: readonly (readonly number[])[] = [
  [],
  [7, 4],
  [2, 3],
  [9, 3, 2, 3],
  [14, 5],
  [2, 3, 2, 8],
  [9, 3, 2, 3, 2, 3],
  [5, 2],
];

export interface Style {
  /** Which of the page's eight colours of series. */
  colour: number;
  dash: readonly number[];
}

/** How curve `split` of run `run` is drawn: with several runs the colour says the run, else it says the split.
 *
 * No two curves of a chart have the same dashes until there are more than eight.
 */
export function style(run: number, split: number, runs: number, splits: number): Style {
  const dash = DASHES[(run * splits + split) % DASHES.length]!;
  return { colour: (runs > 1 ? run : split) % COLOURS.length, dash };
}

/** What the page's custom properties come to where `element` stands, in the page's light or dark, for a canvas. */
export function resolved<Name extends string>(element: HTMLElement, names: readonly Name[]): Record<Name, string> {
  const probe = document.createElement("span");
  probe.hidden = true;
  element.append(probe);
  const found = {} as Record<Name, string>;
  for (const name of names) {
    probe.style.color = `var(${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

export interface Inks {
  series: string[];
  text: string;
  quiet: string;
  grid: string;
  lost: string;
  panel: string;
  mark: string;
}

/** The colours that charts are drawn with. */
export function inks(element: HTMLElement): Inks {
  const found = resolved(element, [...COLOURS, "--text", "--quiet", "--grid", "--lost", "--panel", "--edge"]);
  return {
    series: COLOURS.map((name) => found[name]!),
    text: found["--text"]!,
    quiet: found["--quiet"]!,
    grid: found["--grid"]!,
    lost: found["--lost"]!,
    panel: found["--panel"]!,
    mark: found["--edge"]!,
  };
}
