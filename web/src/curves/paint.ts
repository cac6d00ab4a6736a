// Curves on a canvas. Of each pixel's column the lowest and the highest value are drawn, so that no spike is lost
// between two points, however many values there are behind them.

import { firstFrom, type Series } from "./series.js";

/** Where a plot lies on its canvas, and which values its edges stand for. All sizes are in the canvas's pixels. */
export interface Area {
  left: number;
  top: number;
  width: number;
  height: number;
  x: Axis;
  y: Axis;
  /** The canvas's pixels to one of CSS. */
  ratio: number;
}

export interface Axis {
  low: number;
  high: number;
  log: boolean;
}

export interface Pen {
  colour: string;
  dash: readonly number[];
  /** In CSS pixels. */
  width: number;
  /** Behind an average: seen, but not what is looked at. */
  faint?: boolean;
}

/** A function from a value to its pixel along an axis; NaN for what a logarithmic axis has not. */
export function along(axis: Axis, from: number, to: number): (value: number) => number {
  if (!axis.log) {
    const by = (to - from) / (axis.high - axis.low);
    return (value) => from + (value - axis.low) * by;
  }
  const start = Math.log(axis.low);
  const by = (to - from) / (Math.log(axis.high) - start);
  return (value) => (value > 0 ? from + (Math.log(value) - start) * by : NaN);
}

/** One column of pixels: the span of all values in it, and the line's height when it leaves it. */
interface Columns {
  at: Float64Array;
  top: Float64Array;
  bottom: Float64Array;
  last: Float64Array;
  count: number;
}

/** Bring a series to the columns of pixels that it covers. Values beyond the area are kept: the area clips. */
function columns(series: Series, area: Area): Columns {
  const begin = Math.max(firstFrom(series.x, area.x.low) - 1, 0);
  const end = Math.min(firstFrom(series.x, area.x.high) + 1, series.x.length);
  const room = Math.max(end - begin, 0);
  const made: Columns = {
    at: new Float64Array(room),
    top: new Float64Array(room),
    bottom: new Float64Array(room),
    last: new Float64Array(room),
    count: 0,
  };
  const toX = along(area.x, area.left, area.left + area.width);
  const toY = along(area.y, area.top + area.height, area.top);
  const floor = area.top + area.height + 4 * area.ratio;
  const cramped = room > area.width;
  let n = -1;
  for (let i = begin; i < end; i++) {
    let x = toX(series.x[i]!);
    if (Number.isNaN(x)) continue;
    if (cramped) x = Math.round(x);
    const last = toY(series.last[i]!);
    let top = toY(series.high[i]!);
    let bottom = toY(series.low[i]!);
    if (Number.isNaN(bottom) && !Number.isNaN(top)) bottom = floor; // what is not above zero, on a logarithmic axis
    if (Number.isNaN(top)) top = bottom = last;
    if (n >= 0 && made.at[n] === x) {
      if (top < made.top[n]! || Number.isNaN(made.top[n]!)) made.top[n] = top;
      if (bottom > made.bottom[n]! || Number.isNaN(made.bottom[n]!)) made.bottom[n] = bottom;
      if (!Number.isNaN(last)) made.last[n] = last;
    } else {
      n++;
      made.at[n] = x;
      made.top[n] = top;
      made.bottom[n] = bottom;
      made.last[n] = last;
    }
  }
  made.count = n + 1;
  return made;
}

/** Draw one curve: the band from the lowest to the highest value, and over it the line of the last ones. */
export function paintCurve(context: CanvasRenderingContext2D, series: Series, area: Area, pen: Pen): void {
  const shown = columns(series, area);
  if (!shown.count) return;
  context.save();
  context.beginPath();
  context.rect(area.left, area.top, area.width, area.height);
  context.clip();
  context.fillStyle = context.strokeStyle = pen.colour;
  if (!series.exact) paintBand(context, shown, area.ratio, pen.faint ? 0.7 : 1);
  if (!pen.faint || series.exact) {
    context.globalAlpha = pen.faint ? 0.3 : 1;
    paintLine(context, shown, area, pen);
  }
  context.restore();
}

