// The help: every key, from the table that obeys them, and the words of the page.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import type { Page } from "./page.js";

const WORDS: [string, string][] = [
  ["looking back", "shows a kept state beside the run. It changes nothing: not a weight, not a random number."],
  ["continue from", "takes the run itself back to a kept state. What came later is given up, or kept as a fork."],
  ["branch", "a second process that goes on from a kept state under other settings, beside this run."],
  ["edit", "a value changed while the run goes on: journalled, undoable, and made again when the run is verified."],
  ["control", "one page at a time may change the run; the others see who."],
];

export function showHelp(page: Page): void {
  const groups = new Map<string, HTMLElement[]>();
  for (const { group, key, label } of page.keys.table) {
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group)!.push(h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key === " " ? "Space" : key)), h("td", {}, label)));
  }
  const tables = [...groups].map(([group, rows]) => h("table", { class: "keys" }, h("caption", {}, group), h("tbody", {}, ...rows)));
  const words = h("dl", { class: "words" }, ...WORDS.flatMap(([word, text]) => [h("dt", {}, word), h("dd", {}, text)]));
  const licences = h("p", { class: "hint" }, h("a", { href: "licences.txt", target: "_blank", rel: "noopener" }, "Licences of what this page is made with"));
  void ask({ title: "Keys and words", body: [h("div", { class: "help" }, ...tables), h("p", { class: "hint" }, "Tab and Shift-Tab reach everything; arrows move within tabs and the timeline."), words, licences], wide: true });
}
