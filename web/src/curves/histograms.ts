// How parameters, or their gradients in one more step, are distributed: a small picture for each, and its numbers.

import { fill, h, shape, show, write } from "../dom.js";
import type { Page } from "../page.js";
import { short } from "./numbers.js";

interface Histogram {
  name: string;
  shape: number[];
  entries: number;
  nan: number;
  infinite: number;
  low: number | null;
  high: number | null;
  mean: number | null;
  std: number | null;
  counts: number[];
}

interface Answer {
  of: string;
  step: number;
  histograms: Histogram[];
  left_out: number;
  averaged?: boolean;
}

const [WIDTH, HEIGHT] = [160, 56];

export function histogramsPart(page: Page): HTMLElement {
  const of = h("select", { id: "histograms-of" }, h("option", { value: "parameters" }, "parameters"), h("option", { value: "gradients" }, "gradients"));
  const log = h("input", { type: "checkbox", id: "histograms-log" });
  const line = h("p", { class: "note", role: "status" });
  const grid = h("div", { class: "histograms" });
  let found: Answer | undefined;
  const draw = () => fill(grid, ...(found?.histograms ?? []).map((one) => picture(one, log.checked)));
  const ask = async () => {
    const gradients = of.value === "gradients";
    write(line, gradients ? "Waiting for one more step …" : "Counting …");
    found = await page.try<Answer>({ type: "histograms", of: gradients ? "gradients" : "parameters", bins: 64 });
    const more = found?.left_out ? `, ${found.left_out} more are left out` : "";
    write(line, found ? `${found.of} of step ${found.step}${found.averaged ? ", averaged (EMA)" : ""}${more}` : "");
    draw();
  };
  log.onchange = draw;
  const element = h(
    "details",
    { class: "measured" },
    h("summary", {}, "Histograms"),
    h(
      "div",
      { class: "tools" },
      h("label", { for: "histograms-of" }, "of ", of),
      h("button", { type: "button", onclick: () => void ask() }, "Show"),
      h("label", { for: "histograms-log" }, log, " log counts"),
      line,
    ),
    grid,
  );
  page.store.on("welcome", (welcome) => show(element, welcome?.features.includes("histograms") ?? false));
  return element;
}

function picture(one: Histogram, log: boolean): HTMLElement {
  const tall = (count: number) => (log ? Math.log1p(count) : count);
  const most = Math.max(...one.counts.map(tall), 1e-9);
  const wide = WIDTH / one.counts.length;
  const bars = one.counts.map((count, at) => {
    const height = count ? Math.max((HEIGHT * tall(count)) / most, 1) : 0; // a single entry is seen too
    return `M${(at * wide).toFixed(2)} ${HEIGHT}v${(-height).toFixed(2)}h${wide.toFixed(2)}V${HEIGHT}z`;
  });
  const odd = [one.nan && `${one.nan} NaN`, one.infinite && `${one.infinite} infinite`].filter(Boolean).join(", ");
  const said = `${one.low === null ? "no finite entry" : `${short(one.low)} to ${short(one.high)}, mean ${short(one.mean)}, deviation ${short(one.std)}`}`;
  return h(
    "figure",
    {},
    h("figcaption", {}, h("strong", {}, one.name), ` ${one.shape.join(" × ") || "scalar"}`),
    shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${one.name}: ${said}`, preserveAspectRatio: "none" }, shape("path", { d: bars.join("") })),
    h("p", { class: "note" }, said, odd && h("strong", { class: "odd" }, ` ${odd}`)),
  );
}
