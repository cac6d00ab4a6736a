// What every panel of the page is given: the run as it is known, the way to ask for things, keys and announcements.

import type { Ask, Connection } from "./connection.js";
import type { Keys } from "./keys.js";
import type { Store } from "./store.js";

export interface Page {
  readonly store: Store;
  readonly connection: Connection;
  readonly keys: Keys;
  /** Say a line aloud to readers of the screen, and show it for some seconds. */
  say(text: string, level?: "info" | "warning"): void;
  /** Ask for something, and show the line of a refusal; undefined where it was refused. */
  try<Value = unknown>(request: Ask): Promise<Value | undefined>;
}

/** A part of the page: makes its element once and follows the store from then on. */
export type Panel = (page: Page) => HTMLElement;
