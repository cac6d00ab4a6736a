// The curves of the run: a chart for each metric with all of its splits, and what is chosen for all charts together.

import { fill, h, show, write } from "../dom.js";
import type { Page } from "../page.js";
import { Chart, download, type View } from "./chart.js";
import { Happenings } from "./happened.js";
import { histogramsPart } from "./histograms.js";
import { style } from "./palette.js";
import { EMPTY, type Series } from "./series.js";
import { Source } from "./source.js";
import { timingPart } from "./timing.js";
import type { Unit } from "./plot.js";

/** While a run goes on, its curves are asked for anew this often, in milliseconds. */
const REFRESH = 500;
const SPLITS = ["train", "epoch", "validation", "test"];
/** Stretches that rewinds gave up which are drawn, the newest. */
const STRETCHES = 5;
/** Smoothing follows the slider's cube, to have room near 1: an average over 1 / (1 - s) values. */
const STRONGEST = 0.999;

/** One curve of one chart: a series of one run, and what that run gave up of it. */
interface Drawn {
  key: string;
  /** null is the run that the page is about. */
  run: string | null;
  source: Source;
  /** The values themselves, asked for where `source` has their average. */
  raw: Source;
  /** Of the page's own run, the newest first. */
  lost: Source[];
}

interface Entry {
  chart: Chart;
  drawn: Drawn[];
  visible: boolean;
  dirty: boolean;
}

export function curvesPanel(page: Page): HTMLElement {
  return new CurvesPanel(page).element;
}

class CurvesPanel {
  readonly element: HTMLElement;
  private readonly entries = new Map<string, Entry>();
  private readonly charts = h("div", { class: "charts" });
  private readonly empty = h("p", { class: "note" }, "No values have been logged yet.");
  private readonly runsList = h("ul", { class: "others" });
  private readonly sum = h("summary", {}, "Runs");
  private readonly minus = h("select", { id: "curves-minus" });
  private readonly seer: IntersectionObserver;
  private readonly happenings: Happenings;
  private names: string[] = [];
  private unit: Unit = "step";
  private logX = false;
  private smoothing = 0;
  private filter = "";
  private others: string[] = [];
  private chosen: [number, number] | null = null;
  private cursorAt: number | null = null;
  private asked = -1;
  private scheduled = 0;

  constructor(private readonly page: Page) {
    this.happenings = new Happenings(page, () => this.redrawAll());
    this.seer = new IntersectionObserver((seen) => this.seen(seen), { rootMargin: "200px" });
    this.element = h("section", { class: "panel curves", "aria-label": "Curves" }, this.toolbar(), this.empty, this.charts, histogramsPart(page), timingPart(page));
    this.listMinus();
    page.store.on("welcome", () => this.refresh(true));
    page.store.on("state", (state) => this.heard(Object.keys(state?.metrics ?? {})));
    page.store.on("states", () => {
      this.refresh(true);
      this.redrawAll();
    });
    setInterval(() => this.tick(), REFRESH);
    document.addEventListener("visibilitychange", () => this.tick());
  }

  // What is chosen ---------------------------------------------------------------------------------------------------

  private toolbar(): HTMLElement {
    const unit = h(
      "select",
      { id: "curves-x" },
      h("option", { value: "step" }, "steps"),
      h("option", { value: "epoch" }, "epochs"),
      h("option", { value: "time" }, "time"),
    );
    unit.onchange = () => {
      this.unit = unit.value as Unit;
      this.reset();
    };
    const logX = h("input", { type: "checkbox", id: "curves-log-x" });
    logX.onchange = () => {
      this.logX = logX.checked;
      this.reset();
    };
    const smoothing = h("input", { type: "range", id: "curves-smoothing", min: 0, max: 1, step: 0.01, value: 0 });
    const said = h("output", { for: "curves-smoothing" }, "none");
    smoothing.oninput = () => {
      const share = Number(smoothing.value);
      this.smoothing = share && Math.min(1 - (1 - share) ** 3, STRONGEST);
      const over = 1 / (1 - this.smoothing);
      write(said, share ? `over ${over < 10 ? over.toFixed(1) : Math.round(over)}` : "none");
      smoothing.setAttribute("aria-valuetext", said.textContent!);
      this.refresh(false);
    };
    const filter = h("input", { type: "search", id: "curves-filter", placeholder: "loss", size: 8 });
    filter.oninput = () => {
      this.filter = filter.value.trim().toLowerCase();
      for (const [name, entry] of this.entries) show(entry.chart.element, name.toLowerCase().includes(this.filter));
    };
    this.minus.onchange = () => this.refresh(false);
    const runs = h("details", { class: "choice" }, this.sum, this.runsList);
    runs.ontoggle = () => runs.open && void this.listRuns();
    return h(
      "div",
      { class: "tools", role: "group", "aria-label": "Of all charts" },
      h("h2", {}, "Curves"),
      h("label", { for: "curves-x" }, "over ", unit),
      h("label", { for: "curves-log-x" }, logX, " log x"),
      h("label", { for: "curves-smoothing" }, "Smoothing ", smoothing, said),
      runs,
      h("label", { for: "curves-minus" }, "minus ", this.minus),
      h("label", { for: "curves-filter" }, "Show ", filter),
      h("button", { type: "button", onclick: () => this.reset() }, "Show all x"),
    );
  }

