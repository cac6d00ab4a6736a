// What calls a person who is elsewhere: a badge in the title, a notification where it is allowed, a line for readers.

import { h } from "./dom.js";
import { count } from "./format.js";
import type { Page } from "./page.js";
import { standing } from "./stage.js";

const WANTED = "notifications";

/** Follow the run from the title and, where the page is hidden, by notifications. */
export function alerts(page: Page): void {
  let last = "";
  const title = (): void => {
    const [state, welcome, link] = [page.store.get("state"), page.store.get("welcome"), page.store.get("link")];
    const sign = link === "cut" ? "⚠" : state && welcome?.run ? standing(state.stage).sign : "";
    document.title = [sign, welcome?.run, "Treadle studio"].filter(Boolean).join(" · ").replace(" · ", " ");
  };
  page.store.on("link", title);
  page.store.on("welcome", title);
  page.store.on("state", (state) => {
    if (!state || !page.store.get("welcome")?.run) return;
    const { word } = standing(state.stage);
    // A run that pauses anew was running in between, if only for a moment that was not told.
    const line = state.stage === "running" ? word : state.reason ? `${word}: ${state.reason}` : `${word} at step ${count(state.step)}`;
    if (line === last) return;
    title();
    if (last) {
      page.say(`The training is ${line}`, state.stage === "failed" ? "warning" : "info");
      if (state.stage !== "running") notify(page, line);
    }
    last = line;
  });
  page.store.on("notice", (notice) => {
    if (!notice) return;
    page.say(notice.text, notice.level);
    notify(page, notice.text);
  });
}

/** Let a person allow notifications; only a press of a button may ask the browser. */
export function notificationSwitch(page: Page): HTMLElement {
  const box = h("input", { type: "checkbox" });
  const label = h("label", { class: "tick" }, box, h("span", {}, "Notify me when the run pauses, ends or reaches a breakpoint while this page is hidden"));
  if (!("Notification" in window)) label.hidden = true;
  box.checked = wanted();
  box.addEventListener("change", async () => {
    const allowed = box.checked && (await Notification.requestPermission()) === "granted";
    if (box.checked && !allowed) page.say("The browser does not allow notifications from this page", "warning");
    box.checked = allowed;
    localStorage.setItem(WANTED, String(allowed));
  });
  return label;
}

function wanted(): boolean {
  return "Notification" in window && Notification.permission === "granted" && localStorage.getItem(WANTED) === "true";
}

function notify(page: Page, body: string): void {
  if (!document.hidden || !wanted()) return;
  const notification = new Notification(page.store.get("welcome")?.run ?? "Treadle", { body, tag: "treadle" });
  notification.onclick = () => window.focus();
}
