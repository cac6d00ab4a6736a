// What the page knows of the run, and who wants to hear when some of it changes.

import type { Branches, Failed, InForce, Journal, Notice, State, States, Welcome } from "./protocol.js";
import type { View } from "./views/described.js";

/** How the page stands with the studio. "refused": the login or the protocol's version; nothing is tried again. */
export type Link = "connecting" | "open" | "cut" | "refused";

/** Another run that is open beside this one. */
export interface Beside {
  run: string;
  /** Its kept state that was loaded; null is a branch as it is now. */
  state: number | null;
  /** The views it has; null where they are those of this run. */
  views: View[] | null;
}

export interface Known {
  link: Link;
  /** Why the link is not open, for people. */
  linkReason: string;
  /** Requests that were sent and not answered. */
  unanswered: number;
  welcome: Welcome | null;
  state: State | null;
  states: States | null;
  inForce: InForce | null;
  /** Branches that are trained in processes of their own. */
  branches: Branches | null;
  /** The run's journal, oldest first. */
  journal: Journal["entry"][];
  failed: Failed | null;
  /** The newest line for people. */
  notice: Notice | null;
  /** The kept state that is looked at; null is the live one. */
  looking: number | null;
  /** Another run that is open beside this one and looked at; null is this one. */
  beside: Beside | null;
}

type Listener<Key extends keyof Known> = (value: Known[Key]) => void;

export class Store {
  private readonly known: Known = {
    link: "connecting",
    linkReason: "",
    unanswered: 0,
    welcome: null,
    state: null,
    states: null,
    inForce: null,
    branches: null,
    journal: [],
    failed: null,
    notice: null,
    looking: null,
    beside: null,
  };
  private readonly listeners = new Map<keyof Known, Set<Listener<never>>>();

  get<Key extends keyof Known>(key: Key): Known[Key] {
    return this.known[key];
  }

  set<Key extends keyof Known>(key: Key, value: Known[Key]): void {
    if (this.known[key] === value) return;
    this.known[key] = value;
    for (const listener of this.listeners.get(key) ?? []) (listener as Listener<Key>)(value);
  }

  /** Call `listener` with the present value and with every later one; returns what ends that. */
  on<Key extends keyof Known>(key: Key, listener: Listener<Key>): () => void {
    let listeners = this.listeners.get(key);
    if (!listeners) this.listeners.set(key, (listeners = new Set()));
    listeners.add(listener as Listener<never>);
    listener(this.known[key]);
    return () => listeners.delete(listener as Listener<never>);
  }

  /** Forget the run: another one, or the same one begun anew, is at the other end. */
  forget(): void {
    this.set("state", null);
    this.set("states", null);
    this.set("inForce", null);
    this.set("branches", null);
    this.set("journal", []);
    this.set("failed", null);
    this.set("looking", null);
    this.set("beside", null);
  }
}
