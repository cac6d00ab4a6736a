// The page: log in, connect, and put the panels where they belong.

import { alerts } from "./alerts.js";
import { besideStrip } from "./beside.js";
import { branchesPanel } from "./branches.js";
import { breakpointsPanel } from "./breakpoints.js";
import { Connection, login, Refused, socketAddress } from "./connection.js";
import { curvesPanel } from "./curves/panel.js";
import { h, show } from "./dom.js";
import { editsPanel } from "./edits.js";
import { failurePanel } from "./failure.js";
import { header } from "./header.js";
import { showHelp } from "./help.js";
import { journalPanel } from "./journal.js";
import { Keys } from "./keys.js";
import { linkStrip, lookingStrip } from "./looking.js";
import type { Page } from "./page.js";
import { runsPage } from "./runs.js";
import { Sayings } from "./sayings.js";
import { statesPanel } from "./states.js";
import { Store } from "./store.js";
import { tabs } from "./tabs.js";
import * as theme from "./theme.js";
import { timelinePanel } from "./timeline.js";
import { transportPanel } from "./transport.js";
import { viewsPanel } from "./views/panel.js";

function lay(page: Page): void {
  const help = (): void => showHelp(page);
  const side = tabs("More about the run", [
    { label: "Edits", panel: editsPanel(page) },
    { label: "Breaks", panel: breakpointsPanel(page) },
    { label: "States", panel: statesPanel(page) },
    { label: "Journal", panel: journalPanel(page) },
  ]);
  const runs = runsPage(page);
  const training = h(
    "div",
    { class: "training" },
    transportPanel(page),
    lookingStrip(page),
    besideStrip(page),
    timelinePanel(page),
    branchesPanel(page),
    failurePanel(page),
    h("div", { class: "desk" }, viewsPanel(page), curvesPanel(page), h("section", { class: "panel side", "aria-label": "Details" }, side.row, ...side.panels)),
  );
  const pages = [training, runs.element];
  const sections = ["Training", "Runs"].map((label, index) => h("button", { type: "button", onclick: () => choose(index) }, label));
  function choose(index: number): void {
    pages.forEach((one, at) => show(one, at === index));
    sections.forEach((one, at) => one.setAttribute("aria-pressed", String(at === index)));
    if (index === 1) void runs.refresh();
  }
  page.keys.add("Page", "r", "runs, and back", () => choose(training.hidden ? 0 : 1));
  for (const [index, key] of ["1", "2", "3", "4"].entries()) {
    page.keys.add("Page", key, `open ${["edits", "breakpoints", "states", "journal"][index]}`, () => (choose(0), side.choose(index, true)));
  }
  page.keys.add("Page", "?", "this help", help);
  const nav = h("nav", { class: "sections", "aria-label": "Pages", hidden: true }, ...sections);
  choose(0);
  page.store.on("beside", (beside) => beside && choose(0)); // it may have been chosen among the runs
  let run: string | null = null;
  page.store.on("welcome", (welcome) => {
    if (!welcome) return;
    // A table of runs, without one that is shown; or the one that was opened from it.
    show(sections[0]!, welcome.run !== "");
    show(nav, welcome.run !== "" && welcome.features.includes("runs"));
    if (welcome.run !== run) choose(welcome.run === "" ? 1 : 0);
    run = welcome.run;
  });
  document.body.prepend(header(page, nav, help), linkStrip(page), h("main", {}, training, runs.element));
}

async function begin(): Promise<void> {
  theme.apply();
  const refused = await login();
  const store = new Store();
  const connection = new Connection(store, socketAddress());
  const sayings = new Sayings();
  const page: Page = {
    store,
    connection,
    keys: new Keys(),
    say: (text, level = "info") => sayings.say(text, level),
    async try(request) {
      try {
        return await connection.ask<never>(request);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        sayings.say(error.message, "warning");
        return undefined;
      }
    },
  };
  document.body.append(sayings.element);
  lay(page);
  alerts(page);
  if (refused) {
    store.set("linkReason", refused);
    store.set("link", "refused");
  } else connection.open();
}

void begin();
