// What can be chosen about a view: each option as the control that its kind asks for, ranges with an exact number.

import { h } from "../dom.js";
import { short } from "../curves/numbers.js";
import type { Option, Value, Values } from "./described.js";

/** `change` is told every choice; `moving` says that a slider is being dragged. */
export type Change = (name: string, value: Value, moving: boolean) => void;

let made = 0;

/** One labelled control for each option. */
export function controls(options: readonly Option[], values: Values, change: Change): HTMLElement[] {
  return options.map((option) => {
    const value = values[option.name] ?? option.default;
    const id = `option-${(made += 1)}`;
    if (option.kind === "switch") return toggle(option, Boolean(value), id, change);
    if (option.kind === "choice") return choice(option, String(value), id, change);
    return range(option, Number(value), id, change);
  });
}

function toggle(option: Option, value: boolean, id: string, change: Change): HTMLElement {
  const box = h("input", { type: "checkbox", id, "data-option": option.name });
  box.checked = value;
  box.onchange = () => change(option.name, box.checked, false);
  return h("label", { class: "option switch", for: id }, box, ` ${option.label}`);
}

function choice(option: Option, value: string, id: string, change: Change): HTMLElement {
  const select = h("select", { id, "data-option": option.name }, ...option.choices.map((one) => h("option", { value: one }, one)));
  select.value = value;
  select.onchange = () => change(option.name, select.value, false);
  return h("div", { class: "option" }, h("label", { for: id }, option.label), select);
}

function range(option: Option, value: number, id: string, change: Change): HTMLElement {
  const limits = { min: option.low, max: option.high };
  const step = option.step || (option.high - option.low) / 1000 || 1;
  const slider = h("input", { type: "range", ...limits, step, id: `${id}-slider`, "aria-label": option.label, "data-option": option.name });
  // The exact number takes any value between the ends, not the slider's steps alone.
  const whole = Number.isInteger(option.step) && option.step > 0 && Number.isInteger(option.low);
  const number = h("input", { type: "number", ...limits, step: whole ? option.step : "any", id, "data-exact": option.name });
  slider.value = String(value);
  number.value = short(value, 6);
  slider.oninput = () => {
    number.value = short(Number(slider.value), 6);
    change(option.name, Number(slider.value), true);
  };
  slider.onchange = () => change(option.name, Number(slider.value), false);
  number.onchange = () => {
    const wanted = Math.min(Math.max(Number(number.value), option.low), option.high);
    if (number.value === "" || Number.isNaN(wanted)) return;
    number.value = String(wanted);
    slider.value = String(wanted);
    change(option.name, wanted, false);
  };
  return h("div", { class: "option range" }, h("label", { for: id }, option.label), slider, number);
}