function paintBand(context: CanvasRenderingContext2D, shown: Columns, ratio: number, strength: number): void {
  const { at, top, bottom, count } = shown;
  const spacing = count > 1 ? (at[count - 1]! - at[0]!) / (count - 1) : 1;
  if (spacing > 2 * ratio) {
    context.globalAlpha = 0.16 * strength;
    context.beginPath();
    for (let i = 0; i < count; i++) context.lineTo(at[i]!, top[i]!);
    for (let i = count - 1; i >= 0; i--) context.lineTo(at[i]!, bottom[i]!);
    context.fill();
  }
  // What stands out from both of its neighbours by more than half of what they span is drawn in full strength.
  const least = 6 * ratio;
  const wide = Math.max(Math.round(Math.min(spacing, ratio)), 1);
  for (let i = 0; i < count; i++) {
    const [before, after] = [Math.max(i - 2, 0), Math.min(i + 2, count - 1)];
    const stands = Math.max(least, 0.5 * Math.max(bottom[before]! - top[before]!, bottom[after]! - top[after]!));
    const alone =
      top[i]! < Math.min(top[before]!, top[after]!) - stands ||
      bottom[i]! > Math.max(bottom[before]!, bottom[after]!) + stands;
    context.globalAlpha = (alone ? 1 : 0.3) * strength;
    const height = Math.max(bottom[i]! - top[i]!, ratio);
    context.fillRect(Math.round(at[i]! - wide / 2), top[i]!, alone ? Math.max(wide, Math.round(ratio)) : wide, height);
  }
  context.globalAlpha = 1;
}

/** Crowded lines are dashed along x: along a line that goes up and down in every pixel dashes would be mere noise. */
function paintLine(context: CanvasRenderingContext2D, shown: Columns, area: Area, pen: Pen): void {
  const { at, last, count } = shown;
  const dash = pen.dash.map((part) => part * area.ratio);
  context.lineWidth = pen.width * area.ratio;
  context.lineJoin = "round";
  const crowded = dash.length > 0 && count > area.width / (4 * area.ratio);
  if (!crowded) context.setLineDash(dash);
  context.beginPath();
  let drawing = false;
  let alone = -1;
  for (let i = 0; i < count; i++) {
    if (Number.isNaN(last[i]!) || (crowded && !inked(at[i]! - area.left, dash))) {
      drawing = false;
      continue;
    }
    if (drawing) context.lineTo(at[i]!, last[i]!);
    else context.moveTo(at[i]!, last[i]!);
    const next = i + 1 < count ? last[i + 1]! : NaN;
    if (!drawing && Number.isNaN(next)) alone = i;
    drawing = true;
  }
  context.stroke();
  // A point with nothing beside it has no line: few points are drawn as points.
  if (count <= area.width / (12 * area.ratio)) {
    for (let i = 0; i < count; i++) dot(context, at[i]!, last[i]!, 2 * area.ratio);
  } else if (alone >= 0) dot(context, at[alone]!, last[alone]!, 2 * area.ratio);
}

function dot(context: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function inked(x: number, dash: readonly number[]): boolean {
  let whole = 0;
  for (const part of dash) whole += part;
  let rest = x % whole;
  for (let i = 0; i < dash.length; i++) {
    rest -= dash[i]!;
    if (rest < 0) return i % 2 === 0;
  }
  return false;
}

/** Marks of values that are no finite number: crosses and wedges at the upper edge, or the lower one for -Inf. */
export function paintMarks(context: CanvasRenderingContext2D, marks: number[][], area: Area, colour: string): void {
  const toX = along(area.x, area.left, area.left + area.width);
  const size = 4 * area.ratio;
  context.save();
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 2 * area.ratio;
  for (const [value, kind] of marks as [number, number][]) {
    const x = toX(value);
    if (!(x >= area.left && x <= area.left + area.width)) continue;
    const y = kind < 0 ? area.top + area.height - size - 1 : area.top + size + 1;
    context.beginPath();
    if (kind === 0) {
      context.moveTo(x - size, y - size);
      context.lineTo(x + size, y + size);
      context.moveTo(x - size, y + size);
      context.lineTo(x + size, y - size);
      context.stroke();
    } else {
      context.moveTo(x, y - kind * size);
      context.lineTo(x + size, y + kind * size);
      context.lineTo(x - size, y + kind * size);
      context.fill();
    }
  }
  context.restore();
}

/** Upright lines where something has happened. */
export function paintEvents(context: CanvasRenderingContext2D, at: readonly number[], area: Area, colour: string): void {
  const toX = along(area.x, area.left, area.left + area.width);
  context.save();
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = Math.max(Math.round(area.ratio), 1);
  context.setLineDash([2 * area.ratio, 3 * area.ratio]);
  let taken = -Infinity;
  for (const value of at) {
    const x = Math.floor(toX(value)) + 0.5;
    if (!(x >= area.left && x <= area.left + area.width + 1) || x - taken < 3 * area.ratio) continue;
    taken = x;
    context.beginPath();
    context.moveTo(x, area.top);
    context.lineTo(x, area.top + area.height);
    context.stroke();
    context.beginPath();
    context.moveTo(x - 3 * area.ratio, area.top);
    context.lineTo(x + 3 * area.ratio, area.top);
    context.lineTo(x, area.top + 5 * area.ratio);
    context.fill();
  }
  context.restore();
}
