// A branch: the run forked at a step into a child process, under settings that are changed here.

import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { count } from "./format.js";
import type { Page } from "./page.js";

export async function branch(page: Page, step: number): Promise<void> {
  const settings = h("textarea", { rows: 4, spellcheck: "false", placeholder: "learning_rate = 0.002\nloss.weight = 0.5", autofocus: true });
  const pause = h("input", { type: "checkbox" });
  pause.checked = true;
  const trouble = h("p", { class: "trouble", role: "alert" });
  const body = [
    h("p", {}, `A second process trains on from step ${count(step)} with the same trainer, data and recipe, under the settings changed here. It is shown beside this run.`),
    h("label", { class: "field" }, h("span", {}, "Settings, one on each line: name = value"), settings),
    h("label", { class: "tick" }, pause, h("span", {}, "Let this run wait meanwhile")),
    trouble,
  ];
  for (;;) {
    if (!(await ask({ title: `Branch from step ${count(step)}`, body, action: "Begin the branch" }))) return;
    const read = readSettings(settings.value);
    if (typeof read === "string") {
      trouble.textContent = read;
      continue;
    }
    const answer = await page.try({ type: "branch", step, settings: read, pause: pause.checked });
    if (answer !== undefined) page.say(`A branch from step ${count(step)} begins`);
    return;
  }
}

/** Settings from lines "name = value", values as in YAML's scalars; a line for people where one is not understood. */
export function readSettings(text: string): Record<string, unknown> | string {
  const settings: Record<string, unknown> = {};
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const found = /^\s*([\w.\-]+)\s*[=:]\s*(.+?)\s*$/.exec(line);
    if (!found) return `“${line.trim()}” is not understood: write name = value`;
    settings[found[1]!] = scalar(found[2]!);
  }
  return settings;
}

function scalar(text: string): unknown {
  if (/^(true|false|null)$/.test(text)) return JSON.parse(text);
  if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) return Number(text);
  return text.replace(/^(["'])(.*)\1$/, "$2");
}
