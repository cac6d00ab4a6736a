// One metric: its plot, what each curve is with its value under the cursor, a table of the same values, and exports.

import { fill, h, shape, show, write } from "../dom.js";
import { short } from "./numbers.js";
import { along } from "./paint.js";
import { Plot, type Curve, type Picture, type Unit } from "./plot.js";
import { extent, nearest, type Series } from "./series.js";

export interface Happened {
  x: number;
  text: string;
}

/** What all charts share. */
export interface View {
  unit: Unit;
  logX: boolean;
  /** The range of x; all charts have the same. */
  low: number;
  high: number;
  events: readonly Happened[];
}

export interface ChartAsked {
  zoom(low: number, high: number): void;
  reset(): void;
  resized(): void;
  cursor(x: number | null): void;
  csv(): void;
}

/** More rows than these help nobody; between them the table says what is the lowest and the highest. */
const ROWS = 200;
const LABELS: Record<Unit, string> = { step: "step", epoch: "epoch", time: "seconds" };

export class Chart {
  readonly element: HTMLElement;
  curves: Curve[] = [];
  private view: View | null = null;
  private logY = false;
  private ySpan: [number, number] | null = null;
  private at: number | null = null;
  private readonly plot: Plot;
  private readonly legend = h("ul", { class: "legend" });
  private readonly note = h("p", { class: "note", hidden: true });
  private readonly tip = h("p", { class: "tip", hidden: true });
  private readonly table = h("div", { class: "table", hidden: true, tabindex: "0", role: "region" });
  private readonly frame: HTMLElement;

