// Asks the studio for the points of one curve, again and again, one request at a time: what is asked for while one is
// under way waits, and only the newest of that is ever sent.

import { Refused, type Ask, type Connection } from "../connection.js";
import { readSeries, type Series } from "./series.js";

export type Wanted = Omit<Extract<Ask, { type: "curves" }>, "type">;

export class Source {
  series: Series | null = null;
  /** What its x are counted in. */
  unit: Wanted["x"];
  /** Why there is none, for people. */
  refused = "";
  private sent = "";
  private next: Wanted | null = null;
  private busy = false;

  constructor(
    private readonly connection: Connection,
    private readonly changed: () => void,
  ) {}

  /** Ask, unless the same was asked last; `anew` asks in any case, as there may be more of it by now. */
  want(wanted: Wanted, anew: boolean): void {
    const text = JSON.stringify(wanted);
    if (!anew && text === this.sent) return;
    this.sent = text;
    this.next = wanted;
    if (!this.busy) void this.send();
  }

  private async send(): Promise<void> {
    this.busy = true;
    while (this.next) {
      const wanted = this.next;
      this.next = null;
      try {
        this.series = readSeries(await this.connection.series({ type: "curves", ...wanted }));
        this.unit = wanted.x;
        this.refused = "";
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.series = null;
        this.refused = error.message;
      }
      this.changed();
    }
    this.busy = false;
  }
}
