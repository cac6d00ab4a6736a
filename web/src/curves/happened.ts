// What has happened to the run, where it lies on the charts' axis: the studio tells the step, and charts may be over
// epochs or time.

import type { Page } from "../page.js";
import type { Happened } from "./chart.js";
import type { Unit } from "./plot.js";
import { firstFrom } from "./series.js";
import { Source } from "./source.js";

const POINTS = 1000;

export class Happenings {
  private readonly steps: Source;
  private readonly there: Source;
  private unit: Unit = "step";

  constructor(
    private readonly page: Page,
    changed: () => void,
  ) {
    this.steps = new Source(page.connection, changed);
    this.there = new Source(page.connection, changed);
  }

  /** Know where steps lie on another axis, by a curve that is drawn over both. */
  want(unit: Unit, key: string | undefined, anew: boolean): void {
    this.unit = unit;
    if (unit === "step" || key === undefined) return;
    this.there.want({ key, x: unit, points: unit === "time" ? 2 : POINTS }, anew);
    if (unit === "epoch") this.steps.want({ key, points: POINTS }, anew);
  }

  /** All that is known of, rising. */
  events(): Happened[] {
    const marks = this.page.store.get("states")?.marks ?? [];
    const clock = this.unit === "time" ? this.clock() : null;
    const found: Happened[] = [];
    for (const mark of marks) {
      const [step, kind, text] = [Number(mark["step"]), String(mark["kind"] ?? ""), String(mark["text"] ?? "")];
      const x = clock ? clock(step, kind) : this.unit === "epoch" ? this.epoch(step) : step;
      if (x !== null) found.push({ x, text: text && text !== kind ? `${kind}: ${text}` : kind });
    }
    return found.sort((one, other) => one.x - other.x);
  }

  /** Between two points that lie at known steps. Both curves have the same points, but that one may be newer. */
  private epoch(step: number): number | null {
    const [steps, there] = [this.steps.series?.x, this.there.series?.x];
    if (!steps?.length || !there || Math.abs(steps.length - there.length) > 2) return null;
    const last = Math.min(steps.length, there.length) - 1;
    const after = Math.min(firstFrom(steps, step), last);
    if (steps[after]! === step || after === 0 || step > steps[last]!) return there[after]!;
    const share = (step - steps[after - 1]!) / (steps[after]! - steps[after - 1]!);
    return there[after - 1]! + share * (there[after]! - there[after - 1]!);
  }

  /** The journal says when each entry was written. */
  private clock(): (step: number, kind: string) => number | null {
    const start = this.there.series?.start;
    const times = new Map<string, number>();
    for (const entry of this.page.store.get("journal")) {
      if (typeof entry["time"] === "number") times.set(`${entry["event"]} ${entry["step"]}`, entry["time"]);
    }
    return (step, kind) => {
      const time = times.get(`${kind} ${step}`);
      return time === undefined || start === null || start === undefined ? null : Math.max(time - start, 0);
    };
  }
}
