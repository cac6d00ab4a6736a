// The run has failed: what went wrong, where, and the states it can go on from.

import { fill, h, show } from "./dom.js";
import { count, figure } from "./format.js";
import type { Page } from "./page.js";
import { keptStates, stateActions } from "./states.js";

export function failurePanel(page: Page): HTMLElement {
  const element = h("section", { class: "failure", "aria-label": "Failure" });
  const follow = (): void => {
    const [failed, state] = [page.store.get("failed"), page.store.get("state")];
    const shown = failed !== null && (state === null || state.stage === "failed");
    if (shown === !element.hidden && element.dataset["of"] === failed?.error) return;
    show(element, shown);
    if (!shown || !failed) return;
    element.dataset["of"] = failed.error;
    const last = keptStates(page).reverse().slice(0, 3);
    const copy = h("button", { type: "button", class: "small" }, "Copy the traceback");
    copy.addEventListener("click", () => void navigator.clipboard.writeText(failed.traceback).then(() => page.say("Copied")));
    const metrics = Object.entries(state?.metrics ?? {});
    fill(
      element,
      h("h2", {}, "The run has failed"),
      h("p", { class: "error" }, failed.error),
      h("pre", { tabindex: 0, "aria-label": "Traceback" }, failed.traceback),
      h("div", { class: "buttons" }, window.isSecureContext && copy),
      state && h("p", {}, `It had come to step ${count(state.step)}${metrics.length ? `: ${metrics.map(([name, value]) => `${name} ${figure(value)}`).join(", ")}` : ""}.`),
      last.length > 0 && h("h3", {}, "Go on from a kept state"),
      ...last.map((one) => h("p", { class: "again" }, h("span", {}, `step ${count(one.step)}`), ...stateActions(page, one, false))),
    );
  };
  element.hidden = true;
  page.store.on("failed", follow);
  page.store.on("state", follow);
  page.store.on("states", () => {
    delete element.dataset["of"];
    follow();
  });
  return element;
}
