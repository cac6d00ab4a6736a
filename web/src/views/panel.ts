// The live views: one pane, or two beside one another with linked cameras; and how much time drawing may take.

import { lookBeside } from "../beside.js";
import { fill, h, show, write } from "../dom.js";
import type { Page } from "../page.js";
import { viewsOf, type View } from "./described.js";
import { Pane, type Moved, type Subject } from "./pane.js";

const EMPTY =
  "This trainer shows no pictures yet. Write examples(self), which returns a dict of name to picture (H, W) or (H, W, C), " +
  "or views(self), which returns a dict of name to a function of a window, and they appear here.";

export function viewsPanel(page: Page): HTMLElement {
  return new ViewsPanel(page).element;
}

/** A pane with its choice of view and of what is looked at. */
interface Slot {
  pane: Pane;
  view: HTMLSelectElement;
  subject: HTMLSelectElement;
  element: HTMLElement;
}

class ViewsPanel {
  readonly element: HTMLElement;
  private views: View[] = [];
  private subjects: Subject[] = [];
  private readonly slots: Slot[] = [];
  private readonly panes = h("div", { class: "panes" });
  private readonly empty = h("p", { class: "note" }, EMPTY);
  private readonly link = h("input", { type: "checkbox", id: "views-link" });
  private readonly measured = h("output");
  private readonly frames = h("select", { id: "views-frames" });

  constructor(private readonly page: Page) {
    this.link.checked = true;
    this.element = h("section", { class: "panel views", "aria-label": "View" }, this.toolbar(), this.empty, this.panes);
    this.add();
    page.store.on("welcome", (welcome) => this.setViews(viewsOf(welcome)));
    page.store.on("welcome", () => this.setSubjects());
    for (const key of ["looking", "beside"] as const) page.store.on(key, () => this.setSubjects(key));
    page.store.on("state", (state) => {
      write(this.measured, state ? `${Math.round(100 * state.drawing)} %` : "");
    });
    setInterval(() => {
      if (!document.hidden) for (const { pane } of this.slots) pane.tick();
    }, 1000);
  }

  private toolbar(): HTMLElement {
    const split = h("button", { type: "button", "aria-pressed": "false" }, "Split");
    split.onclick = () => {
      const on = this.slots.length === 1;
      if (on) this.add();
      else this.remove();
      split.setAttribute("aria-pressed", String(on));
      show(linked, on);
    };
    this.page.keys.add("View", "p", "one pane or two", () => split.click());
    this.page.keys.add("View", "i", "inspect pixels", () => this.slots[0]?.pane.inspect());
    const linked = h("label", { for: "views-link", hidden: true }, this.link, " linked");
    const share = h("input", { type: "range", id: "views-share", min: 0, max: 95, step: 5, value: 20 });
    const asked = h("output", { for: "views-share" }, "20 %");
    share.oninput = () => write(asked, `${share.value} %`);
    share.onchange = () => void this.share(Number(share.value));
    fill(this.frames, ...[0, 1, 5, 10, 30].map((one) => h("option", { value: one }, one ? `at most ${one}/s` : "as many as come")));
    this.frames.onchange = () => void this.share(Number(share.value));
    this.page.store.on("welcome", (welcome) => {
      share.disabled = this.frames.disabled = welcome?.role === "view";
    });
    return h(
      "div",
      { class: "tools", role: "group", "aria-label": "Of all panes" },
      h("h2", {}, "View"),
      split,
      linked,
      h("label", { for: "views-share" }, "Drawing may take ", share, asked, ","),
      h("span", {}, "takes ", this.measured, " of the time"),
      h("label", { for: "views-frames" }, "frames ", this.frames),
    );
  }

  private async share(percent: number): Promise<void> {
    await this.page.try({ type: "share", share: percent / 100, frames: Number(this.frames.value) });
  }