  constructor(
    readonly name: string,
    private readonly asked: ChartAsked,
  ) {
    this.plot = new Plot({
      zoom: (x, y) => {
        this.ySpan = y;
        asked.zoom(...x);
      },
      reset: () => this.reset(),
      resized: () => asked.resized(),
      cursor: (x) => asked.cursor(x),
    });
    const toggle = (label: string, name: string, act: (on: boolean) => void) => {
      const button = h("button", { type: "button", "aria-pressed": "false", "aria-label": `${label}: ${name} of ${this.name}` }, label);
      button.onclick = () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        act(on);
      };
      return button;
    };
    const press = (label: string, name: string, act: () => void) =>
      h("button", { type: "button", "aria-label": `${label}: ${name} of ${this.name}`, onclick: act }, label);
    this.frame = h(
      "div",
      {
        class: "frame",
        tabindex: "0",
        role: "group",
        "aria-roledescription": "chart",
        "aria-label": `${name}: arrows move the cursor, plus and minus zoom, 0 shows all; the table has the same values`,
      },
      this.plot.element,
      this.tip,
    );
    this.frame.addEventListener("keydown", (event) => this.key(event));
    this.frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.table.setAttribute("aria-label", `Values of ${name}`);
    this.element = h(
      "section",
      { class: "chart", "aria-label": name },
      h(
        "header",
        {},
        h("h3", {}, name),
        toggle("log", "Logarithmic values", (on) => this.setLogY(on)),
        toggle("table", "Table of the values", (on) => this.setTable(on)),
        toggle("large", "Large chart", (on) => this.element.classList.toggle("large", on)),
        press("CSV", "All values as CSV", () => asked.csv()),
        press("PNG", "Picture", () => this.png()),
      ),
      this.frame,
      this.note,
      this.legend,
      this.table,
    );
  }

  /** How many points a curve can show here: two to a pixel, for the studio's points lie on rounded steps. */
  get points(): number {
    return Math.max(200, Math.min(4000, 100 * Math.ceil(this.plot.pixels / 50)));
  }

  draw(view: View): void {
    this.view = view;
    if (!(view.high > view.low)) return;
    const shown = this.curves.filter((curve) => !curve.hidden);
    const series = shown.flatMap(({ series, lost, raw }) => [series, ...lost, ...(raw ? [raw] : [])]);
    const found = this.ySpan ?? extent(series, view.low, view.high, this.logY);
    const y = padded(found ?? (this.logY ? [0.1, 1] : [0, 1]), this.logY, this.ySpan !== null);
    const picture: Picture = {
      curves: this.curves,
      events: view.events.map((event) => event.x),
      x: { low: view.low, high: view.high, log: view.logX },
      y: { low: y[0], high: y[1], log: this.logY },
      unit: view.unit,
    };
    this.plot.show(picture);
    this.element.dataset["range"] = `${view.low} ${view.high} ${y[0]} ${y[1]}`;
    this.element.dataset["points"] = this.curves.map(({ series }) => series.x.length).join(" ");
    this.drawLegend();
    this.drawNote();
    if (!this.table.hidden) this.drawTable();
  }

  /** The linked cursor stands at `x`; null where it has left. */
  cursor(x: number | null): void {
    this.at = x;
    for (const [index, curve] of this.curves.entries()) {
      const item = this.legend.children[index];
      if (item) write(item.lastElementChild!, this.valueOf(curve));
    }
    this.drawTip();
  }

  destroy(): void {
    this.plot.destroy();
    this.element.remove();
  }

  private reset(): void {
    this.ySpan = null;
    this.asked.reset();
  }

  private setLogY(on: boolean): void {
    this.logY = on;
    this.ySpan = null;
    if (this.view) this.draw(this.view);
  }

  private setTable(on: boolean): void {
    show(this.table, on);
    if (on) this.drawTable();
  }

  private valueOf({ series }: Curve): string {
    const at = this.at === null ? series.x.length - 1 : nearest(series.x, this.at);
    if (at < 0) return "–";
    const [low, high, last] = [series.low[at]!, series.high[at]!, series.last[at]!];
    return low === high || !(low <= high) ? short(last) : `${short(last)} (${short(low, 3)} to ${short(high, 3)})`;
  }

  private drawLegend(): void {
    const same =
      this.legend.children.length === this.curves.length &&
      this.curves.every((curve, at) => (this.legend.children[at] as HTMLElement).dataset["label"] === curve.label);
    if (!same) fill(this.legend, ...this.curves.map((curve) => this.entry(curve)));
    this.cursor(this.at);
  }

  private entry(curve: Curve): HTMLElement {
    const line = shape("line", { x1: 0, y1: 5, x2: 34, y2: 5, "stroke-dasharray": curve.style.dash.join(" ") });
    const swatch = shape("svg", { viewBox: "0 0 34 10", "aria-hidden": "true", class: `swatch series-${curve.style.colour + 1}` }, line);
    const button = h("button", { type: "button", "aria-pressed": String(!curve.hidden) }, swatch, h("span", {}, curve.label));
    button.onclick = () => {
      const now = this.curves.find(({ id }) => id === curve.id); // another object, drawn since
      if (!now || !this.view) return;
      now.hidden = !now.hidden;
      button.setAttribute("aria-pressed", String(!now.hidden));
      this.draw(this.view);
    };
    return h("li", { "data-label": curve.label }, button, h("output", {}, this.valueOf(curve)));
  }

  /** What is not drawn, or not as a line, in words. */
  private drawNote(): void {
    const said: string[] = [];
    for (const { label, series, problem, hidden } of this.curves) {
      if (hidden) continue;
      if (problem) said.push(`${label}: ${problem}`);
      const count = (wanted: number) => series.marks.filter((mark) => mark[1] === wanted).length;
      const [nans, above, below] = [count(0), count(1), count(-1)];
      const kinds = [nans && `${nans} NaN (×)`, above && `${above} Inf (▲)`, below && `${below} -Inf (▼)`].filter(Boolean);
      if (kinds.length) said.push(`${label}: ${kinds.join(", ")}`);
      if (!this.logY) continue;
      let under = 0;
      for (const value of series.low) if (value <= 0) under++;
      if (under) said.push(`${label}: ${under} ${series.exact ? "values" : "points"} at or below 0 are not on a logarithmic axis`);
    }
    write(this.note, said.join("; "));
    show(this.note, said.length > 0);
  }

  /** What has happened where the cursor stands. */
  private drawTip(): void {
    const { view, at } = this;
    const here: string[] = [];
    if (view && at !== null) {
      const width = this.plot.element.clientWidth || 1;
      const pixel = along({ low: view.low, high: view.high, log: view.logX }, 0, width);
      for (const event of view.events) {
        if (Math.abs(pixel(event.x) - pixel(at)) < 5) here.push(event.text);
      }
    }
    write(this.tip, here.slice(0, 4).join(" · ") + (here.length > 4 ? ` · and ${here.length - 4} more` : ""));
    show(this.tip, here.length > 0);
  }

  private drawTable(): void {
    const { view } = this;
    if (!view) return;
    const shown = this.curves.filter((curve) => !curve.hidden);
    const xs = new Set<number>();
    for (const { series } of shown) for (const x of series.x) if (x >= view.low && x <= view.high) xs.add(x);
    const all = [...xs].sort((a, b) => a - b);
    const every = Math.max(1, Math.ceil(all.length / ROWS));
    const head = h(
      "tr",
      {},
      h("th", { scope: "col" }, LABELS[view.unit]),
      ...shown.map((curve) => h("th", { scope: "col" }, curve.label)),
    );
    const rows: HTMLElement[] = [];
    for (let i = 0; i < all.length; i += every) {
      const end = Math.min(i + every, all.length) - 1;
      const cells = shown.map(({ series }) => h("td", {}, cell(series, all[i]!, all[end]!)));
      rows.push(h("tr", {}, h("th", { scope: "row" }, String(all[end])), ...cells));
    }
    const caption = h("caption", {}, `${this.name}: the last value up to each ${LABELS[view.unit]}, and the lowest and highest since the row before where they differ`);
    const events = view.events.filter(({ x }) => x >= view.low && x <= view.high);
    const list = h("ul", { class: "events" }, ...events.slice(-ROWS).map(({ x, text }) => h("li", {}, `${short(x, 7)}: ${text}`)));
    const table = h("table", {}, caption, h("thead", {}, head), h("tbody", {}, ...rows));
    fill(this.table, table, events.length > 0 && list);
  }

  private key(event: KeyboardEvent): void {
    if (event.target !== this.frame || !this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts: Record<string, () => void> = {
      ArrowLeft: () => (event.shiftKey ? this.pan(-0.1) : this.step(-1)),
      ArrowRight: () => (event.shiftKey ? this.pan(0.1) : this.step(1)),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      "0": () => this.reset(),
      Escape: () => this.asked.cursor(null),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  private wheel(event: WheelEvent): void {
    if (!event.ctrlKey) return;
    event.preventDefault();
    this.zoom(event.deltaY > 0 ? 1.25 : 0.8);
  }

  /** Move the cursor to the next point of the first curve that is shown. */
  private step(by: number): void {
    const series = this.curves.find((curve) => !curve.hidden)?.series;
    const { view } = this;
    if (!series?.x.length || !view) return;
    const from = nearest(series.x, view.low);
    const to = nearest(series.x, view.high);
    const here = this.at === null ? (by < 0 ? to + 1 : from - 1) : nearest(series.x, this.at);
    const next = Math.min(Math.max(here + by, from), to);
    this.plot.point(series.x[next]!);
  }

  private zoom(by: number): void {
    this.range((low, high) => {
      const middle = this.at === null ? (low + high) / 2 : this.place(this.at);
      return [middle - (middle - low) * by, middle + (high - middle) * by];
    });
  }

  private pan(by: number): void {
    this.range((low, high) => [low + (high - low) * by, high + (high - low) * by]);
  }

  /** Change the range as it lies on the page: on a logarithmic axis by factors. */
  private range(change: (low: number, high: number) => [number, number]): void {
    const view = this.view!;
    const [low, high] = change(this.place(view.low), this.place(view.high));
    const back = (value: number) => (view.logX ? Math.exp(value) : value);
    this.asked.zoom(back(low), back(high));
  }

  private place(x: number): number {
    return this.view!.logX ? Math.log(x) : x;
  }

  private png(): void {
    const drawn = this.plot.canvas;
    if (!drawn) return;
    const style = getComputedStyle(this.element);
    const ratio = devicePixelRatio;
    const [line, margin] = [16 * ratio, 10 * ratio];
    const shown = this.curves.filter((curve) => !curve.hidden);
    const canvas = document.createElement("canvas");
    canvas.width = drawn.width + 2 * margin;
    canvas.height = drawn.height + line * (shown.length + 1) + 3 * margin;
    const context = canvas.getContext("2d")!;
    context.fillStyle = style.backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = style.color;
    context.font = `600 ${12 * ratio}px ${style.fontFamily}`;
    context.fillText(this.name, margin, margin + 11 * ratio);
    context.drawImage(drawn, margin, margin + line);
    context.font = `${11 * ratio}px ${style.fontFamily}`;
    context.lineWidth = 2 * ratio;
    for (const [at, curve] of shown.entries()) {
      const y = margin + line + drawn.height + margin + at * line;
      const swatch = this.legend.querySelector(`.series-${curve.style.colour + 1}`)!;
      context.strokeStyle = getComputedStyle(swatch).color;
      context.setLineDash(curve.style.dash.map((part) => part * ratio));
      context.beginPath();
      context.moveTo(margin, y + 6 * ratio);
      context.lineTo(margin + 34 * ratio, y + 6 * ratio);
      context.stroke();
      context.fillText(curve.label, margin + 42 * ratio, y + 10 * ratio);
    }
    canvas.toBlob((blob) => blob && download(blob, `${this.name.replaceAll("/", "-")}.png`));
  }
}

/** What a series has between two x: its last value, with the lowest and the highest where they differ. */
function cell(series: Series, from: number, to: number): string {
  let [low, high, last] = [Infinity, -Infinity, NaN];
  for (let i = nearest(series.x, from); i >= 0 && i < series.x.length && series.x[i]! <= to; i++) {
    if (series.x[i]! < from) continue;
    low = Math.min(low, series.low[i]!);
    high = Math.max(high, series.high[i]!);
    last = series.last[i]!;
  }
  const odd = series.marks.filter(([x]) => x! >= from && x! <= to).map(([, kind]) => (kind ? (kind > 0 ? "Inf" : "-Inf") : "NaN"));
  const parts = Number.isNaN(last) ? [] : [short(last, 6)];
  if (low < high) parts.push(`(${short(low, 6)} to ${short(high, 6)})`);
  return [...parts, ...new Set(odd)].join(" ");
}

/** Some room above and below; none where somebody chose the range. */
function padded([low, high]: [number, number], log: boolean, chosen: boolean): [number, number] {
  if (chosen && high > low) return [low, high];
  if (log) {
    const factor = high > low ? (high / low) ** 0.04 : 2;
    return [low / factor, high * factor];
  }
  // What differs by its last digits alone is one value: an axis has no numbers between them.
  const apart = high - low > 1e-10 * Math.max(Math.abs(low), Math.abs(high));
  const room = apart ? 0.04 * (high - low) : Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

/** Let the browser save something. */
export function download(blob: Blob, name: string): void {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
