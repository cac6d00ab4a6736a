// What a run is, in words, a colour's name and a sign: never by the colour alone.

import type { State } from "./protocol.js";

export interface Standing {
  word: string;
  tone: "running" | "paused" | "ended" | "failed";
  sign: string;
}

const STANDINGS: Record<string, Standing> = {
  new: { word: "not begun", tone: "paused", sign: "○" },
  running: { word: "running", tone: "running", sign: "▶" },
  paused: { word: "paused", tone: "paused", sign: "❙❙" },
  stopped: { word: "stopped", tone: "paused", sign: "■" },
  finished: { word: "finished", tone: "ended", sign: "✓" },
  failed: { word: "failed", tone: "failed", sign: "✕" },
  unfinished: { word: "unfinished", tone: "paused", sign: "■" },
  "running elsewhere": { word: "running elsewhere", tone: "running", sign: "▶" },
  starting: { word: "starting", tone: "paused", sign: "○" },
  gone: { word: "ended", tone: "ended", sign: "■" },
  closed: { word: "ended", tone: "ended", sign: "■" },
};

export function standing(stage: string): Standing {
  return STANDINGS[stage] ?? { word: stage, tone: "ended", sign: "·" };
}

/** Whether steps are being taken, or would be if nothing held them up. */
export function isRunning(state: State | null): boolean {
  return state?.stage === "running";
}

/** Whether there is no further step to take, unless the run is rewound or extended. */
export function hasEnded(state: State | null): boolean {
  return state === null || ["finished", "failed", "closed"].includes(state.stage);
}
