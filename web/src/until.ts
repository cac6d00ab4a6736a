// A condition put together from fields, in the notation of treadle.engine.until: for "run until" and for breakpoints.

import { fill, h, show } from "./dom.js";
import type { Page } from "./page.js";

/** Events of the journal that are worth waiting for; `label` is for people. */
const EVENTS = [
  ["checkpoint", "a checkpoint"],
  ["edit", "an edit"],
  ["densify", "densification"],
  ["prune", "pruning"],
  ["rollback", "a rollback"],
  ["bad step", "a bad step"],
] as const;

export interface Condition {
  element: HTMLElement;
  /** The condition in the engine's notation; null, with the field in focus, where something is missing. */
  read(): string | null;
}

export function conditionFields(page: Page, name: string): Condition {
  const kind = select(`${name}: kind of condition`, [
    ["step", "step"],
    ["epoch", "epoch"],
    ["rule", "a metric is"],
    ["stall", "a metric is no better"],
    ["best", "a new best model"],
    ["nan", "NaN or infinity"],
    ["event", "the journal has"],
  ]);
  const number = h("input", { type: "number", min: 1, step: 1, class: "short", "aria-label": `${name}: number`, required: true });
  const metrics = select(`${name}: metric`, []);
  const sign = select(`${name}: comparison`, [["<", "<"], ["<=", "≤"], [">", ">"], [">=", "≥"]]);
  const value = h("input", { type: "number", step: "any", class: "short", "aria-label": `${name}: value`, required: true });
  const patience = h("input", { type: "number", min: 1, step: 1, value: 1, class: "tiny", "aria-label": `${name}: times in a row` });
  const times = h("label", { class: "inline" }, h("span", {}, "for"), patience, h("span", {}, "in a row"));
  const event = select(`${name}: event`, EVENTS);
  const parts: Record<string, HTMLElement[]> = { step: [number], epoch: [number], rule: [metrics, sign, value, times], stall: [metrics, times], event: [event] };
  const all = [number, metrics, sign, value, times, event];

  const choose = (): void => all.forEach((part) => show(part, (parts[kind.value] ?? []).includes(part)));
  kind.addEventListener("change", choose);
  choose();
  page.store.on("state", (state) => {
    // Of these alone can be waited: an epoch's mean is logged, and no rule looks at it.
    const names = Object.keys(state?.metrics ?? {}).filter((one) => /^(train|validation)\//.test(one));
    if (names.join() === Array.from(metrics.options, (option) => option.value).join()) return;
    const chosen = metrics.value;
    fill(metrics, ...names.map((one) => h("option", { value: one }, one)));
    if (names.includes(chosen)) metrics.value = chosen;
  });

  return {
    element: h("span", { class: "fields" }, kind, ...all),
    read() {
      switch (kind.value) {
        case "nan":
        case "best":
          return kind.value;
        case "event":
          return `event ${event.value}`;
        case "rule": {
          if (!metrics.value || !filled(value) || !filled(patience)) return null;
          const often = Number(patience.value) > 1 ? ` for ${patience.value}` : "";
          return `${metrics.value} ${sign.value} ${value.value}${often}`;
        }
        case "stall":
          return metrics.value && filled(patience) ? `${metrics.value} no better for ${patience.value}` : null;
      }
      return filled(number) ? `${kind.value} ${number.value}` : null;
    },
  };
}

function select(label: string, options: readonly (readonly [string, string])[]): HTMLSelectElement {
  return h("select", { "aria-label": label }, ...options.map(([value, text]) => h("option", { value }, text)));
}

function filled(field: HTMLInputElement): boolean {
  if (field.value !== "" && field.checkValidity()) return true;
  field.focus();
  field.reportValidity();
  return false;
}
