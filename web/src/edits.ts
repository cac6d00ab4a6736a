// What can be edited while the run goes on: values are proposed, shown before and after, applied together, undone.

import { onControl, whyNot } from "./control.js";
import { fill, h, show, write } from "./dom.js";
import { clock, count, exact } from "./format.js";
import { journalDetails } from "./journal.js";
import type { Page } from "./page.js";
import type { Change } from "./protocol.js";

type Value = number | boolean | string | null;

/** What can be edited, as `treadle.engine.edits.Edits.editable` lists it. */
interface Editable {
  what: Change["what"];
  target: string;
  label: string;
  value: Value;
  kind: "number" | "text" | "switch" | "choice";
  choices?: string[];
  low: number | null;
  high: number | null;
  unit: string;
  /** What it was planned to be, where it is not so any more. */
  before?: Value;
  /** Why it cannot be edited now, as of a run that is only looked at. */
  refused?: string;
}

type Difference = Record<"what" | "target", string> & Record<"before" | "after", unknown>;
type Field = HTMLInputElement | HTMLSelectElement;

const HEADINGS: Record<Change["what"], string> = {
  lr_multiplier: "Learning rates, times",
  loss_weight: "Loss weights",
  setting: "Settings",
  limit: "Limits",
  frozen: "Frozen",
};
/** A group of more than so many is folded away. */
const MANY = 6;
const PAST = 20;

