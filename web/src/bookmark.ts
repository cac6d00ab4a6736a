// A bookmark: the state of a step is kept for good, and the journal has the note.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import type { Page } from "./page.js";

export async function bookmark(page: Page, step: number): Promise<void> {
  const text = h("textarea", { rows: 3, maxlength: 2000, autofocus: true });
  const body = [
    h("label", { class: "field" }, h("span", {}, "Note"), text),
    h("p", { class: "hint" }, "The journal has the note; where the state of this step is kept on disk, it stays for good."),
  ];
  if (!(await ask({ title: `Bookmark step ${count(step)}`, body, action: "Bookmark" }))) return;
  const answer = await page.try({ type: "note", step, text: text.value });
  if (answer !== undefined) page.say(`Step ${count(step)} bookmarked`);
}
