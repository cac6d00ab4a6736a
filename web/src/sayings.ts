// Lines for people: shown for some seconds in a corner, and said aloud by readers of the screen.

import { h } from "./dom.js";

const SECONDS = { info: 4, warning: 12 };

export class Sayings {
  // Two regions, there from the beginning: what is added to one is read, a warning at once.
  private readonly info = h("div", { role: "status" });
  private readonly warnings = h("div", { role: "alert" });
  readonly element = h("div", { class: "sayings" }, this.warnings, this.info);

  say(text: string, level: "info" | "warning"): void {
    const region = level === "info" ? this.info : this.warnings;
    const line = h("p", { class: `saying ${level}` }, text);
    if (level === "warning") line.append(h("button", { type: "button", class: "small", onclick: () => line.remove() }, "Dismiss"));
    // One line says what is so now; of warnings, some that belong together may stand.
    while (region.childElementCount >= (level === "info" ? 1 : 3)) region.firstElementChild!.remove();
    region.append(line);
    window.setTimeout(() => line.remove(), 1000 * SECONDS[level]);
  }
}
