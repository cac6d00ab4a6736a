// What the studio says of its views, as `treadle.reports.views.described` writes it.

import type { Welcome } from "../protocol.js";
import { fromNumbers, type Camera } from "./camera.js";

export type Value = string | number | boolean;
export type Values = Record<string, Value>;

export interface Option {
  name: string;
  label: string;
  kind: "choice" | "range" | "switch";
  default: Value;
  choices: string[];
  low: number;
  high: number;
  step: number;
}

export interface Named {
  name: string;
  camera: Camera;
  /** Width by height of its picture. */
  aspect: number;
}

export interface View {
  name: string;
  title: string;
  kind: "flat" | "space";
  /** Width and height of a flat view's own pixels. */
  size: [number, number] | null;
  options: Option[];
  cameras: Named[];
  shapes: boolean;
  /** Kinds of shapes that lie over it at once. */
  laidOver: string[];
  samples: boolean;
  inspect: boolean;
  /** Whether the studio draws what is zoomed into, by the options "zoom", "x" and "y". */
  zooms: boolean;
}

interface Told {
  name: string;
  title?: string;
  kind?: string;
  size?: [number, number] | null;
  options?: Partial<Option>[];
  cameras?: { name: string; numbers: number[]; aspect: number }[];
  has?: string[];
  laid_over?: string[];
}

const ZOOMING = ["zoom", "x", "y"];

export function viewsOf(welcome: Welcome | null): View[] {
  return readViews(welcome?.views ?? []);
}

export function readViews(described: Record<string, unknown>[]): View[] {
  return (described as unknown as Told[]).map((told) => {
    const options = (told.options ?? []).map((option) => ({
      label: option.name ?? "",
      kind: "switch" as const,
      default: false,
      choices: [],
      low: 0,
      high: 1,
      step: 0,
      ...option,
    })) as Option[];
    const has = told.has ?? [];
    return {
      name: told.name,
      title: told.title || told.name,
      kind: told.kind === "space" ? "space" : "flat",
      size: told.size ?? null,
      options,
      cameras: (told.cameras ?? []).map(({ name, numbers, aspect }) => ({ name, aspect, camera: fromNumbers(numbers) })),
      shapes: has.includes("shapes"),
      laidOver: told.laid_over ?? [],
      samples: has.includes("samples"),
      inspect: has.includes("inspect"),
      zooms: ZOOMING.every((name) => options.some((option) => option.name === name)),
    };
  });
}

/** The options that people choose one by one: zooming is done in the picture. */
export function shownOptions(view: View): Option[] {
  return view.zooms ? view.options.filter((option) => !ZOOMING.includes(option.name)) : view.options;
}

/** Those of `values` that the view takes: another view, or the same one later, may have others. */
export function fitting(view: View, values: Values): Values {
  const kept: Values = {};
  for (const option of view.options) {
    const value = values[option.name];
    if (value === undefined) continue;
    const good =
      option.kind === "choice"
        ? option.choices.includes(String(value))
        : option.kind === "switch"
          ? typeof value === "boolean"
          : typeof value === "number" && value >= option.low && value <= option.high;
    if (good) kept[option.name] = value;
  }
  return kept;
}
