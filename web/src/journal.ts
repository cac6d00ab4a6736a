// The run's journal, newest first: what happened, and what a person changed, with step and time.

import { h, show, write } from "./dom.js";
import { clock, count, exact } from "./format.js";
import type { Page } from "./page.js";
import type { Journal } from "./protocol.js";

type Entry = Journal["entry"];
/** More than anybody scrolls through; the file has all of them. */
const SHOWN = 500;
const KNOWN = new Set(["event", "step", "epoch", "time", "settings"]);

export function journalPanel(page: Page): HTMLElement {
  const filter = h("input", { type: "search", placeholder: "filter", "aria-label": "Filter the journal" });
  const list = h("ol", { class: "journal", reversed: true });
  const none = h("p", { class: "hint" }, "Nothing yet.");
  const rest = h("p", { class: "hint" });
  const items = new WeakMap<Entry, HTMLElement>();
  const draw = (): void => {
    const wanted = filter.value.toLowerCase();
    const all = page.store.get("journal").filter((entry) => !wanted || journalLine(entry).toLowerCase().includes(wanted));
    const shown = all.slice(-SHOWN).reverse();
    list.replaceChildren(
      ...shown.map((entry) => {
        let item = items.get(entry);
        if (!item) items.set(entry, (item = journalItem(entry)));
        return item;
      }),
    );
    show(none, all.length === 0);
    write(rest, all.length > SHOWN ? `${count(all.length - SHOWN)} older ones are in journal.jsonl` : "");
  };
  filter.addEventListener("input", draw);
  page.store.on("journal", draw);
  return h("div", { class: "journal-panel" }, filter, list, none, rest);
}

/** One entry as an item of a list. */
export function journalItem(entry: Entry): HTMLElement {
  const time = typeof entry["time"] === "number" ? clock(entry["time"]) : "";
  return h(
    "li",
    { "data-event": String(entry["event"]) },
    h("span", { class: "step" }, count(Number(entry["step"] ?? 0))),
    h("span", { class: "event" }, String(entry["event"])),
    h("span", { class: "details" }, journalDetails(entry)),
    h("time", {}, time),
  );
}

/** What an entry says beyond its event and step, on one line. */
export function journalDetails(entry: Entry): string {
  if (Array.isArray(entry["changes"])) return (entry["changes"] as Entry[]).map(journalDetails).join("; ");
  if ("before" in entry && "after" in entry) {
    const what = [entry["what"], entry["optimizer"] ?? entry["term"] ?? entry["target"], entry["client"] && `by ${entry["client"]}`];
    return `${what.filter(Boolean).join(" ")}: ${exact(entry["before"])} → ${exact(entry["after"])}`;
  }
  return Object.entries(entry)
    .filter(([name, value]) => !KNOWN.has(name) && value !== "" && value !== null)
    .map(([name, value]) => `${name.replace(/_/g, " ")} ${name === "digest" ? String(value).slice(0, 12) : exact(value)}`)
    .join(", ");
}

function journalLine(entry: Entry): string {
  return `${entry["event"]} ${entry["step"]} ${journalDetails(entry)}`;
}
