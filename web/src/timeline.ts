// The run's past on one line: kept states to look at, marks of the journal, forks, and stretches that were given up.

import { h, icon, show, write } from "./dom.js";
import { count } from "./format.js";
import { ALERT, BRANCH, CHECK, DOT, EDIT, FLAG, GROW, REWIND, SHRINK } from "./icons.js";
import type { Page } from "./page.js";
import type { States } from "./protocol.js";
import { keptStates, look, sign, words } from "./states.js";

const SIGNS: Record<string, string> = {
  note: FLAG,
  edit: EDIT,
  undo: EDIT,
  rewind: REWIND,
  rollback: REWIND,
  fork: BRANCH,
  branch: BRANCH,
  breakpoint: ALERT,
  "bad step": ALERT,
  validate: CHECK,
  densify: GROW,
  prune: SHRINK,
  pruned: SHRINK,
  shrunk: SHRINK,
};
/** Marks nearer than this are one, which tells of all of them. */
const NEAR = 0.013;

export function timelinePanel(page: Page): HTMLElement {
  const elapsed = h("div", { class: "elapsed" });
  const head = h("div", { class: "now", title: "now" });
  const [lost, marks, states, axis] = ["lost", "marks", "kept", "axis"].map((name) => h("div", { class: name }));
  states!.setAttribute("role", "toolbar");
  states!.setAttribute("aria-label", "Kept states: choose one to look at");
  const about = h("p", { class: "about", "aria-live": "off" });
  const track = h("div", { class: "track" }, elapsed, lost!, head, states!);
  const element = h("section", { class: "timeline", "aria-label": "Timeline" }, marks!, track, axis!, about);
  let end = 0;

  const place = (part: HTMLElement, step: number): void => part.style.setProperty("left", `${(100 * step) / end}%`);
  const tell = (text: string): void => write(about, text);

  function draw(): void {
    const known = page.store.get("states");
    const looking = page.store.get("looking");
    const chosen = states!.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset["step"] : undefined;
    states!.replaceChildren(
      ...keptStates(page).map((kept) => {
        const { step, note } = kept;
        const { path, filled, name: kind } = sign(kept);
        const name = `Step ${count(step)}: ${words(kept)}${note && ` “${note}”`}`;
        const classes = `state ${kind}${kept.givenUp ? " given-up" : ""}`;
        const button = h("button", { type: "button", class: classes, "aria-label": name, title: name, tabindex: -1, "aria-pressed": String(step === looking), "data-step": step, "data-note": Boolean(note) && "true" }, icon(path, filled));
        button.addEventListener("click", () => void look(page, step === looking ? null : step));
        button.addEventListener("focus", () => tell(`${name}. Enter looks at it.`));
        place(button, step);
        return button;
      }),
    );
    const buttons = [...states!.children] as HTMLElement[];
    const stop = buttons.find((one) => one.dataset["step"] === chosen) ?? buttons.at(-1);
    stop?.setAttribute("tabindex", "0");
    if (chosen !== undefined) stop?.focus();
    marks!.replaceChildren(...(known ? clusters(known, end) : []).map(({ step, path, text }) => {
      const mark = h("span", { class: "mark", title: text, role: "img", "aria-label": text }, icon(path));
      place(mark, step);
      return mark;
    }));
    lost!.replaceChildren(...(known?.lost ?? []).map(([from = 0, to = 0]) => {
      const stretch = h("span", { class: "stretch", title: `Given up: steps ${count(from)} to ${count(to)}` });
      place(stretch, from);
      stretch.style.setProperty("width", `${(100 * (to - from)) / end}%`);
      return stretch;
    }));
    axis!.replaceChildren(...ticks(end).map((step) => {
      const tick = h("span", {}, count(step));
      place(tick, step);
      return tick;
    }));
  }

  const follow = (): void => {
    const step = page.store.get("state")?.step ?? 0;
    const far = Math.max(step, ...keptStates(page).map((one) => one.step), ...(page.store.get("states")?.lost ?? []).flat());
    const wanted = reach(far, page.store.get("state")?.max_steps ?? null);
    if (wanted !== end) {
      end = wanted;
      draw();
    }
    elapsed.style.setProperty("width", `${(100 * step) / end}%`);
    place(head, step);
  };
  page.store.on("state", follow);
  page.store.on("states", () => (follow(), draw()));
  page.store.on("looking", draw);
  page.store.on("welcome", (welcome) => show(element, !welcome || welcome.features.includes("look")));
  states!.addEventListener("keydown", (event) => {
    const buttons = [...states!.children] as HTMLElement[];
    const at = buttons.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons.forEach((one, index) => one.setAttribute("tabindex", index === to ? "0" : "-1"));
    buttons[to].focus();
  });
  states!.addEventListener("focusout", () => tell(""));
  page.keys.add("States", "k", "go to the kept states (arrows choose, Enter looks)", () => {
    states!.querySelector<HTMLElement>("[tabindex='0']")?.focus();
  });
  page.keys.add("States", "l", "back to the live state", () => void (page.store.get("looking") !== null && look(page, null)));
  return element;
}

/** Where the line ends: a round number beyond what there is, so that it need not move at each step. */
function reach(step: number, limit: number | null): number {
  if (limit !== null && limit <= step * 1.5) return Math.max(limit, step, 1);
  const unit = 10 ** Math.max(1, Math.floor(Math.log10(Math.max(step, 1))) - 1) * 2.5;
  return Math.max(10, Math.ceil((step * 1.02 + 1) / unit) * unit);
}

/** Round steps to write below the line, about six. */
function ticks(end: number): number[] {
  const rough = end / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = Math.max(1, [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? power);
  return Array.from({ length: Math.floor(end / unit) + 1 }, (_, index) => index * unit).filter((step) => step <= end * 0.985);
}

interface Cluster {
  step: number;
  path: string;
  text: string;
}

/** Marks, forks included and checkpoints not, which are states; with those that stand too near to one another as one. */
function clusters(known: States, end: number): Cluster[] {
  const all = [
    ...known.marks.filter((one) => one["kind"] !== "checkpoint").map((one) => ({ step: Number(one["step"]), kind: String(one["kind"]), text: String(one["text"] ?? "") })),
    ...known.forks.map((one) => ({ step: Number(one["step"]), kind: "fork", text: String(one["run"] ?? one["name"] ?? "") })),
  ].sort((one, other) => one.step - other.step);
  const groups: (typeof all)[] = [];
  for (const one of all) {
    const last = groups.at(-1);
    if (last && (one.step - last[0]!.step) / end < NEAR) last.push(one);
    else groups.push([one]);
  }
  return groups.map((group) => {
    const lines = group.map(({ step, kind, text }) => `step ${count(step)}: ${kind}${text && `, ${text}`}`);
    const told = lines.length > 12 ? [...lines.slice(0, 12), `and ${lines.length - 12} more`] : lines;
    const kinds = new Set(group.map(({ kind }) => kind));
    const note = kinds.has("note") ? "note" : group[0]!.kind;
    return { step: group[0]!.step, path: SIGNS[note] ?? DOT, text: told.join("\n") };
  });
}
