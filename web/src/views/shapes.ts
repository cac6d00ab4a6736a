// What is laid over a view in space, as `Shapes` brings it: arrays one after the other.

import type { Packet } from "../connection.js";
import type { Shapes as Header } from "../protocol.js";

export interface Shapes {
  /** (N, 3), one after the other. */
  points: Float32Array | null;
  colors: Uint8Array | null;
  lines: Float32Array | null;
  line_colors: Uint8Array | null;
  /** Line i has the points from `offsets[i]` to `offsets[i + 1]`. */
  offsets: Uint32Array | null;
  /** (B, 2, 3): lower and upper corners. */
  boxes: Float32Array | null;
}

interface Part {
  name: keyof Shapes;
  dtype: string;
  shape: number[];
}

const ARRAYS = { float32: Float32Array, uint8: Uint8Array, uint32: Uint32Array } as const;

/** Throws where the bytes are not what the header says. */
export function readShapes({ header, bytes }: Packet<Header>): Shapes {
  const found: Shapes = { points: null, colors: null, lines: null, line_colors: null, offsets: null, boxes: null };
  let at = 0;
  for (const { name, dtype, shape } of header.parts as unknown as Part[]) {
    const Kind = ARRAYS[dtype as keyof typeof ARRAYS];
    if (!Kind) throw new Error(`the part ${name} has values of type ${dtype}`);
    const length = shape.reduce((product, size) => product * size, 1);
    const end = at + length * Kind.BYTES_PER_ELEMENT;
    if (end > bytes.length) throw new Error(`the part ${name} ends after the message`);
    if (name in found) (found as unknown as Record<string, unknown>)[name] = new Kind(bytes.slice(at, end).buffer);
    at = end;
  }
  return found;
}

/** Indices of the two ends of each piece of polylines. */
export function pieces(offsets: Uint32Array): Uint32Array {
  let count = 0;
  for (let line = 0; line + 1 < offsets.length; line++) count += Math.max(offsets[line + 1]! - offsets[line]! - 1, 0);
  const ends = new Uint32Array(2 * count);
  let at = 0;
  for (let line = 0; line + 1 < offsets.length; line++) {
    for (let i = offsets[line]!; i + 1 < offsets[line + 1]!; i++) {
      ends[at++] = i;
      ends[at++] = i + 1;
    }
  }
  return ends;
}
