// Made by web/protocol_types.py from src/treadle/studio/protocol: change it there. A test holds the two equal.

export const VERSION = 1;

/** Take no further step until `Play`. */
export interface Pause {
  type: "pause";
  id: number;
}

/** Go on. */
export interface Play {
  type: "play";
  id: number;
}

/** Take `steps` steps (or go to the end of the epoch), then pause. */
export interface Advance {
  type: "advance";
  id: number;
  steps?: number;
  unit?: "epochs" | "steps";
}

/** Go on until a condition holds, then pause: `treadle.engine.until.Until` has the notation. */
export interface RunUntil {
  type: "rununtil";
  id: number;
  until: string;
}

/** Write a checkpoint now. */
export interface Save {
  type: "save";
  id: number;
}

/** Evaluate the validation data now; the answer is the metrics. */
export interface Validate {
  type: "validate";
  id: number;
}

/** End the training here, resumable, as Ctrl-C does. */
export interface Stop {
  type: "stop";
  id: number;
}

/** Continue from `step`: later steps are given up or, with `keep`, kept as a fork of the run. */
export interface Rewind {
  type: "rewind";
  id: number;
  step: number;
  keep?: boolean;
}

/** Raise the run's limits. */
export interface Extend {
  type: "extend";
  id: number;
  max_steps?: number | null;
  max_epochs?: number | null;
}

/** Watch for a condition until it is removed: pause there, or only mark it. */
export interface Break {
  type: "break";
  id: number;
  until: string;
  act?: "mark" | "pause";
}

/** Watch for a breakpoint no longer; `number` is that of `States.breakpoints`. */
export interface Unbreak {
  type: "unbreak";
  id: number;
  number: number;
}

/** A bookmark: the state of `step` is kept for good where there is one, and the journal has the text. */
export interface Note {
  type: "note";
  id: number;
  step: number;
  text: string;
}

/** Hold the run's control from now on; whoever had it sees that. Refused to those who may only view. */
export interface TakeControl {
  type: "takecontrol";
  id: number;
}

/** Give control back. */
export interface Release {
  type: "release";
  id: number;
}

/** Ask what these changes would do; the answer is a list of before and after, or a refusal that names one. */
export interface Propose {
  type: "propose";
  id: number;
  changes: Change[];
}

/** One thing to set: `what` and `target` as `Editable` lists them. */
export interface Change {
  what: "frozen" | "limit" | "loss_weight" | "lr_multiplier" | "setting";
  target: string;
  value: number | boolean | string | null;
}

/** Make these changes, together, before the next step. The first edit of a run saves a checkpoint before. */
export interface Apply {
  type: "apply";
  id: number;
  changes: Change[];
}

/** Set back what the last edit that is still in force has changed. */
export interface Undo {
  type: "undo";
  id: number;
}

/** Fork the run at `step` into a child process under other settings; `pause` lets the parent wait. */
export interface Branch {
  type: "branch";
  id: number;
  step: number;
  settings?: Record<string, unknown>;
  pause?: boolean;
}

/** Tell a branch to pause or play; to end, resumable; or to go on when this studio is closed. */
export interface Drive {
  type: "drive";
  id: number;
  run: string;
  act: "end" | "go on" | "pause" | "play";
}

/** Load the kept state of `step` beside the run, read only; None lets go of it. Without `sure` the answer is what
 * it would cost in memory.
 *
 * Of another run (`details` says what is kept of it) the answer has its `views`, as in `welcome`, and what is to be
 * `said` of it: lines such as that its data are others by now. */
export interface Look {
  type: "look";
  id: number;
  step: number | null;
  sure?: boolean;
  run?: string | null;
}

/** Show a view: frames come until `Unwatch`, as often as the share of time allows and the client acknowledges. */
export interface Watch {
  type: "watch";
  id: number;
  pane?: number;
  view: string;
  state?: number | null;
  run?: string | null;
  width?: number;
  height?: number;
  camera?: number[] | null;
  options?: Record<string, string | number | boolean>;
  moving?: boolean;
}

/** Show nothing in a pane any more. */
export interface Unwatch {
  type: "unwatch";
  id: number;
  pane?: number;
}