export function editsPanel(page: Page): HTMLElement {
  const fields = h("div", { class: "editables" });
  const list = h("table", { class: "proposal" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const apply = h("button", { type: "button", class: "main", onclick: () => void make() }, "Apply");
  const discard = h("button", { type: "button", class: "quiet", onclick: () => reset() }, "Discard");
  const proposal = h("div", { class: "proposed", role: "group", "aria-label": "Proposed changes" }, h("h3", {}, "Proposed"), list, trouble, h("div", { class: "buttons" }, discard, apply));
  const none = h("p", { class: "hint" }, "This run has nothing that can be edited while it goes on.");
  const barred = h("p", { class: "hint" });
  const inputs = new Map<string, Field>();
  let known: Editable[] = [];
  let asked = 0;

  const key = (one: { what: string; target: string }): string => `${one.what} ${one.target}`;
  const label = (one: { what: string; target: string }): string => known.find((other) => key(other) === key(one))?.label ?? one.target;
  const changes = (): Change[] =>
    known.flatMap((one) => {
      const value = read(inputs.get(key(one))!, one.kind);
      return value === one.value ? [] : [{ what: one.what, target: one.target, value } as Change];
    });

  /** Ask what the values in the fields would do; the answer of an older question is dropped. */
  async function propose(): Promise<void> {
    const number = ++asked;
    const wanted = changes();
    const wrong = [...inputs.values()].find((input) => !input.checkValidity());
    show(proposal, wanted.length > 0 || wrong !== undefined);
    apply.disabled = true;
    write(trouble, wrong ? `${wrong.dataset["label"]}: ${wrong.validationMessage}` : "");
    if (wrong || wanted.length === 0) {
      fill(list);
      return;
    }
    try {
      const answer = (await page.connection.ask<Difference[]>({ type: "propose", changes: wanted })) ?? [];
      if (number !== asked) return;
      fill(list, ...answer.map((one) => h("tr", {}, h("th", { scope: "row" }, label(one)), h("td", {}, exact(one.before)), h("td", { class: "to" }, h("span", { "aria-hidden": "true" }, "→"), h("span", { class: "unseen" }, "becomes")), h("td", { class: "after" }, exact(one.after)))));
      apply.disabled = Boolean(whyNot(page));
    } catch (error) {
      if (number !== asked) return;
      fill(list);
      write(trouble, error instanceof Error ? error.message : String(error));
    }
  }
  async function make(): Promise<void> {
    const wanted = changes();
    apply.disabled = true;
    if ((await page.try({ type: "apply", changes: wanted })) !== undefined) page.say(wanted.length === 1 ? "One change made" : `${wanted.length} changes made`);
    else apply.disabled = false;
  }
  function reset(): void {
    for (const one of known) set(inputs.get(key(one))!, one.value);
    void propose();
  }

  /** Follow what is in force; values that a person is changing stay as they are typed. */
  function follow(editable: Editable[]): void {
    const alike = known.length === editable.length && known.every((one, index) => key(one) === key(editable[index]!));
    if (!alike) {
      inputs.clear();
      fill(fields, ...groups(editable));
    }
    for (const [index, one] of editable.entries()) {
      const input = inputs.get(key(one))!;
      if (!alike || known[index]!.value !== one.value) set(input, one.value);
      const planned = input.closest("label")!.querySelector<HTMLElement>(".planned")!;
      show(planned, "before" in one);
      write(planned, `planned: ${exact(one.before)}`);
    }
    known = editable;
    const reasons = [...new Set(editable.flatMap((one) => one.refused ?? []))];
    write(barred, reasons.length ? `Not to be edited: ${reasons.join("; ")}.` : "");
    show(barred, reasons.length > 0);
    allow();
    show(none, known.length === 0);
    void propose();
  }
  function groups(editable: Editable[]): HTMLElement[] {
    return (Object.keys(HEADINGS) as Change["what"][]).flatMap((what): HTMLElement[] => {
      const members = editable.filter((one) => one.what === what).map(field);
      if (!members.length) return [];
      if (members.length <= MANY) return [h("fieldset", {}, h("legend", {}, HEADINGS[what]), ...members)];
      return [h("details", {}, h("summary", {}, `${HEADINGS[what]} (${members.length})`), h("fieldset", { "aria-label": HEADINGS[what] }, ...members))];
    });
  }
  function field(one: Editable): HTMLElement {
    const input = element(one);
    input.dataset["label"] = one.label;
    input.addEventListener("input", () => void propose());
    input.addEventListener("keydown", (event) => {
      if ((event as KeyboardEvent).key === "Enter" && !apply.disabled) void make();
    });
    inputs.set(key(one), input);
    const range = one.low !== null && one.high !== null ? `${exact(one.low)} to ${exact(one.high)}` : "";
    return h("label", { class: one.kind === "switch" ? "editable on-off" : "editable", title: range || null }, h("span", { class: "what" }, one.what === "frozen" ? one.target : one.label, h("small", { class: "planned" })), input, h("span", { class: "unit" }, one.unit));
  }

  page.store.on("welcome", (welcome) => welcome && !page.store.get("inForce") && follow(welcome.editable as unknown as Editable[]));
  page.store.on("inForce", (inForce) => inForce && follow(inForce.editable as unknown as Editable[]));
  function allow(): void {
    const why = whyNot(page);
    for (const one of known) {
      const input = inputs.get(key(one))!;
      input.disabled = Boolean(why || one.refused);
      input.title = why || (one.refused ?? "");
    }
    fields.title = why;
  }
  onControl(page, allow);
  return h("div", { class: "edits" }, proposal, barred, fields, none, past(page));
}

/** The edits so far, from the journal, and taking back the last one. */
function past(page: Page): HTMLElement {
  const history = h("ol", { class: "history" });
  const undo = h("button", { type: "button", class: "small" }, "Undo the last edit");
  undo.addEventListener("click", () => void page.try({ type: "undo" }).then((answer) => answer !== undefined && page.say("The last edit is taken back")));
  const element = h("div", { class: "past" }, h("h3", {}, "Edits so far"), history, undo);
  let shown = -1;
  page.store.on("journal", (journal) => {
    const edits = journal.filter((entry) => entry["event"] === "edit");
    show(element, edits.length > 0);
    if (edits.length === shown) return;
    shown = edits.length;
    fill(
      history,
      ...edits.slice(-PAST).reverse().map((edit) => {
        const said = [`step ${count(Number(edit["step"]))}`, edit["client"], typeof edit["time"] === "number" && clock(edit["time"])];
        return h("li", {}, h("div", {}, journalDetails({ ...edit, client: "" })), h("small", {}, said.filter(Boolean).join(" · ")));
      }),
    );
  });
  const follow = (): void => {
    show(undo, (page.store.get("inForce")?.edits.length ?? 0) > 0);
    undo.disabled = Boolean(whyNot(page));
  };
  page.store.on("inForce", follow);
  onControl(page, follow);
  return element;
}

function element(one: Editable): Field {
  if (one.kind === "choice") return h("select", {}, ...(one.choices ?? []).map((choice) => h("option", { value: choice }, choice)));
  if (one.kind === "switch") return h("input", { type: "checkbox" });
  if (one.kind === "text") return h("input", { type: "text", maxlength: 200, spellcheck: "false", placeholder: exact(null) });
  return h("input", { type: "number", step: "any", min: one.low, max: one.high, placeholder: exact(null) });
}

function read(field: Field, kind: Editable["kind"]): Value {
  if (field instanceof HTMLInputElement && kind === "switch") return field.checked;
  if (field.value === "") return null;
  return kind === "number" ? Number(field.value) : field.value;
}

function set(field: Field, value: Value): void {
  if (field instanceof HTMLInputElement && field.type === "checkbox") field.checked = Boolean(value);
  else field.value = value === null ? "" : String(value);
}
