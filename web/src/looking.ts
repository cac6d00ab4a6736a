// The strips above the page: cut off, looking back, failed. Each says what is so and what can be done.

import { fill, h, show } from "./dom.js";
import { count } from "./format.js";
import type { Page } from "./page.js";
import { keptStates, look, onStates, stateActions } from "./states.js";

/** Cut off from the studio, or sent away. */
export function linkStrip(page: Page): HTMLElement {
  const element = h("div", { class: "strip cut", role: "alert" });
  const follow = (): void => {
    const [link, reason, waiting] = [page.store.get("link"), page.store.get("linkReason"), page.store.get("unanswered")];
    show(element, link === "cut" || link === "refused");
    const asked = waiting ? ` ${waiting === 1 ? "One request waits" : `${waiting} requests wait`} and will be sent again; nothing is obeyed twice.` : "";
    if (link === "cut") {
      fill(element, h("strong", {}, "Cut off from the studio."), ` What you see is what it said last.${asked} Trying again …`, h("button", { type: "button", class: "small", onclick: () => page.connection.retry() }, "Try now"));
    } else if (link === "refused") {
      fill(element, h("strong", {}, "The studio has refused this page."), ` ${reason || "Open the address that it printed, with its token."}`);
    }
  };
  page.store.on("link", follow);
  page.store.on("linkReason", follow);
  page.store.on("unanswered", follow);
  return element;
}

/** A kept state is looked at instead of the live one. */
export function lookingStrip(page: Page): HTMLElement {
  const element = h("div", { class: "strip looking", role: "region", "aria-label": "Looking back" });
  onStates(page, () => {
    const step = page.store.get("looking");
    const kept = keptStates(page).find((one) => one.step === step);
    show(element, step !== null);
    if (step === null) return;
    const back = h("button", { type: "button", class: "small main", onclick: () => look(page, null) }, "Back to live");
    fill(element, h("strong", {}, `Looking at step ${count(step)}, read only.`), h("span", { class: "grow" }, "The training is where it was."), ...(kept ? stateActions(page, kept, true) : []), back);
  });
  return element;
}
