// Another run beside this one: one of its kept states is chosen, its memory said, and then it is loaded, read only.

import { ask } from "./dialog.js";
import { fill, h, show, write } from "./dom.js";
import { bytes, count } from "./format.js";
import type { Page } from "./page.js";
import type { RunRow } from "./runs.js";
import { kindWords } from "./states.js";
import { readViews } from "./views/described.js";

interface KeptState {
  step: number;
  kind: string;
  bytes: number;
}

interface Cost {
  needed: number;
  free: number | null;
  enough: boolean;
}

/** What is told of a state that was loaded. */
interface Loaded {
  views: Record<string, unknown>[];
  said: string[];
}

/** Ask which run and which of its kept states, unless the run is given, and show it beside this one. */
export async function lookBeside(page: Page, given?: string): Promise<void> {
  const own = page.store.get("welcome")?.run;
  const rows = given === undefined ? await page.try<RunRow[]>({ type: "runs" }) : [{ name: given }];
  if (!rows) return;
  const names = rows.map((row) => row.name).filter((name) => name !== own);
  if (!names.length) return page.say("There is no other run in this directory yet", "warning");
  const chooser = new Chooser(page, names);
  const title = given === undefined ? "Show another run beside this one" : `Show ${given} beside this run`;
  const chosen = ask({ title, body: chooser.body, action: "Show it" });
  void chooser.setRun(names[0]!);
  if (!(await chosen)) return;
  const { run, step } = chooser;
  await letGo(page);
  if (step === null) return page.store.set("beside", { run, state: null, views: null });
  page.say(`Loading ${run} at step ${count(step)} …`);
  const loaded = await page.try<Loaded>({ type: "look", run, step, sure: true });
  if (!loaded) return;
  page.store.set("beside", { run, state: step, views: readViews(loaded.views) });
  if (loaded.said.length) page.say(loaded.said.join("; "), "warning");
  else page.say(`Looking at ${run}, step ${count(step)}, read only`);
}

/** Look at no other run any more, and give back the memory that one took. */
export async function letGo(page: Page): Promise<void> {
  const beside = page.store.get("beside");
  page.store.set("beside", null);
  if (beside?.state != null) await page.try({ type: "look", run: beside.run, step: null });
}

/** The choice of a run and of a state of it, with what that takes. */
class Chooser {
  run = "";
  /** Null is a branch as it is now. */
  step: number | null = null;
  readonly body: HTMLElement[];
  private readonly states = h("select", {});
  private readonly whose = h("span", {});
  private readonly costs = h("p", { class: "hint", role: "status" });
  private readonly trouble = h("p", { class: "trouble", role: "alert" });
  private asked = 0;

  constructor(
    private readonly page: Page,
    names: string[],
  ) {
    const runs = h("select", { autofocus: true }, ...names.map((name) => h("option", { value: name }, name)));
    runs.onchange = () => void this.setRun(runs.value);
    this.states.onchange = () => void this.setStep(this.states.value);
    const field = (label: string, control: HTMLElement): HTMLElement => h("label", { class: "field" }, h("span", {}, label), control);
    this.body = [...(names.length > 1 ? [field("Run, the newest first", runs)] : []), h("label", { class: "field" }, this.whose, this.states), this.costs, this.trouble];
  }

  async setRun(run: string): Promise<void> {
    this.run = run;
    write(this.whose, `State of ${run}`);
    this.allow(false);
    fill(this.states);
    const asked = (this.asked += 1);
    const details = await this.ask<{ kept?: KeptState[] }>({ type: "details", run }, asked);
    if (!details) return;
    const branches = (this.page.store.get("branches")?.runs ?? []) as unknown as { run: string; alive: boolean }[];
    const live = branches.some((one) => one.run === run && one.alive) ? [h("option", { value: "" }, "as it is now")] : [];
    const kept = [...(details.kept ?? [])].sort((one, other) => other.step - one.step);
    fill(this.states, ...live, ...kept.map((one) => h("option", { value: one.step }, `step ${count(one.step)}: ${kindWords(one.kind)}, ${bytes(one.bytes)}`)));
    if (live.length + kept.length > 0) return this.setStep(this.states.value);
    write(this.costs, "");
    write(this.trouble, `${run} has kept no state: there is nothing of it to look at yet.`);
  }

  private async setStep(value: string): Promise<void> {
    this.step = value === "" ? null : Number(value);
    this.allow(this.step === null);
    write(this.trouble, "");
    write(this.costs, this.step === null ? "It is drawn in its own process." : "");
    if (this.step === null) return;
    const asked = (this.asked += 1);
    const cost = await this.ask<Cost>({ type: "look", run: this.run, step: this.step }, asked);
    if (!cost) return;
    write(this.costs, `It takes about ${bytes(cost.needed)} of memory beside this run${cost.free === null ? "" : `; ${bytes(cost.free)} are free`}. Neither run is touched; this one waits while it is loaded.`);
    if (!cost.enough) write(this.trouble, "There is not enough memory for it.");
    this.allow(cost.enough);
  }

  /** The answer to the newest question; what cannot be done is said here. */
  private async ask<Value>(request: Parameters<Page["connection"]["ask"]>[0], asked: number): Promise<Value | undefined> {
    try {
      const answer = await this.page.connection.ask<Value>(request);
      return asked === this.asked ? answer : undefined;
    } catch (error) {
      if (asked === this.asked) {
        write(this.costs, "");
        write(this.trouble, error instanceof Error ? error.message : String(error));
      }
      return undefined;
    }
  }

  private allow(allowed: boolean): void {
    const action = this.states.closest("form")?.querySelector<HTMLButtonElement>("button[type=submit]");
    if (action) action.disabled = !allowed;
  }
}

/** The strip that says which run is open beside this one. */
export function besideStrip(page: Page): HTMLElement {
  const element = h("div", { class: "strip looking", role: "region", "aria-label": "Beside this run" });
  page.store.on("beside", (beside) => {
    show(element, beside?.state != null);
    if (beside?.state == null) return;
    const button = (label: string, act: () => unknown, name: string): HTMLElement => h("button", { type: "button", class: "small", onclick: act, "aria-label": name }, label);
    fill(
      element,
      h("strong", {}, `Beside this run: ${beside.run} at step ${count(beside.state)}, read only.`),
      h("span", { class: "grow" }, "Neither run is touched."),
      button("Another state", () => lookBeside(page, beside.run), `Another state of ${beside.run}`),
      button("Let go", () => letGo(page), `Let go of ${beside.run}`),
    );
  });
  return element;
}