  private async listRuns(): Promise<void> {
    const answer = await this.page.try<unknown>({ type: "runs" });
    const own = this.page.store.get("welcome")?.run;
    const names = runNames(answer).filter((name) => name !== own);
    const items = names.map((name) => {
      const box = h("input", { type: "checkbox" });
      box.checked = this.others.includes(name);
      box.onchange = () => {
        this.others = box.checked ? [...this.others, name] : this.others.filter((other) => other !== name);
        this.listMinus();
        this.arrange();
      };
      return h("li", {}, h("label", {}, box, ` ${name}`));
    });
    fill(this.runsList, ...(items.length ? items : [h("li", {}, "There are no other runs beside this one.")]));
  }

  private listMinus(): void {
    const before = this.minus.value;
    const names = this.others;
    fill(this.minus, h("option", { value: "" }, "nothing"), ...names.map((name) => h("option", { value: name }, name)));
    this.minus.value = names.includes(before) ? before : "";
    write(this.sum, names.length ? `Runs (${names.length + 1})` : "Runs");
  }

  private reset(): void {
    this.chosen = null;
    this.refresh(false);
  }

  // Which charts there are ---------------------------------------------------------------------------------------------

  private heard(names: string[]): void {
    if (names.length === this.names.length && names.every((name, at) => name === this.names[at])) return;
    this.names = names;
    this.arrange();
  }

  /** Make the charts that the metrics' names ask for, and in each the curves of its splits and runs. */
  private arrange(): void {
    show(this.empty, !this.names.length);
    const groups = new Map<string, string[]>();
    for (const key of this.names) {
      const name = key.slice(key.indexOf("/") + 1);
      groups.set(name, [...(groups.get(name) ?? []), key]);
    }
    for (const [name, entry] of this.entries) {
      if (groups.has(name)) continue;
      this.seer.unobserve(entry.chart.element);
      entry.chart.destroy();
      this.entries.delete(name);
    }
    const order = [...groups.keys()].sort((one, other) => rank(one, groups.get(one)!) - rank(other, groups.get(other)!));
    for (const [place, name] of order.entries()) {
      const keys = groups.get(name)!;
      let entry = this.entries.get(name);
      if (!entry) {
        entry = { chart: this.makeChart(name), drawn: [], visible: false, dirty: false };
        this.entries.set(name, entry);
        this.charts.insertBefore(entry.chart.element, this.charts.children[place] ?? null);
        show(entry.chart.element, name.toLowerCase().includes(this.filter));
        this.seer.observe(entry.chart.element);
      }
      const before = entry.drawn;
      const sorted = [...keys].sort((a, b) => SPLITS.indexOf(split(a)) - SPLITS.indexOf(split(b)));
      entry.drawn = [null, ...this.others].flatMap((run) =>
        sorted.map((key) => before.find((one) => one.run === run && one.key === key) ?? this.makeDrawn(key, run, name)),
      );
    }
    this.refresh(false);
  }

  private makeChart(name: string): Chart {
    return new Chart(name, {
      zoom: (low, high) => this.zoom(low, high),
      reset: () => this.reset(),
      resized: () => {
        const entry = this.entries.get(name);
        if (entry?.visible && this.page.store.get("link") === "open") this.ask(entry, false);
      },
      cursor: (x) => this.cursor(x),
      csv: () => void this.csv(name),
    });
  }

  private makeDrawn(key: string, run: string | null, name: string): Drawn {
    const changed = () => this.changed(name);
    const source = () => new Source(this.page.connection, changed);
    return { key, run, source: source(), raw: source(), lost: run === null ? Array.from({ length: STRETCHES }, source) : [] };
  }

  // What is asked for --------------------------------------------------------------------------------------------------

  /** While the run goes on there is more of it twice a second, for the charts that can be seen. */
  private tick(): void {
    const step = this.page.store.get("state")?.step ?? -1;
    if (document.hidden || step === this.asked || this.page.store.get("link") !== "open") return;
    this.asked = step;
    this.refresh(true);
  }

  private refresh(anew: boolean): void {
    if (this.page.store.get("link") !== "open") return;
    this.happenings.want(this.unit, this.names[0], anew);
    for (const entry of this.entries.values()) if (entry.visible) this.ask(entry, anew);
  }

  private ask(entry: Entry, anew: boolean): void {
    const [low, high] = this.chosen ?? [null, null];
    const minus = this.minus.value || null;
    const given = this.page.store.get("states")?.lost.length ?? 0;
    for (const one of entry.drawn) {
      const wanted = {
        key: one.key,
        run: one.run,
        x: this.unit,
        low,
        high,
        points: entry.chart.points,
        log_x: this.logX,
        smoothing: this.smoothing,
        minus,
      };
      one.source.want(wanted, anew);
      if (this.smoothing) one.raw.want({ ...wanted, smoothing: 0 }, anew);
      if (minus) continue;
      for (const [age, lost] of one.lost.slice(0, given).entries()) {
        lost.want({ ...wanted, key: age ? `lost/${given - age}/${one.key}` : `lost/${one.key}`, smoothing: 0 }, anew);
      }
    }
  }

