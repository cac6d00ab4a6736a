// The page's keys, in one table: what they do and what the help shows cannot differ.

export interface Key {
  /** As `KeyboardEvent.key` has it: " ", "s", "?". */
  key: string;
  /** What it does, for the help. */
  label: string;
  /** The help's heading it stands under. */
  group: string;
  run: (event: KeyboardEvent) => void;
}

const WRITING = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable]";
/** What the space bar and Enter press already. */
const PRESSED = "button, a[href], summary, input, [role=button], [role=tab], [role=option]";

export class Keys {
  readonly table: Key[] = [];

  constructor() {
    document.addEventListener("keydown", (event) => this.press(event));
  }

  /** Let a key do something, unless somebody writes text or a dialog is open. */
  add(group: string, key: string, label: string, run: Key["run"]): void {
    if (this.table.some((one) => one.key === key)) throw new Error(`two things are done by the key ${key}`);
    this.table.push({ key, label, group, run });
  }

  private press(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (target.closest(WRITING) || document.querySelector("dialog[open]")) return;
    if ((event.key === " " || event.key === "Enter") && target.closest(PRESSED)) return;
    const found = this.table.find((entry) => entry.key === event.key);
    if (!found) return;
    event.preventDefault();
    found.run(event);
  }
}
