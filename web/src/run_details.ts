// One run, opened: config, environment, journal, report, notes, pictures.

import type { Packet } from "./connection.js";
import { lookBeside } from "./beside.js";
import { ask } from "./dialog.js";
import { h, show } from "./dom.js";
import { exact } from "./format.js";
import { journalItem } from "./journal.js";
import type { Page } from "./page.js";
import type { Picture } from "./protocol.js";
import { tabs } from "./tabs.js";

type Details = Record<string, unknown>;

export async function showDetails(page: Page, run: string): Promise<void> {
  const details = await page.try<Details>({ type: "details", run });
  if (!details) return;
  const pictures = names(details["pictures"]);
  const album = h("div", { class: "album" });
  const urls: string[] = [];
  const panels = [
    { label: "Config", panel: text(details["config"]) },
    { label: "Report", panel: text(details["report"]) },
    { label: "Journal", panel: h("div", {}, h("ol", { class: "journal" }, ...entries(details["journal"]).reverse().map(journalItem))) },
    { label: "Notes", panel: h("div", {}, h("ol", { class: "journal" }, ...entries(details["notes"]).map(journalItem))) },
    { label: `Pictures (${pictures.length})`, panel: album },
    { label: "Environment", panel: text(details["environment"]) },
  ].filter(({ label, panel }) => label.startsWith("Config") || panel.textContent || (panel === album && pictures.length));
  let loaded = false;
  const shown = tabs(`Details of ${run}`, panels, (index) => {
    if (panels[index]!.panel !== album || loaded) return;
    loaded = true;
    for (const name of pictures.slice(0, 60)) void picture(page, run, name, album, urls);
  });
  const beside = h("button", { type: "button", class: "small" }, "Show beside this run");
  beside.addEventListener("click", () => {
    beside.closest("dialog")?.close();
    void lookBeside(page, run);
  });
  const open = h("button", { type: "button", class: "small main" }, "Open");
  open.addEventListener("click", () => {
    beside.closest("dialog")?.close();
    void page.try({ type: "open", run });
  });
  const welcome = page.store.get("welcome");
  const opens = Boolean(welcome?.features.includes("open"));
  show(open, opens && run !== welcome?.run);
  show(beside, Boolean(welcome?.features.includes("beside")) && run !== welcome?.run);
  await ask({ title: run, body: [h("div", { class: "details-head" }, shown.row, h("span", { class: "buttons" }, beside, open)), ...shown.panels], wide: true });
  for (const url of urls) URL.revokeObjectURL(url);
}

async function picture(page: Page, run: string, name: string, album: HTMLElement, urls: string[]): Promise<void> {
  const image = h("img", { alt: name, loading: "lazy" });
  const figure = h("figure", {}, image, h("figcaption", {}, name));
  album.append(figure);
  try {
    const { header, bytes }: Packet<Picture> = await page.connection.series({ type: "pictureof", run, picture: name });
    image.src = URL.createObjectURL(new Blob([bytes], { type: `image/${header.format}` }));
    urls.push(image.src);
  } catch (error) {
    figure.append(h("p", { class: "trouble" }, error instanceof Error ? error.message : String(error)));
  }
}

/** A text as it is; settings by name, a line each. */
function text(value: unknown): HTMLElement {
  if (value === null || value === undefined || value === "") return h("div");
  if (typeof value === "string") return h("pre", {}, value);
  const rows = Object.entries(value as Details).map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, exact(one))));
  return h("div", {}, h("table", {}, h("tbody", {}, ...rows)));
}

function entries(value: unknown): Details[] {
  return Array.isArray(value) ? value.map((one) => (typeof one === "string" ? { event: one } : (one as Details))) : [];
}

function names(value: unknown): string[] {
  return Array.isArray(value) ? value.map((one) => (typeof one === "string" ? one : String((one as Details)["name"]))) : [];
}