/** How much of the time drawing may take while training goes on, and how many frames a second (0: no bar). */
export interface Share {
  type: "share";
  id: number;
  share: number;
  frames?: number;
}

/** The points, lines and boxes of a view, in world coordinates: answered by a binary `Shapes`. */
export interface Overlay {
  type: "overlay";
  id: number;
  view: string;
  state?: number | null;
  run?: string | null;
  options?: Record<string, string | number | boolean>;
}

/** The numbers under a pixel of the frame that a pane shows. */
export interface Inspect {
  type: "inspect";
  id: number;
  pane?: number;
  x: number;
  y: number;
}

/** Held-out samples of a view with their figures, the worst first: predictions, truths and errors by `Watch`. */
export interface Compare {
  type: "compare";
  id: number;
  view: string;
  state?: number | null;
  run?: string | null;
  most?: number;
}

/** Points of one series; the answer is a binary `Series`. */
export interface Curves {
  type: "curves";
  id: number;
  key: string;
  run?: string | null;
  x?: "epoch" | "step" | "time";
  low?: number | null;
  high?: number | null;
  points?: number;
  log_x?: boolean;
  smoothing?: number;
  minus?: string | null;
}

/** Every value of some series as CSV text, at most the newest `rows`. */
export interface Table {
  type: "table";
  id: number;
  keys: string[];
  run?: string | null;
  rows?: number;
}

/** Histograms of the trained parameters as they are; or of their gradients, once a step has been taken that updates.
 *
 * The answer: {of, step, histograms, left_out, averaged}, each histogram {name, shape, entries, nan, infinite, low,
 * high, mean, std, counts}: bins of equal width from low to high, which are null where no entry is finite. `averaged`
 * says that they are of averaged weights (EMA), `left_out` how many parameters there are besides. */
export interface Histograms {
  type: "histograms";
  id: number;
  of?: "gradients" | "parameters";
  bins?: number;
}

/** Where the time goes. It is measured from the first question to ten seconds after the last, and at no other time.
 *
 * The answer: {measured, steps, phases, hooks}: seconds and steps since then; {name, what, seconds} of each phase,
 * which add up to the time up to the last step; {name, seconds} of each hook, which are within the phases. */
export interface Timing {
  type: "timing";
  id: number;
}

/** The runs there are, filtered and sorted; `where` is a grammar of comparisons: `psnr > 30 and recipe = image`.
 *
 * The answer is a list of {name, recipe, trainer, status, step, epoch, best, seconds, started, parent, fork_step,
 * metrics}: see `treadle.studio.runs.rows.Row`. `sort` is one of these or a metric; runs without it come last. */
export interface Runs {
  type: "runs";
  id: number;
  where?: string;
  sort?: string;
  down?: boolean;
}

/** Show another run in place of this one, where none is trained here; None goes back to the table of runs. */
export interface Open {
  type: "open";
  id: number;
  run: string | null;
}

/** The settings in which runs differ: a list of {key, values}, values by the run's name where it has the setting. */
export interface Difference {
  type: "difference";
  id: number;
  runs: string[];
}

/** A run in full: {config, environment, journal, notes, report, pictures, kept}; config is text, pictures are names,
 * and kept is a list of {step, kind, bytes}: the states that `Look` can load. */
export interface Details {
  type: "details";
  id: number;
  run: string;
}

/** One of the pictures that `Details` lists: answered by a binary `Picture`. */
export interface PictureOf {
  type: "pictureof";
  id: number;
  run: string;
  picture: string;
}

/** The first thing that a client says. */
export interface Hello {
  type: "hello";
  version: number;
  client: string;
  seen?: number;
  label?: string;
}

/** Credit: the client has drawn frame `frame`. At most two are under way to it; a hidden tab sends none. */
export interface Drawn {
  type: "drawn";
  frame: number;
}

/** The answer to `Hello`. */
export interface Welcome {
  type: "welcome";
  version: number;
  role: "control" | "view";
  run: string;
  instance: string;
  fresh: boolean;
  seq: number;
  views: (Record<string, unknown>)[];
  editable: (Record<string, unknown>)[];
  features: string[];
}