  private seen(seen: IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of seen) {
      for (const entry of this.entries.values()) {
        if (entry.chart.element !== target) continue;
        entry.visible = isIntersecting;
        if (isIntersecting && this.page.store.get("link") === "open") {
          this.ask(entry, true);
          this.redraw(entry);
        }
      }
    }
  }

  private zoom(low: number, high: number): void {
    if (!(high > low)) return;
    this.chosen = [low, high];
    this.redrawAll(); // what is known already, until the rest is there
    this.refresh(false);
  }

  // What is drawn ------------------------------------------------------------------------------------------------------

  private changed(name: string): void {
    const entry = this.entries.get(name);
    if (!entry) return;
    if (this.chosen) this.redraw(entry);
    else this.redrawAll(); // they have one range of x
  }

  private redrawAll(): void {
    for (const entry of this.entries.values()) this.redraw(entry);
  }

  private redraw(entry: Entry): void {
    entry.dirty = true;
    this.scheduled ||= requestAnimationFrame(() => {
      this.scheduled = 0;
      const view = this.view();
      for (const one of this.entries.values()) {
        if (one.dirty && one.visible) this.draw(one, view);
        one.dirty = false;
      }
    });
  }

  private draw(entry: Entry, view: View): void {
    const runs = 1 + this.others.length;
    const splits = entry.drawn.length / runs;
    const minus = this.minus.value;
    entry.chart.curves = entry.drawn.flatMap((one, at) => {
      if (minus && one.run === minus) return []; // nothing is left of what is subtracted from itself
      const [run, which] = [Math.floor(at / splits), at % splits];
      const name = split(one.key) + (one.run ? ` of ${one.run}` : runs > 1 ? " of this run" : "");
      const id = `${one.run ?? ""}/${one.key}`;
      return {
        id,
        label: minus ? `${name} minus ${minus}` : name,
        problem: one.source.refused,
        style: style(run, which, runs, splits),
        series: one.source.series ?? EMPTY,
        raw: this.smoothing ? one.raw.series : null,
        lost: minus ? [] : one.lost.flatMap(({ series }) => (series?.x.length ? [series] : [])),
        hidden: entry.chart.curves.find((curve) => curve.id === id)?.hidden ?? false,
      };
    });
    entry.chart.draw(view);
  }

  private view(): View {
    const { unit, logX } = this;
    let [low, high] = this.chosen ?? this.all();
    if (logX && !(low > 0)) low = Math.min(this.smallest(), high / 10);
    return { unit, logX, low, high, events: this.happenings.events() };
  }

  /** All that is known, but for charts out of sight that still have steps where seconds are wanted. */
  private *everything(): Iterable<Series> {
    for (const { drawn } of this.entries.values()) {
      for (const { source, lost } of drawn) {
        for (const { series, unit } of [source, ...lost]) if (series?.x.length && unit === this.unit) yield series;
      }
    }
  }

  private all(): [number, number] {
    let [low, high] = [Infinity, -Infinity];
    for (const { x } of this.everything()) {
      low = Math.min(low, x[0]!);
      high = Math.max(high, x[x.length - 1]!);
    }
    if (low > high) return [0, 1];
    return low < high ? [low, high] : [low - 0.5, low + 0.5];
  }

  private smallest(): number {
    let least = Infinity;
    for (const { x } of this.everything()) {
      const positive = x.find((value) => value > 0);
      if (positive !== undefined) least = Math.min(least, positive);
    }
    return Number.isFinite(least) ? least : 1;
  }

  private cursor(x: number | null): void {
    if (x === this.cursorAt) return;
    this.cursorAt = x;
    for (const entry of this.entries.values()) entry.chart.cursor(x);
  }

  private async csv(name: string): Promise<void> {
    const drawn = this.entries.get(name)?.drawn ?? [];
    for (const run of [null, ...this.others]) {
      const keys = drawn.filter((one) => one.run === run).map((one) => one.key);
      const text = await this.page.try<string>({ type: "table", keys, run, rows: 100_000 });
      const of = run ?? this.page.store.get("welcome")?.run ?? "run";
      if (text !== undefined) download(new Blob([text], { type: "text/csv" }), `${of}-${name}.csv`.replaceAll("/", "-"));
    }
  }
}

function split(key: string): string {
  return key.slice(0, key.indexOf("/"));
}

/** The loss stands before all, then what is validated; what was merely set, weights and learning rates, comes last. */
function rank(name: string, keys: readonly string[]): number {
  if (/^lr\b|\.weight$/.test(name)) return 3;
  if (name === "loss") return 0;
  return keys.some((key) => split(key) === "validation") ? 1 : 2;
}

/** The names in what the studio says of its runs. */
function runNames(answer: unknown): string[] {
  const rows = Array.isArray(answer) ? answer : ((answer as { runs?: unknown } | undefined)?.runs ?? []);
  return (rows as { name?: unknown }[]).map((row) => row?.name).filter((name): name is string => typeof name === "string");
}
