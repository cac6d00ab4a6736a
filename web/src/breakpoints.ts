// Breakpoints: conditions that are watched for until they are removed; the run pauses there, or is only marked.

import { onControl, whyNot } from "./control.js";
import { fill, h, show } from "./dom.js";
import { count } from "./format.js";
import type { Page } from "./page.js";
import { conditionFields } from "./until.js";
import { notificationSwitch } from "./alerts.js";

export function breakpointsPanel(page: Page): HTMLElement {
  const condition = conditionFields(page, "Breakpoint");
  const act = h("select", { "aria-label": "What the breakpoint does" }, h("option", { value: "pause" }, "pause"), h("option", { value: "mark" }, "mark only"));
  const add = h("button", { type: "submit", class: "main" }, "Add");
  const form = h("form", { class: "new-break" }, h("span", { class: "label" }, "When"), condition.element, h("span", { class: "label" }, "then"), act, add);
  form.noValidate = true;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const until = condition.read();
    if (until) void page.try({ type: "break", until, act: act.value as "pause" | "mark" }).then((answer) => answer !== undefined && page.say(`Breakpoint added: ${until}`));
  });
  const list = h("ul", { class: "breaks" });
  const none = h("p", { class: "hint" }, "No breakpoints. One stays until it is removed: each time that it is reached, the run pauses or the journal is marked.");
  page.store.on("states", (states) => {
    const all = states?.breakpoints ?? [];
    show(none, all.length === 0);
    fill(list, ...all.map((one) => item(page, one)));
  });
  onControl(page, () => {
    add.disabled = Boolean(whyNot(page));
  });
  return h("div", { class: "breakpoints" }, form, list, none, notificationSwitch(page));
}

function item(page: Page, one: Record<string, unknown>): HTMLElement {
  const until = String(one["until"]);
  const hits = Number(one["hits"] ?? 0);
  const remove = h("button", { type: "button", class: "small", "aria-label": `Remove the breakpoint ${until}` }, "Remove");
  remove.addEventListener("click", () => void page.try({ type: "unbreak", number: Number(one["number"]) }));
  return h(
    "li",
    {},
    h("code", {}, until),
    h("span", { class: "what" }, one["act"] === "mark" ? "mark only" : "pause"),
    h("span", { class: "hits" }, hits ? (hits === 1 ? "reached once" : `reached ${count(hits)} times`) : "not reached yet"),
    remove,
  );
}
