// One plot: uPlot has the axes, the cursor and the drag that zooms; the curves are painted into it by ourselves, since
// each has x of its own.

import uPlot from "uplot";
import { duration, tick } from "./numbers.js";
import { paintCurve, paintEvents, paintMarks, type Area, type Axis } from "./paint.js";
import { inks, type Inks, type Style } from "./palette.js";
import type { Series } from "./series.js";

export interface Curve {
  /** The same as long as the chart has this curve. */
  id: string;
  label: string;
  /** Why there are no points, for people. */
  problem: string;
  style: Style;
  series: Series;
  /** What rewinds gave up of it, the newest first. */
  lost: readonly Series[];
  /** The values themselves, where `series` is their average. */
  raw: Series | null;
  hidden: boolean;
}

export type Unit = "step" | "epoch" | "time";

export interface Picture {
  curves: readonly Curve[];
  /** Where something has happened, rising. */
  events: readonly number[];
  x: Axis;
  y: Axis;
  unit: Unit;
}

export interface Asked {
  /** Somebody has dragged over a range of x, and of y unless the drag was flat. */
  zoom(x: [number, number], y: [number, number] | null): void;
  reset(): void;
  /** There is another width to draw in. */
  resized(): void;
  /** The cursor stands at an x, or has left. */
  cursor(x: number | null): void;
}

/** What axis and margins take of the width, in CSS pixels. */
const BESIDE = 78;
const NUMBERS = 56;
/** All plots of the page have one cursor. */
const LINKED = "curves";

export class Plot {
  readonly element = document.createElement("div");
  private made: uPlot | null = null;
  private picture: Picture | null = null;
  private inks: Inks | null = null;

  constructor(private readonly asked: Asked) {
    this.element.className = "plot";
    new ResizeObserver(() => this.resize()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
    new MutationObserver(() => this.recolour()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  /** The width that its curves have, in the screen's own pixels. */
  get pixels(): number {
    return Math.max(this.element.clientWidth - BESIDE, 0) * devicePixelRatio;
  }

  get canvas(): HTMLCanvasElement | null {
    return this.made ? this.made.ctx.canvas : null;
  }

  show(picture: Picture): void {
    const before = this.picture;
    this.picture = picture;
    const same =
      before && before.x.log === picture.x.log && before.y.log === picture.y.log && before.unit === picture.unit;
    if (!this.made || !same) this.make();
    else this.range();
  }

  /** Put the linked cursor at an x; null takes it away. */
  point(x: number | null): void {
    if (!this.made) return;
    const left = x === null ? -10 : this.made.valToPos(x, "x");
    this.made.setCursor({ left, top: x === null ? -10 : this.made.over.clientHeight / 2 });
  }

  destroy(): void {
    this.made?.destroy();
    this.made = null;
  }

  private recolour(): void {
    this.inks = null;
    if (this.made) this.make();
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    this.asked.resized();
    if (this.made) this.made.setSize({ width, height });
    else if (this.picture) this.make();
  }

  private range(): void {
    const { made, picture } = this;
    if (!made || !picture) return;
    made.batch(() => {
      made.setScale("x", { min: picture.x.low, max: picture.x.high });
      made.setScale("y", { min: picture.y.low, max: picture.y.high });
    }); // which also draws, once
  }

  private make(): void {
    const { picture, element } = this;
    const { clientWidth: width, clientHeight: height } = element;
    if (!picture || !width || !height) return;
    this.made?.destroy();
    const ink = (this.inks ??= inks(element));
    const letters = getComputedStyle(element);
    const font = `11px ${letters.fontFamily}`;
    const axis: uPlot.Axis = {
      stroke: ink.quiet,
      font,
      grid: { stroke: ink.grid, width: 1 },
      ticks: { stroke: ink.grid, width: 1, size: 4 },
      gap: 4,
    };
    const options: uPlot.Options = {
      width,
      height,
      padding: [8, BESIDE - NUMBERS, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: false, auto: false, distr: picture.x.log ? 3 : 1, range: (_, low, high) => [low, high] },
        y: { auto: false, distr: picture.y.log ? 3 : 1, range: (_, low, high) => [low, high] },
      },
      axes: [
        { ...axis, size: 26, values: (_, at, _axis, _room, by) => at.map((one) => xLabel(one, picture.x.log ? 0 : by, picture.unit)) },
        { ...axis, size: NUMBERS, values: (_, at, _axis, _room, by) => at.map((one) => tick(one, picture.y.log ? 0 : by)) },
      ],
      series: [{}, { show: false }],
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: true, uni: 30, setScale: false },
        sync: {
          key: LINKED,
          scales: ["x", null],
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave", sub: () => true },
        },
        bind: { dblclick: () => () => (this.asked.reset(), null) },
      },
      hooks: {
        draw: [(plot) => this.paint(plot)],
        setCursor: [(plot) => this.cursor(plot)],
        setSelect: [(plot) => this.select(plot)],
      },
    };
    this.made = new uPlot(options, [[picture.x.low, picture.x.high], [null, null]], element);
    this.range();
  }

  private paint(plot: uPlot): void {
    const { picture } = this;
    if (!picture || !this.inks) return;
    const start = performance.now();
    const { left, top, width, height } = plot.bbox;
    const area: Area = { left, top, width, height, x: picture.x, y: picture.y, ratio: devicePixelRatio };
    const shown = picture.curves.filter((curve) => !curve.hidden);
    paintEvents(plot.ctx, picture.events, area, this.inks.mark);
    for (const { raw, style } of shown) {
      if (raw) paintCurve(plot.ctx, raw, area, { colour: this.inks.series[style.colour]!, dash: [], width: 1, faint: true });
    }
    for (const given of shown.flatMap(({ lost }) => lost)) {
      paintCurve(plot.ctx, given, area, { colour: this.inks.lost, dash: [3, 3], width: 1.5 });
    }
    for (const { series, style } of shown) {
      paintCurve(plot.ctx, series, area, { colour: this.inks.series[style.colour]!, dash: style.dash, width: 1.5 });
    }
    for (const { series, style } of shown) {
      paintMarks(plot.ctx, series.marks, area, this.inks.series[style.colour]!);
    }
    performance.measure("curves", { start });
    performance.clearMeasures("curves"); // who observes it has it; kept, they would pile up
  }

  private cursor(plot: uPlot): void {
    const { left } = plot.cursor;
    this.asked.cursor(left === undefined || left < 0 ? null : plot.posToVal(left, "x"));
  }

  private select(plot: uPlot): void {
    const { left, top, width, height } = plot.select;
    if (width <= 0 || height <= 0) return;
    const value = (at: number, axis: string) => plot.posToVal(at, axis);
    const whole = height >= plot.over.clientHeight - 1;
    const wide = width >= plot.over.clientWidth - 1;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    const y: [number, number] = [value(top + height, "y"), value(top, "y")];
    const x: [number, number] = wide
      ? [this.picture!.x.low, this.picture!.x.high]
      : [value(left, "x"), value(left + width, "x")];
    this.asked.zoom(x, whole ? null : y);
  }
}

function xLabel(value: number | null, by: number, unit: Unit): string {
  if (value === null) return "";
  if (unit === "time") return duration(value);
  return value >= 1e4 && (by >= 100 || by === 0) ? `${tick(value / 1000, by / 1000)}k` : tick(value, by);
}
