// Dialogs: a question with its answers, in the browser's own modal element, which keeps the focus and gives it back.

import { h } from "./dom.js";
import type { Child } from "./dom.js";
import { icon } from "./dom.js";
import { CLOSE } from "./icons.js";

export interface Question {
  title: string;
  body: Child[];
  /** What the button does, in words: "Continue from step 800". None where there is nothing to do but close. */
  action?: string;
  /** The action takes something away: its button looks so. */
  grave?: boolean;
  wide?: boolean;
}

/** Show a dialog; true where its action was chosen. */
export function ask({ title, body, action, grave, wide }: Question): Promise<boolean> {
  const heading = h("h2", { id: "dialog-title" }, title);
  const cancel = h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, action ? "Cancel" : "Close");
  const act = action && h("button", { type: "submit", class: grave ? "grave" : "main" }, action);
  const form = h("form", { method: "dialog" }, h("div", { class: "dialog-body" }, ...body), h("footer", {}, cancel, act));
  const close = h("button", { type: "button", class: "bare", "aria-label": "Close", onclick: () => dialog.close() }, icon(CLOSE));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", class: wide ? "wide" : null }, h("header", {}, heading, close), form);
  return new Promise((resolve) => {
    let chosen = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      chosen = true;
      dialog.close();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(chosen);
    });
    document.body.append(dialog);
    dialog.showModal();
    (dialog.querySelector<HTMLElement>("[autofocus]") ?? (act || cancel)).focus();
  });
}