  private add(): void {
    const pane = new Pane(this.page, this.slots.length);
    const view = h("select", { "aria-label": `View of pane ${this.slots.length + 1}` });
    const subject = h("select", { "aria-label": `What pane ${this.slots.length + 1} looks at` });
    view.onchange = () => pane.setView(this.viewsIn(pane)[view.selectedIndex] ?? null);
    subject.onchange = () => {
      const chosen = this.subjects[subject.selectedIndex];
      if (chosen) return this.put(slot, chosen);
      subject.selectedIndex = this.subjects.findIndex((one) => same(one, pane.subject));
      void lookBeside(this.page);
    };
    pane.onMove = (moved) => this.moved(pane, moved);
    const element = h("div", { class: "slot" }, h("div", { class: "row" }, view, subject), pane.element);
    const slot = { pane, view, subject, element };
    const first = this.slots[0];
    this.slots.push(slot);
    this.panes.append(element);
    this.panes.classList.toggle("split", this.slots.length > 1);
    this.setViewsOf(slot);
    if (first?.pane.view) {
      pane.values = { ...first.pane.values };
      view.selectedIndex = first.view.selectedIndex;
      pane.setView(first.pane.view);
      const place = first.pane.where();
      if (place) pane.follow(place);
      this.put(first, this.subjects[0]!);
    }
    this.setSubjects("split");
  }

  private remove(): void {
    const slot = this.slots.pop();
    slot?.pane.close();
    slot?.element.remove();
    this.panes.classList.remove("split");
    this.setSubjects("split");
  }

  private moved(pane: Pane, moved: Moved): void {
    if (!this.link.checked) return;
    for (const slot of this.slots) if (slot.pane !== pane) slot.pane.follow(moved);
  }

  private setViews(views: View[]): void {
    this.views = views;
    show(this.empty, !views.length && this.page.store.get("welcome") !== null);
    show(this.panes, views.length > 0);
    for (const slot of this.slots) this.setViewsOf(slot);
  }

  /** The views of what a pane looks at: another run may have others. */
  private viewsIn(pane: Pane): View[] {
    return pane.subject.views ?? this.views;
  }

  private setViewsOf({ pane, view }: Slot): void {
    const views = this.viewsIn(pane);
    const before = pane.view?.name;
    fill(view, ...views.map((one) => h("option", { value: one.name }, one.title)));
    const at = Math.max(views.findIndex((one) => one.name === before), 0);
    view.selectedIndex = at;
    show(view, views.length > 1);
    pane.setView(views[at] ?? null);
  }

  /** Let a pane look at something. */
  private put(slot: Slot, subject: Subject): void {
    const other = this.viewsIn(slot.pane) !== (subject.views ?? this.views);
    slot.pane.setSubject(subject, other);
    if (other) this.setViewsOf(slot);
  }

  /** What there is to look at: the run as it is, the state that was loaded, the run that is open beside it; or another.
   *
   * Where one pane shows all, or of two the second, it turns to what was asked for; the first of two stays as it is. */
  private setSubjects(asked?: "looking" | "beside" | "split"): void {
    const looking = this.page.store.get("looking");
    const beside = this.page.store.get("beside");
    const live: Subject = { label: "live", state: null, run: null, views: null };
    const kept: Subject | null = looking === null ? null : { label: `kept state ${looking}`, state: looking, run: null, views: null };
    const other: Subject | null = beside && { label: beside.state === null ? beside.run : `${beside.run}, kept state ${beside.state}`, ...beside };
    this.subjects = [live, ...[kept, other].filter((one) => one !== null)];
    const more = this.page.store.get("welcome")?.features.includes("beside") ? [h("option", {}, "another run …")] : [];
    const wanted = { looking: kept, beside: other, split: this.subjects.at(-1)! }[asked ?? "split"];
    for (const [index, slot] of this.slots.entries()) {
      fill(slot.subject, ...this.subjects.map((one) => h("option", {}, one.label)), ...more);
      show(slot.subject, this.subjects.length + more.length > 1);
      const own = this.subjects.find((one) => same(one, slot.pane.subject));
      const last = index === this.slots.length - 1;
      const subject = (last && asked ? wanted : null) ?? own ?? (last ? this.subjects.at(-1)! : live);
      slot.subject.selectedIndex = this.subjects.indexOf(subject);
      this.put(slot, subject);
    }
  }
}

function same(one: Subject, other: Subject): boolean {
  return one.state === other.state && one.run === other.run;
}
