// The head of the page: which run, what it is doing, how far it is, who holds its control.

import { controlSwitch } from "./control.js";
import { h, icon, show, write } from "./dom.js";
import { count, duration, rate } from "./format.js";
import { HELP, THEME_DARK, THEME_LIGHT, THEME_SYSTEM } from "./icons.js";
import type { Page } from "./page.js";
import type { State } from "./protocol.js";
import { standing } from "./stage.js";
import { nextTheme, theme } from "./theme.js";
import type { Theme } from "./theme.js";

const THEMES: Record<Theme, [string, string]> = {
  system: [THEME_SYSTEM, "colours as the system has them"],
  light: [THEME_LIGHT, "light colours"],
  dark: [THEME_DARK, "dark colours"],
};

export function header(page: Page, sections: HTMLElement, help: () => void): HTMLElement {
  const run = h("span", { class: "run-name" }, "connecting …");
  const sign = h("span", { class: "sign", "aria-hidden": "true" });
  const word = h("span", { class: "word" });
  const stage = h("span", { class: "stage" }, sign, word);
  const busy = h("span", { class: "busy" });
  const step = readout("step");
  const epoch = readout("epoch");
  const speed = readout("speed");
  const spent = readout("time");
  const drawing = readout("drawing");
  const readouts = h("div", { class: "readouts" }, step.element, epoch.element, speed.element, spent.element, drawing.element);
  const bar = h("progress", { class: "done", "aria-label": "How far the training is", max: 1, value: 0 });

  page.store.on("welcome", (welcome) => {
    if (!welcome) return;
    write(run, welcome.run || "Runs");
    show(stage, welcome.run !== "");
    show(readouts, welcome.run !== "");
  });
  page.store.on("state", (state) => {
    if (!state) return;
    const { word: text, tone, sign: mark } = standing(state.stage);
    stage.dataset["tone"] = tone;
    write(sign, mark);
    write(word, text);
    stage.title = state.reason;
    write(busy, state.busy && `${state.busy} under way`);
    // A tile is always under way while somebody looks: it matters to who waits for an answer.
    show(busy, Boolean(state.busy) && (state.busy !== "tile" || page.store.get("unanswered") > 0));
    step.tell(count(state.step), state.max_steps === null ? "" : count(state.max_steps));
    epoch.tell(epochs(state), state.max_epochs === null ? "" : count(state.max_epochs));
    speed.tell(rate(state.rate));
    spent.tell(duration(state.seconds), state.seconds_left === null ? "" : `${duration(state.seconds_left)} left`);
    drawing.tell(`${Math.round(state.drawing * 100)} %`);
    bar.value = share(state);
    show(bar, state.max_steps !== null || state.max_epochs !== null);
  });

  return h(
    "header",
    { class: "head" },
    h("div", { class: "name" }, h("span", { class: "mark", "aria-hidden": "true" }), h("h1", {}, run), stage, busy),
    readouts,
    h("div", { class: "head-end" }, controlSwitch(page), sections, themeSwitch(page), helpButton(help)),
    bar,
  );
}

interface Readout {
  element: HTMLElement;
  tell(value: string, of?: string): void;
}

function readout(label: string): Readout {
  const value = h("b");
  const of = h("i");
  return {
    element: h("span", { class: `readout ${label}` }, h("span", { class: "label" }, label), h("span", { class: "value" }, value, of)),
    tell(text, whole = "") {
      write(value, text);
      write(of, whole && (/\d$/.test(whole) ? ` / ${whole}` : ` · ${whole}`));
    },
  };
}

/** Finished epochs, with the part of the one under way. */
function epochs(state: State): string {
  return state.batches ? (state.epoch + Math.min(state.batch / state.batches, 0.999)).toFixed(2) : count(state.epoch);
}

function share(state: State): number {
  const part = state.batches ? state.batch / state.batches : 0;
  const bySteps = state.max_steps ? state.step / state.max_steps : 0;
  const byEpochs = state.max_epochs ? (state.epoch + part) / state.max_epochs : 0;
  return Math.min(1, Math.max(bySteps, byEpochs));
}

function themeSwitch(page: Page): HTMLElement {
  const button = h("button", { type: "button", class: "bare" });
  const tell = (): void => {
    const [path, words] = THEMES[theme()];
    button.replaceChildren(icon(path));
    button.title = words;
    button.setAttribute("aria-label", `Theme: ${words}`);
  };
  const change = (): void => {
    const [, words] = THEMES[nextTheme()];
    tell();
    page.say(words);
  };
  button.addEventListener("click", change);
  page.keys.add("Page", "t", "light, dark or as the system", change);
  tell();
  return button;
}

function helpButton(help: () => void): HTMLElement {
  return h("button", { type: "button", class: "bare", "aria-label": "Help: keys and words", title: "Keys and words (?)", onclick: help }, icon(HELP));
}
