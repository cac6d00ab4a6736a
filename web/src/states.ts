// Kept states: what they are called, and what a person can do with one: look, continue from it, branch, bookmark.

import { bookmark } from "./bookmark.js";
import { branch } from "./branch.js";
import { onControl, whyNot } from "./control.js";
import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { bytes, count } from "./format.js";
import { DOT, RING, STAR } from "./icons.js";
import type { Page } from "./page.js";

/** All that is kept of one step: a step may be a checkpoint and the best model. */
export interface Kept {
  step: number;
  kinds: string[];
  bytes: number;
  note: string;
  /** It is of a future that was given up. */
  givenUp: boolean;
}

/** What it costs to look at a state. */
interface Cost {
  needed?: number | null;
  free?: number | null;
  enough?: boolean;
  open?: number[];
}

/** What is kept, by step. */
export function keptStates(page: Page): Kept[] {
  const found = new Map<number, Kept>();
  for (const one of page.store.get("states")?.kept ?? []) {
    const step = Number(one["step"]);
    const kept = found.get(step) ?? { step, kinds: [], bytes: 0, note: "", givenUp: false };
    kept.kinds.push(String(one["kind"] ?? "checkpoint"));
    kept.bytes += Number(one["bytes"] ?? 0);
    kept.note ||= String(one["note"] ?? "");
    kept.givenUp ||= Boolean(one["given_up"]);
    found.set(step, kept);
  }
  return [...found.values()].sort((one, other) => one.step - other.step);
}

/** Kinds of states, those first that are drawn first. */
const KINDS: Record<string, { path: string; filled: boolean; words: string }> = {
  best: { path: STAR, filled: true, words: "best model" },
  checkpoint: { path: DOT, filled: true, words: "checkpoint" },
  model: { path: DOT, filled: false, words: "model of a validation" },
  snapshot: { path: RING, filled: false, words: "snapshot in memory" },
};

export function sign(kept: Kept): { path: string; filled: boolean; name: string } {
  const name = Object.keys(KINDS).find((kind) => kept.kinds.includes(kind)) ?? "checkpoint";
  return { ...KINDS[name]!, name };
}

/** "checkpoint" for a kind of state. */
export function kindWords(kind: string): string {
  return KINDS[kind]?.words ?? kind;
}

/** "checkpoint, best model" */
export function words(kept: Kept): string {
  const kinds = kept.kinds.map(kindWords);
  return [...new Set(kinds), ...(kept.givenUp ? ["given up"] : [])].join(", ");
}

/** Whether the run itself can be taken back to it: a model alone has no optimizer. */
function complete(kept: Kept): boolean {
  return kept.kinds.some((kind) => kind === "checkpoint" || kind === "snapshot");
}

/** Load a kept state to be looked at, once its memory has been said and accepted; null goes back to the live one. */
export async function look(page: Page, step: number | null): Promise<void> {
  if (step === null) {
    page.store.set("looking", null);
    await page.try({ type: "look", step: null });
    return page.say("Back at the live state");
  }
  const cost = await page.try<Cost | null>({ type: "look", step });
  if (cost === undefined) return;
  const open = cost?.open?.includes(step);
  if (!open) {
    const [needed, free] = [cost?.needed ? bytes(cost.needed) : "some", cost?.free ? `; ${bytes(cost.free)} are free` : ""];
    const body = [
      h("p", {}, `This takes ${needed} of memory beside the run${free}.`),
      h("p", {}, "The training is not touched: it goes on, or waits where it is."),
      cost?.enough === false && h("p", { class: "trouble" }, "There is not enough memory for it."),
    ];
    const action = cost?.enough === false ? {} : { action: "Load it" };
    if (!(await ask({ title: `Look at step ${count(step)}?`, body, ...action }))) return;
    page.say(`Loading step ${count(step)} …`);
  }
  // Also where it is open: it stays open for as long as anybody looks who has said so.
  if ((await page.try({ type: "look", step, sure: true })) === undefined) return;
  page.store.set("looking", step);
  page.say(`Looking at step ${count(step)}, read only`);
}

/** Go back to a state and train on from there. */
export async function continueFrom(page: Page, step: number): Promise<void> {
  const now = page.store.get("state")?.step ?? step;
  const keep = h("input", { type: "checkbox" });
  keep.checked = true;
  const body = [
    h("p", {}, `The run goes back from step ${count(now)} to step ${count(step)} and trains on from there. The ${count(Math.max(0, now - step))} steps in between are given up; their curves stay, greyed.`),
    h("label", { class: "tick" }, keep, h("span", {}, "Keep the given-up future as a fork: a run of its own, to go on with")),
  ];
  const title = `Continue from step ${count(step)}?`;
  if (!(await ask({ title, body, action: `Continue from ${count(step)}`, grave: true }))) return;
  if ((await page.try({ type: "rewind", step, keep: keep.checked })) === undefined) return;
  page.say(`The run is at step ${count(step)} again`);
  if (page.store.get("looking") !== null) await look(page, null);
}

/** The buttons of a state. */
export function stateActions(page: Page, kept: Kept, looking: boolean): HTMLElement[] {
  const features = page.store.get("welcome")?.features ?? [];
  const step = count(kept.step);
  const button = (label: string, where: string, act: () => unknown, commands = true): HTMLElement => {
    const name = `${label} ${where} step ${step}`;
    return h("button", { type: "button", class: "small", "aria-label": name, title: name, onclick: act, disabled: commands && Boolean(whyNot(page)) }, label);
  };
  return [
    ...(looking || !features.includes("look") ? [] : [button("Look", "at", () => look(page, kept.step), false)]),
    ...(features.includes("train") && complete(kept) ? [button("Continue", "from", () => continueFrom(page, kept.step))] : []),
    ...(features.includes("branch") && complete(kept) ? [button("Branch", "from", () => branch(page, kept.step))] : []),
    ...(features.includes("train") ? [button("Note", "at", () => bookmark(page, kept.step))] : []),
  ];
}

/** Call `listener` where the buttons of states would be others. */
export function onStates(page: Page, listener: () => void): void {
  let before = "";
  const follow = (): void => {
    const now = `${whyNot(page)} ${page.store.get("welcome")?.features.join()}`;
    if (now !== before) {
      before = now;
      listener();
    }
  };
  onControl(page, follow);
  page.store.on("states", listener);
  page.store.on("looking", listener);
}

/** All kept states as a table, newest first: what the timeline shows, with nothing over anything. */
export function statesPanel(page: Page): HTMLElement {
  const body = h("tbody");
  const none = h("p", { class: "hint" }, "No state is kept yet. Save one, or let the recipe do so: save_every.");
  const table = h("table", {}, h("thead", {}, h("tr", {}, ...["Step", "What is kept", "Size"].map((text) => h("th", { scope: "col" }, text)))), body);
  onStates(page, () => {
    const kept = keptStates(page).reverse();
    none.hidden = kept.length > 0;
    table.hidden = kept.length === 0;
    body.replaceChildren(
      ...kept.map((one) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, count(one.step)),
          h("td", {}, words(one), one.note && h("q", {}, one.note), h("span", { class: "buttons" }, ...stateActions(page, one, page.store.get("looking") === one.step))),
          h("td", { class: "number" }, one.bytes ? bytes(one.bytes) : ""),
        ),
      ),
    );
  });
  return h("div", { class: "states" }, table, none);
}