/** What was asked for, or that it is done. */
export interface Answer {
  type: "answer";
  id: number;
  value: unknown;
}

/** A request that was not carried out; `error` is one line that says why and what to do. */
export interface Refusal {
  type: "refusal";
  id: number;
  error: string;
}

/** Where the run stands: sent when it changes, at most 20 times a second, only the newest to a slow client. */
export interface State {
  type: "state";
  seq: number;
  stage: string;
  reason: string;
  busy: string;
  step: number;
  epoch: number;
  batch: number;
  batches: number | null;
  max_steps: number | null;
  max_epochs: number | null;
  rate: number;
  seconds: number;
  seconds_left: number | null;
  drawing: number;
  controller: string;
  in_control: boolean;
  metrics: Record<string, number | null>;
}

/** A new entry of the run's journal. */
export interface Journal {
  type: "journal";
  seq: number;
  entry: Record<string, unknown>;
}

/** The timeline: states that are kept, bookmarks, forks, breakpoints, stretches that were given up. */
export interface States {
  type: "states";
  seq: number;
  kept: (Record<string, unknown>)[];
  marks: (Record<string, unknown>)[];
  forks: (Record<string, unknown>)[];
  lost: number[][];
  breakpoints: (Record<string, unknown>)[];
}

/** The branches of this session, each trained in a process of its own. */
export interface Branches {
  type: "branches";
  seq: number;
  runs: (Record<string, unknown>)[];
}

/** The views there are, as in `Welcome`: what can be chosen of one is another now, say the names of examples. */
export interface Views {
  type: "views";
  seq: number;
  views: (Record<string, unknown>)[];
}

/** The edits in force, and what can be edited with its present value. */
export interface InForce {
  type: "inforce";
  seq: number;
  edits: (Record<string, unknown>)[];
  editable: (Record<string, unknown>)[];
}

/** The run has failed: its message and traceback, as text. */
export interface Failed {
  type: "failed";
  seq: number;
  error: string;
  traceback: string;
}

/** A line for people: a breakpoint was reached, control was taken, a client was dropped. */
export interface Notice {
  type: "notice";
  seq: number;
  text: string;
  level: "info" | "warning";
}

/** A picture of a view, followed by its bytes. */
export interface Frame {
  type: "frame";
  frame: number;
  pane: number;
  view: string;
  step: number;
  since: number;
  width: number;
  height: number;
  format: "jpeg" | "png";
  still: boolean;
  seconds: number;
  state: number | null;
  figures: Record<string, number>;
}

/** The answer to `Overlay`: arrays one after the other, as `parts` lists them. */
export interface Shapes {
  type: "shapes";
  id: number;
  parts: (Record<string, unknown>)[];
}

/** The answer to `Curves`: float64 little-endian rows x, low, high, last; one after the other. */
export interface Series {
  type: "series";
  id: number;
  points: number;
  total: number;
  exact: boolean;
  start: number | null;
  marks: number[][];
}

/** The answer to `PictureOf`, followed by its bytes. */
export interface Picture {
  type: "picture";
  id: number;
  format: "gif" | "jpeg" | "png";
}

export type Requests =
  | Pause
  | Play
  | Advance
  | RunUntil
  | Save
  | Validate
  | Stop
  | Rewind
  | Extend
  | Break
  | Unbreak
  | Note
  | TakeControl
  | Release
  | Propose
  | Apply
  | Undo
  | Branch
  | Drive
  | Look
  | Watch
  | Unwatch
  | Share
  | Overlay
  | Inspect
  | Compare
  | Curves
  | Table
  | Histograms
  | Timing
  | Runs
  | Open
  | Difference
  | Details
  | PictureOf;

export type FromClient =
  | Hello
  | Drawn
  | Requests;

export type FromStudio =
  | Welcome
  | Answer
  | Refusal
  | State
  | Journal
  | States
  | Branches
  | Views
  | InForce
  | Failed
  | Notice;

export type Binary =
  | Frame
  | Shapes
  | Series
  | Picture;
