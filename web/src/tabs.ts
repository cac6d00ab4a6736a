// Tabs: one panel shown at a time, chosen by arrows or a click.

import { h, show } from "./dom.js";

export interface Tab {
  label: string;
  panel: HTMLElement;
}

export interface Tabs {
  /** The row of tabs. */
  row: HTMLElement;
  panels: HTMLElement[];
  choose(index: number, focus?: boolean): void;
}

let rows = 0;

export function tabs(label: string, all: Tab[], chosen: (index: number) => void = () => {}): Tabs {
  const name = `tabs-${rows++}`;
  const buttons = all.map((tab, index) =>
    h("button", { type: "button", role: "tab", id: `${name}-${index}`, "aria-controls": `${name}-panel-${index}`, onclick: () => choose(index) }, tab.label),
  );
  const row = h("div", { role: "tablist", "aria-label": label }, ...buttons);
  const panels = all.map(({ panel }, index) => {
    panel.id = `${name}-panel-${index}`;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `${name}-${index}`);
    panel.tabIndex = 0;
    return panel;
  });
  function choose(index: number, focus = false): void {
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
      show(panels[at]!, at === index);
    });
    if (focus) buttons[index]!.focus();
    chosen(index);
  }
  row.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    choose((to + buttons.length) % buttons.length, true);
  });
  choose(0);
  return { row, panels, choose };
}
