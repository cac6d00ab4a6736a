// What a `Series` says: a curve as buckets, each with the lowest, the highest and the last of the values in it.

import type { Packet } from "../connection.js";
import type { Series as Header } from "../protocol.js";

export interface Series {
  x: Float64Array;
  low: Float64Array;
  high: Float64Array;
  last: Float64Array;
  /** How many values there are behind the points. */
  total: number;
  /** Whether every value is a point of its own. */
  exact: boolean;
  /** [x, kind] of values that are no finite number: 0 is NaN, 1 infinity, -1 minus infinity. */
  marks: number[][];
  /** Where the axis of time begins, by the clock in seconds. */
  start: number | null;
}

export const EMPTY: Series = {
  x: new Float64Array(0),
  low: new Float64Array(0),
  high: new Float64Array(0),
  last: new Float64Array(0),
  total: 0,
  exact: true,
  marks: [],
  start: null,
};

/** Read the four rows of float64. Throws where there are fewer bytes than the header says. */
export function readSeries({ header, bytes }: Packet<Header>): Series {
  const count = header.points;
  if (bytes.byteLength !== 32 * count) {
    throw new Error(`a series of ${count} points has ${bytes.byteLength} bytes, not ${32 * count}`);
  }
  const row = (at: number) => new Float64Array(bytes.buffer, bytes.byteOffset + 8 * at * count, count);
  const { total, exact, marks, start } = header;
  return { x: row(0), low: row(1), high: row(2), last: row(3), total, exact, marks, start };
}

/** The first index whose x is at least `at`; `x` rises. */
export function firstFrom(x: Float64Array, at: number): number {
  let [low, high] = [0, x.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle]! < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index of the point nearest to `at`, -1 where there is none. */
export function nearest(x: Float64Array, at: number): number {
  if (!x.length) return -1;
  const after = Math.min(firstFrom(x, at), x.length - 1);
  return after > 0 && at - x[after - 1]! <= x[after]! - at ? after - 1 : after;
}

/** The lowest and highest finite value between two x, of several series; null where there is none.
 *
 * With `positive` only values above zero count, as on a logarithmic axis.
 */
export function extent(all: Iterable<Series>, from: number, to: number, positive = false): [number, number] | null {
  let [low, high] = [Infinity, -Infinity];
  for (const series of all) {
    // One point beyond each edge: the line that leaves the picture is drawn as well, and must not be cut off inside it.
    const end = Math.min(firstFrom(series.x, to) + 1, series.x.length);
    for (let i = Math.max(firstFrom(series.x, from) - 1, 0); i < end; i++) {
      const within = series.x[i]! >= from && series.x[i]! <= to;
      const bottom = within ? series.low[i]! : series.last[i]!;
      const top = within ? series.high[i]! : series.last[i]!;
      if (bottom < low && (!positive || bottom > 0)) low = bottom;
      if (top > high && Number.isFinite(top)) high = top;
      if (positive && bottom <= 0 && top > 0 && series.last[i]! > 0 && series.last[i]! < low) low = series.last[i]!;
    }
  }
  return low <= high ? [low, high] : null;
}
