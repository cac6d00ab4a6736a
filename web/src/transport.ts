// Play, pause, steps, run until, save, validate, stop. Buttons ask; what they look like is what is in force.

import type { Ask } from "./connection.js";
import { onControl, whyNot } from "./control.js";
import { ask } from "./dialog.js";
import { h, icon, show, write } from "./dom.js";
import { EPOCH, FLAG, MORE, PAUSE, PLAY, SAVE, STEP, STOP, CHECK } from "./icons.js";
import type { Page } from "./page.js";
import { bookmark } from "./bookmark.js";
import { hasEnded, isRunning } from "./stage.js";
import { conditionFields } from "./until.js";

const GROUP = "Training";
/** How a run that has ended goes on. */
const HINTS: Record<string, string> = {
  finished: "To go on: raise a limit under Edits, or continue from a state.",
  failed: "To go on: continue from a state.",
};

export function transportPanel(page: Page): HTMLElement {
  const play = button("play", "Play", PLAY, true);
  const pause = button("pause", "Pause", PAUSE, true);
  const step = button("step", "Step", STEP, true, "One step, then pause (s)");
  const epoch = button("epoch", "Epoch", EPOCH, false, "To the end of the epoch, then pause (e)");
  const often = h("input", { type: "number", min: 1, max: 1e9, step: 1, value: 100, class: "short", "aria-label": "How many steps" });
  const several = h("button", { type: "submit" }, "Steps");
  const condition = conditionFields(page, "Run until");
  const until = h("button", { type: "submit" }, "Run until");
  const save = button("save", "Save", SAVE, false, "Write a checkpoint (w)");
  const validate = button("validate", "Validate", CHECK, false, "Evaluate the validation data now (v)");
  const note = button("bookmark", "Bookmark", FLAG, false, "Keep this step with a note (b)");
  const stop = button("stop", "Stop", STOP, true, "End the training here; it can be resumed");
  const more = h("button", { type: "button", class: "more", "aria-expanded": "false" }, icon(MORE), "More");
  const all = [play, pause, step, epoch, several, until, save, validate, note, stop];
  const asked = h("span", { class: "asked" });
  const hint = h("span", { class: "next" });

  /** What the run goes on to, or that something was asked and is not answered yet. */
  const goals: string[] = [];
  const tell = (): void => write(asked, goals.at(-1) ?? (page.store.get("unanswered") ? "asked …" : ""));
  /** What becomes of the run is said by what it tells; `done` is for what it does not. */
  async function send(request: Ask, done: string, from: HTMLElement, goal = ""): Promise<void> {
    from.setAttribute("aria-busy", "true");
    if (goal) goals.push(goal);
    tell();
    const answer = await page.try(request);
    from.removeAttribute("aria-busy");
    if (goal) goals.splice(goals.indexOf(goal), 1);
    tell();
    if (answer !== undefined && done) page.say(done);
  }
  const go = {
    play: () => send({ type: "play" }, "", play),
    pause: () => send({ type: "pause" }, "", pause),
    toggle: () => (isRunning(page.store.get("state")) ? go.pause() : go.play()),
    step: () => send({ type: "advance", steps: 1 }, "", step),
    epoch: () => send({ type: "advance", unit: "epochs" }, "", epoch, "to the epoch’s end …"),
    save: () => send({ type: "save" }, "Checkpoint written", save),
    validate: () => send({ type: "validate" }, "Validated", validate),
    note: () => bookmark(page, page.store.get("state")?.step ?? 0),
    stop: async () => {
      const ended = hasEnded(page.store.get("state"));
      const what = ended
        ? { title: "Close the studio?", action: "Close the studio", text: "The run stays on disk: treadle studio shows it again." }
        : { title: "Stop the training?", action: "Stop", text: "It ends after the step under way, as with Ctrl-C, and can be resumed." };
      if (await ask({ title: what.title, body: [h("p", {}, what.text)], action: what.action, grave: true })) await send({ type: "stop" }, "", stop);
    },
  };
  play.addEventListener("click", go.play);
  pause.addEventListener("click", go.pause);
  step.addEventListener("click", go.step);
  epoch.addEventListener("click", go.epoch);
  save.addEventListener("click", go.save);
  validate.addEventListener("click", go.validate);
  note.addEventListener("click", go.note);
  stop.addEventListener("click", () => void go.stop());
  page.keys.add(GROUP, " ", "play or pause", go.toggle);
  page.keys.add(GROUP, "s", "one step", go.step);
  page.keys.add(GROUP, "n", "go to the number of steps", () => often.focus());
  page.keys.add(GROUP, "e", "to the end of the epoch", go.epoch);
  page.keys.add(GROUP, "u", "go to “run until”", () => condition.element.querySelector("select")?.focus());
  page.keys.add(GROUP, "w", "write a checkpoint", go.save);
  page.keys.add(GROUP, "v", "validate", go.validate);
  page.keys.add(GROUP, "b", "bookmark this step", go.note);

  const steps = form("steps", [often, several], () => {
    const number = Number(often.value);
    if (often.reportValidity()) void send({ type: "advance", steps: number }, "", several, `${number} steps …`);
  });
  const waiting = form("until", [until, condition.element], () => {
    const text = condition.read();
    if (text) void send({ type: "rununtil", until: text }, "", until, `until ${text} …`);
  });
  const element = h(
    "section",
    { class: "transport", "aria-label": "Training" },
    h("div", { class: "group go" }, play, pause, step, epoch, more),
    h("div", { class: "rest" }, steps, waiting, h("div", { class: "group keep" }, save, validate, note), asked, hint, h("div", { class: "group end" }, stop)),
  );
  more.addEventListener("click", () => {
    const open = element.classList.toggle("open");
    more.setAttribute("aria-expanded", String(open));
  });
  // The space bar is to play and pause, not to press once more what the mouse has pressed.
  element.addEventListener("click", (event) => {
    if (event.detail > 0 && event.target instanceof Element) event.target.closest("button")?.blur();
  });

  onControl(page, () => {
    const state = page.store.get("state");
    const running = isRunning(state);
    const features = page.store.get("welcome")?.features ?? [];
    show(element, features.includes("train"));
    show(play, !running);
    show(pause, running);
    const why = whyNot(page);
    const ended = hasEnded(state);
    for (const one of all) one.disabled = Boolean(why) || (ended && one !== stop);
    write(stop.querySelector("span")!, ended ? "Close" : "Stop");
    stop.title = ended ? "Close the studio" : "End the training here; it can be resumed";
    write(hint, ended && features.includes("train") ? HINTS[state?.stage ?? ""] ?? "" : "");
    element.title = why;
  });
  page.store.on("unanswered", tell);
  return element;
}

function button(name: string, label: string, path: string, filled: boolean, title = ""): HTMLButtonElement {
  return h("button", { type: "button", class: `act ${name}`, title: title || null }, icon(path, filled), h("span", {}, label));
}

function form(name: string, children: HTMLElement[], act: () => void): HTMLElement {
  const element = h("form", { class: `group ${name}` }, ...children);
  element.noValidate = true;
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    act();
  });
  return element;
}
