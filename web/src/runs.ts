// The runs there are: a table with filter and sort, what differs between some of them, and their family tree.

import { fill, h, show, write } from "./dom.js";
import { clock, count, duration, exact, figure } from "./format.js";
import type { Page } from "./page.js";
import { showDetails } from "./run_details.js";
import { standing } from "./stage.js";

export interface RunRow {
  name: string;
  recipe?: string;
  status?: string;
  step?: number | null;
  started?: number | null;
  seconds?: number | null;
  parent?: string | null;
  metrics?: Record<string, number | null>;
  /** Of what was best: {"loss": 0.02, ...} as its monitor, value and step. */
  best?: { monitor?: string; value?: number | null; step?: number } | null;
}

const FIXED: [string, string][] = [
  ["name", "Run"],
  ["recipe", "Recipe"],
  ["status", "Status"],
  ["step", "Step"],
  ["started", "Started"],
  ["seconds", "Time"],
  ["best", "Best"],
];
/** Columns of metrics beside the fixed ones: more are in a run's details. */
const METRICS = 6;

export function runsPage(page: Page): { element: HTMLElement; refresh: () => Promise<void> } {
  const where = h("input", { type: "search", class: "where", placeholder: "psnr > 30 and recipe = image", "aria-label": "Filter runs", spellcheck: "false" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const compare = h("button", { type: "button", disabled: true, onclick: () => void difference() }, "What differs");
  const tree = h("button", { type: "button", "aria-pressed": "false" }, "Family tree");
  const again = h("button", { type: "button", class: "quiet", onclick: () => void refresh() }, "Refresh");
  const [head, body] = [h("thead"), h("tbody")];
  const found = h("p", { class: "hint", role: "status" });
  const differs = h("div", { class: "differs" });
  const chosen = new Set<string>();
  let [sort, down, family] = ["started", true, false];
  let runs: RunRow[] = [];

  async function refresh(): Promise<void> {
    try {
      runs = (await page.connection.ask<RunRow[] | null>({ type: "runs", where: where.value, sort, down })) ?? [];
      write(trouble, "");
    } catch (error) {
      write(trouble, error instanceof Error ? error.message : String(error));
    }
    draw();
  }
  async function difference(): Promise<void> {
    const names = [...chosen];
    const rows = await page.try<Differing[] | null>({ type: "difference", runs: names });
    if (rows) fill(differs, ...differenceTable(names, rows));
    differs.scrollIntoView({ block: "nearest" });
  }
  function draw(): void {
    const metrics = [...new Set(runs.flatMap((run) => Object.keys(run.metrics ?? {})))].slice(0, METRICS);
    const heads = [...FIXED, ...metrics.map((name) => [name, name] as [string, string])].map(([key, label]) => {
      const button = h("button", { type: "button", class: "sort" }, label, h("span", { "aria-hidden": "true" }, key === sort ? (down ? " ↓" : " ↑") : ""));
      button.addEventListener("click", () => {
        [sort, down] = [key, key === sort ? !down : true];
        void refresh();
      });
      return h("th", { scope: "col", class: FIXED.slice(0, 3).some(([name]) => name === key) ? null : "number", "aria-sort": key === sort ? (down ? "descending" : "ascending") : "none" }, button);
    });
    fill(head, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "unseen" }, "Choose")), ...heads));
    const ordered = family ? asTree(runs) : runs.map((run) => ({ run, depth: 0 }));
    fill(body, ...ordered.map(({ run, depth }) => row(run, depth, metrics)));
    write(found, runs.length === 0 ? "No runs." : runs.length === 1 ? "One run." : `${count(runs.length)} runs.`);
    for (const name of chosen) if (!runs.some((run) => run.name === name)) chosen.delete(name);
    compare.disabled = chosen.size < 2;
  }
  function row(run: RunRow, depth: number, metrics: string[]): HTMLElement {
    const box = h("input", { type: "checkbox", "aria-label": `Choose ${run.name}` });
    box.checked = chosen.has(run.name);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(run.name);
      else chosen.delete(run.name);
      compare.disabled = chosen.size < 2;
    });
    const name = h("button", { type: "button", class: "link", onclick: () => void showDetails(page, run.name) }, run.name);
    const { word, tone, sign } = standing(run.status ?? "");
    const own = run.name === page.store.get("welcome")?.run;
    const branchOf = depth ? h("span", { class: "twig", "aria-label": `fork of ${run.parent}` }, "└ ") : null;
    branchOf?.style.setProperty("margin-left", `${(depth - 1) * 1.25}rem`);
    return h(
      "tr",
      { class: own ? "own" : null },
      h("td", {}, box),
      h("th", { scope: "row" }, branchOf, name, own && h("span", { class: "tag" }, "this one")),
      h("td", {}, run.recipe ?? ""),
      h("td", {}, h("span", { class: "stage", "data-tone": tone }, h("span", { class: "sign", "aria-hidden": "true" }, sign), word)),
      h("td", { class: "number" }, run.step === null || run.step === undefined ? "" : count(run.step)),
      h("td", { class: "number" }, run.started ? clock(run.started) : ""),
      h("td", { class: "number" }, run.seconds ? duration(run.seconds) : ""),
      h("td", { class: "number", title: run.best?.step === undefined ? null : `at step ${count(run.best.step)}` }, run.best?.value === undefined ? "" : `${figure(run.best.value)} ${run.best.monitor ?? ""}`),
      ...metrics.map((metric) => h("td", { class: "number" }, run.metrics && metric in run.metrics ? figure(run.metrics[metric]) : "")),
    );
  }

  tree.addEventListener("click", () => {
    family = !family;
    tree.setAttribute("aria-pressed", String(family));
    draw();
  });
  const form = h("form", { class: "toolbar", role: "search" }, where, h("button", { type: "submit" }, "Filter"), tree, compare, again);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void refresh();
  });
  const table = h("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": "Table of runs" }, h("table", { class: "runs" }, head, body));
  return { element: h("section", { class: "runs-page", "aria-label": "Runs" }, form, trouble, table, found, differs), refresh };
}

interface Differing {
  key: string;
  values: Record<string, unknown>;
}

function differenceTable(names: string[], rows: Differing[]): HTMLElement[] {
  const head = h("tr", {}, h("th", { scope: "col" }, "Setting"), ...names.map((name) => h("th", { scope: "col" }, name)));
  const lines = rows.map(({ key, values }) => h("tr", {}, h("th", { scope: "row" }, key), ...names.map((name) => h("td", {}, name in values ? exact(values[name]) : "–"))));
  const none = h("p", { class: "hint" }, "Their settings are the same.");
  show(none, rows.length === 0);
  const table = h("div", { class: "scrolls", tabindex: 0, role: "region", "aria-label": "What differs" }, h("table", {}, h("thead", {}, head), h("tbody", {}, ...lines)));
  show(table, rows.length > 0);
  return [h("h2", {}, "What differs"), table, none];
}

/** Runs with their forks below them, in the order that they have; a fork whose parent is not there is a root. */
export function asTree(runs: RunRow[]): { run: RunRow; depth: number }[] {
  const names = new Set(runs.map((run) => run.name));
  const children = new Map<string | null, RunRow[]>();
  for (const run of runs) {
    const parent = run.parent && run.parent !== run.name && names.has(run.parent) ? run.parent : null;
    children.set(parent, [...(children.get(parent) ?? []), run]);
  }
  const walk = (parent: string | null, depth: number): { run: RunRow; depth: number }[] =>
    (children.get(parent) ?? []).flatMap((run) => [{ run, depth }, ...walk(run.name, depth + 1)]);
  return walk(null, 0);
}
