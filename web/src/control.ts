// Control of the run: one page at a time has it, everybody sees who.

import { h, show, write } from "./dom.js";
import type { Page } from "./page.js";

/** Why this page may not change the run just now, for people; "" where it may. */
export function whyNot(page: Page): string {
  const [state, welcome, link] = [page.store.get("state"), page.store.get("welcome"), page.store.get("link")];
  if (!welcome || !state) return "Not connected yet.";
  if (welcome.role === "view") return "This address lets you look, not change anything.";
  // Who commands first where nobody has the control gets it; while cut off, what is asked waits and is sent again.
  if (link === "cut" || state.in_control || state.controller === "") return "";
  return `${state.controller} has the control: take over first.`;
}

/** Call `listener` whenever the answer of `whyNot` may have changed. */
export function onControl(page: Page, listener: () => void): void {
  page.store.on("state", listener);
  page.store.on("welcome", listener);
  page.store.on("link", listener);
}

/** Who holds the control, and the button that takes or gives it. */
export function controlSwitch(page: Page): HTMLElement {
  const who = h("span", { class: "holder" });
  const button = h("button", { type: "button", class: "small" });
  button.addEventListener("click", () => {
    void page.try({ type: page.store.get("state")?.in_control ? "release" : "takecontrol" });
  });
  const follow = (): void => {
    const [state, welcome] = [page.store.get("state"), page.store.get("welcome")];
    const trains = Boolean(state && welcome?.features.includes("train"));
    show(who, trains);
    show(button, trains && welcome?.role === "control");
    if (!state) return;
    const other = state.controller ? `${state.controller} controls` : "";
    if (welcome?.role === "view") write(who, ["view only", other].filter(Boolean).join(" \u00b7 "));
    else write(who, state.in_control ? "you control" : other || "nobody controls");
    write(button, state.in_control ? "Release" : state.controller ? "Take over" : "Take control");
  };
  onControl(page, follow);
  page.keys.add("Page", "c", "take the control, or give it back", () => !button.hidden && button.click());
  return h("span", { class: "control" }, who, button);
}
