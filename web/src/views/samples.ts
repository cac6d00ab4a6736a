// Held-out samples with their figures, the worst first; choosing one shows it.

import { fill, h, show, write } from "../dom.js";
import { short } from "../curves/numbers.js";
import type { Page } from "../page.js";
import type { View } from "./described.js";
import type { Subject } from "./pane.js";

interface Sample {
  name: string;
  figures: Record<string, number>;
}

export class Samples {
  readonly button = h("button", { type: "button", "aria-expanded": "false" }, "Worst samples");
  readonly element = h("div", { class: "samples", hidden: true });
  private readonly list = h("tbody");
  private readonly head = h("tr");
  private readonly line = h("p", { class: "note", role: "status" });
  private view: View | null = null;
  private subject: Pick<Subject, "state" | "run"> = { state: null, run: null };

  constructor(
    private readonly page: Page,
    private readonly choose: (name: string) => void,
  ) {
    this.button.onclick = () => this.toggle(this.element.hidden !== false);
    const again = h("button", { type: "button", onclick: () => void this.measure() }, "Measure again");
    const table = h("table", {}, h("caption", { class: "note" }, "Held-out samples, the worst first"), h("thead", {}, this.head), this.list);
    this.element.append(h("div", { class: "row" }, again, this.line), table);
  }

  setView(view: View | null): void {
    if (view?.name !== this.view?.name) this.toggle(false);
    this.view = view;
    show(this.button, Boolean(view?.samples));
  }

  /** Measure those of something else. */
  setSubject({ state, run }: Subject): void {
    if (state === this.subject.state && run === this.subject.run) return;
    this.subject = { state, run };
    this.toggle(false);
  }

  private toggle(open: boolean): void {
    show(this.element, open);
    this.button.setAttribute("aria-expanded", String(open));
    if (open) void this.measure();
  }

  private async measure(): Promise<void> {
    const { view, subject } = this;
    if (!view) return;
    write(this.line, "Measuring, within the share of time for drawing …");
    const samples = await this.page.try<Sample[]>({ type: "compare", view: view.name, ...subject, most: 100 });
    write(this.line, samples ? `${samples.length} samples at step ${subject.state ?? this.page.store.get("state")?.step ?? 0}` : "");
    if (samples && view === this.view && subject === this.subject) this.draw(samples);
  }

  private draw(samples: Sample[]): void {
    const names = [...new Set(samples.flatMap((sample) => Object.keys(sample.figures)))];
    fill(this.head, h("th", { scope: "col" }, "sample"), ...names.map((name) => h("th", { scope: "col" }, name)));
    const rows = samples.map((sample) => {
      const button = h("button", { type: "button" }, sample.name);
      button.onclick = () => {
        for (const other of this.list.querySelectorAll("button")) other.setAttribute("aria-current", String(other === button));
        this.choose(sample.name);
      };
      const cells = names.map((name) => h("td", {}, short(sample.figures[name])));
      return h("tr", {}, h("th", { scope: "row" }, button), ...cells);
    });
    fill(this.list, ...rows);
  }
}
