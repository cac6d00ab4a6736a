// Where the time of the run goes while somebody looks: bars, with the same numbers beside them.

import { fill, h, show, write } from "../dom.js";
import type { Page } from "../page.js";
import { short } from "./numbers.js";

interface Spent {
  name: string;
  what?: string;
  seconds: number;
}

interface Answer {
  measured: number;
  steps: number;
  phases: Spent[];
  hooks: Spent[];
}

/** Milliseconds between two questions; the studio measures for some seconds after each. */
const EVERY = 2000;

export function timingPart(page: Page): HTMLElement {
  const line = h("p", { class: "note", role: "status" });
  const phases = h("tbody");
  const hooks = h("tbody");
  const table = (caption: string, body: HTMLElement) =>
    h(
      "table",
      {},
      h("caption", { class: "note" }, caption),
      h("thead", {}, h("tr", {}, ...["what", "share", "", "per step"].map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))),
      body,
    );
  const element = h(
    "details",
    { class: "measured timing" },
    h("summary", {}, "Time"),
    line,
    table("All of the time", phases),
    table("Hooks, within the above", hooks),
  );
  let asking = false;
  const ask = async () => {
    if (!element.open || asking || document.hidden || page.store.get("link") !== "open") return;
    asking = true;
    const found = await page.try<Answer>({ type: "timing" });
    asking = false;
    if (!found) return void (element.open = false);
    const whole = found.phases.reduce((sum, one) => sum + one.seconds, 0) || 1;
    write(line, found.steps ? `over the last ${short(found.measured, 3)} s and ${found.steps} steps, since this was opened` : "Measuring …");
    fill(phases, ...found.phases.map((one) => row(one, whole, found.steps)));
    fill(hooks, ...found.hooks.map((one) => row(one, whole, found.steps)));
  };
  element.ontoggle = () => void ask();
  setInterval(() => void ask(), EVERY);
  page.store.on("welcome", (welcome) => show(element, welcome?.features.includes("timing") ?? false));
  return element;
}

function row({ name, what, seconds }: Spent, whole: number, steps: number): HTMLElement {
  const share = seconds / whole;
  const bar = h("meter", { min: 0, max: 1, value: Math.min(Math.max(share, 0), 1), "aria-hidden": "true" });
  const title = h("th", { scope: "row" }, name, what && h("span", { class: "note" }, ` ${what}`));
  const each = steps ? `${short((1000 * seconds) / steps, 3)} ms` : "–";
  return h("tr", {}, title, h("td", {}, `${(100 * share).toFixed(1)} %`), h("td", {}, bar), h("td", {}, each));
}
