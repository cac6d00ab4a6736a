// The branches of this run: processes of their own, each with how it stands and what can be told to it.

import { letGo } from "./beside.js";
import { onControl, whyNot } from "./control.js";
import { ask } from "./dialog.js";
import { fill, h, show } from "./dom.js";
import { count, exact, figure, rate } from "./format.js";
import type { Page } from "./page.js";
import type { Drive } from "./protocol.js";
import { standing } from "./stage.js";

/** One of a `Branches` event. */
interface Branch {
  run: string;
  step: number;
  settings: Record<string, unknown>;
  stage: string;
  alive: boolean;
  error: string;
  lines: string[];
  at?: number;
  max_steps?: number | null;
  rate?: number;
  metrics?: Record<string, number | null>;
}

export function branchesPanel(page: Page): HTMLElement {
  const list = h("ul", { class: "branches" });
  const element = h("section", { class: "branches-panel", "aria-label": "Branches" }, list);
  const draw = (): void => {
    const runs = (page.store.get("branches")?.runs ?? []) as unknown as Branch[];
    show(element, runs.length > 0);
    // A button keeps the focus while the numbers beside it change.
    const held = list.contains(document.activeElement) ? document.activeElement!.getAttribute("aria-label") : null;
    fill(list, ...runs.map((one) => item(page, one)));
    if (held !== null) [...list.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === held)?.focus();
  };
  page.store.on("branches", draw);
  page.store.on("beside", draw);
  let before = "";
  onControl(page, () => {
    const why = whyNot(page);
    if (why !== before) draw();
    before = why;
  });
  return element;
}

function item(page: Page, one: Branch): HTMLElement {
  const name = one.run || `branch from step ${count(one.step)}`;
  const { word, tone, sign } = standing(one.stage);
  const settings = Object.entries(one.settings).map(([setting, value]) => `${setting} = ${exact(value)}`);
  const loss = Object.entries(one.metrics ?? {}).slice(0, 2).map(([metric, value]) => `${metric} ${figure(value)}`);
  const where = one.at === undefined ? "" : `step ${count(one.at)}${one.max_steps ? ` / ${count(one.max_steps)}` : ""}`;
  const shown = isBeside(page, one.run) && one.run !== "";
  const shows = h("button", { type: "button", class: "small", "aria-pressed": String(shown), "aria-label": `Show ${name} beside this run` }, "Show");
  shows.addEventListener("click", () => void beside(page, shown ? null : one.run));
  const act = (label: string, what: Drive["act"]): HTMLElement =>
    h("button", { type: "button", class: "small", disabled: Boolean(whyNot(page)), "aria-label": `${label} ${name}`, onclick: () => void tell(page, one.run, what) }, label);
  const running = one.stage === "running";
  return h(
    "li",
    {},
    h("strong", {}, name),
    h("span", { class: "stage", "data-tone": tone }, h("span", { class: "sign", "aria-hidden": "true" }, sign), word),
    h("span", { class: "said" }, [`from step ${count(one.step)}`, ...settings].join(", ")),
    h("span", { class: "number" }, [where, running && one.rate ? rate(one.rate) : "", ...loss].filter(Boolean).join(" · ")),
    one.error && h("span", { class: "trouble", title: one.lines.join("\n") }, one.error),
    h("span", { class: "buttons" }, ...(one.alive && one.run ? [shows, running ? act("Pause", "pause") : act("Play", "play"), act("Keep", "go on"), act("End", "end")] : [])),
  );
}

/** Whether a branch, as it is now, is what is shown beside this run. */
function isBeside(page: Page, run: string): boolean {
  const beside = page.store.get("beside");
  return beside?.run === run && beside.state === null;
}

async function beside(page: Page, run: string | null): Promise<void> {
  await letGo(page);
  if (run !== null) page.store.set("beside", { run, state: null, views: null });
}

async function tell(page: Page, run: string, act: Drive["act"]): Promise<void> {
  const sure = { title: `End ${run}?`, body: [h("p", {}, "It saves its state and ends; it can be resumed later.")], action: "End it", grave: true };
  if (act === "end" && !(await ask(sure))) return;
  if ((await page.try({ type: "drive", run, act })) === undefined) return;
  if (act === "end" && isBeside(page, run)) page.store.set("beside", null);
  page.say({ pause: `${run} pauses`, play: `${run} plays`, end: `${run} has ended`, "go on": `${run} goes on when this studio is closed` }[act]);
}
