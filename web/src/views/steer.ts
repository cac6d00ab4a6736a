// Mouse, touch and keys that move a camera: turn around what is in the middle, pan, come nearer, fly.

import { moved, turned, type Camera, type Vector } from "./camera.js";

export interface Steered {
  camera: Camera;
  /** How far ahead the point lies that it turns around. */
  distance: number;
}

/** Where a motion is going on; afterwards `moving` is false once. */
export type Steer = (next: Steered, moving: boolean) => void;

/** Milliseconds without a motion after which it is over. */
const STILL = 180;
/** Of the whole turn that a drag from edge to edge makes, and of the turn of a key in a second. */
const TURN = Math.PI;
const KEY_TURN = 1.2;
/** Of the distance that keys move in a second. */
const KEY_MOVE = 0.8;
/** What a key does at once, as if it had been held that long, in seconds. */
const TAP = 0.05;

/** By key: turns about x, y and z, then moves along them, and how much nearer. */
const KEYS: Record<string, [turn: Vector, move: Vector, nearer: number]> = {
  ArrowLeft: [[0, -1, 0], [0, 0, 0], 0],
  ArrowRight: [[0, 1, 0], [0, 0, 0], 0],
  ArrowUp: [[1, 0, 0], [0, 0, 0], 0],
  ArrowDown: [[-1, 0, 0], [0, 0, 0], 0],
  "shift ArrowLeft": [[0, 0, 0], [-1, 0, 0], 0],
  "shift ArrowRight": [[0, 0, 0], [1, 0, 0], 0],
  "shift ArrowUp": [[0, 0, 0], [0, -1, 0], 0],
  "shift ArrowDown": [[0, 0, 0], [0, 1, 0], 0],
  "+": [[0, 0, 0], [0, 0, 0], 1],
  "=": [[0, 0, 0], [0, 0, 0], 1],
  "-": [[0, 0, 0], [0, 0, 0], -1],
  w: [[0, 0, 0], [0, 0, 1], 0],
  s: [[0, 0, 0], [0, 0, -1], 0],
  a: [[0, 0, 0], [-1, 0, 0], 0],
  d: [[0, 0, 0], [1, 0, 0], 0],
  e: [[0, 0, 0], [0, -1, 0], 0],
  q: [[0, 0, 0], [0, 1, 0], 0],
  ",": [[0, 0, 1], [0, 0, 0], 0],
  ".": [[0, 0, -1], [0, 0, 0], 0],
};

export const HELP =
  "drag or arrows turn, Shift-drag or Shift-arrows pan, wheel or + and − come nearer, W A S D Q E fly, comma and full stop roll";

export class Steering {
  private readonly pointers = new Map<number, { x: number; y: number }>();
  private readonly held = new Map<string, string>();
  private timer = 0;
  private frame = 0;
  private before = 0;

  /** `get` has the camera as it is; `fly` says whether drags turn the camera around itself. */
  constructor(
    private readonly element: HTMLElement,
    private readonly get: () => Steered | null,
    private readonly set: Steer,
    private readonly fly: () => boolean,
  ) {
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      element.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("keydown", (event) => this.keyDown(event));
    element.addEventListener("keyup", (event) => this.held.delete(event.code));
    element.addEventListener("blur", () => this.held.clear());
  }

  private down(event: PointerEvent): void {
    if (!this.get()) return;
    this.element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  private move(event: PointerEvent): void {
    const before = this.pointers.get(event.pointerId);
    const now = { x: event.clientX, y: event.clientY };
    const steered = this.get();
    if (!before || !steered) return;
    const height = this.element.clientHeight || 1;
    const [dx, dy] = [(now.x - before.x) / height, (now.y - before.y) / height];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (other) {
      // Two fingers: both halves of a drag pan, the change of their distance comes nearer, that of their angle rolls.
      const [from, to] = [span(other, before), span(other, now)];
      const angle = Math.atan2(Math.sin(to.angle - from.angle), Math.cos(to.angle - from.angle));
      const rolled = { ...steered, camera: turned(steered.camera, [0, 0, angle], steered.distance) };
      const near = from.length > 0 && to.length > 0 ? nearer(rolled, from.length / to.length) : rolled;
      return this.act(panned(near, dx / 2, dy / 2));
    }
    if (event.buttons & 6 || event.shiftKey) return this.act(panned(steered, dx, dy));
    this.act(this.turn(steered, [dy * TURN, -dx * TURN, 0]));
  }

  /** Around the point ahead: what is nearer than it follows the hand. Flying, around itself: all that is ahead does. */
  private turn(steered: Steered, [x, y, z]: Vector): Steered {
    const fly = this.fly();
    const angles: Vector = fly ? [-x / 2, -y / 2, z] : [x, y, z];
    return { ...steered, camera: turned(steered.camera, angles, fly ? 0 : steered.distance) };
  }

  private wheel(event: WheelEvent): void {
    const steered = this.get();
    if (!steered) return;
    event.preventDefault();
    const lines = event.deltaMode ? event.deltaY * 16 : event.deltaY;
    const by = Math.min(Math.max(lines, -120), 120) / 600;
    if (this.fly()) this.act({ ...steered, camera: moved(steered.camera, [0, 0, -by * steered.distance]) });
    else this.act(nearer(steered, Math.exp(by)));
  }

  private keyDown(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.element) return;
    const name = event.shiftKey && event.key.startsWith("Arrow") ? `shift ${event.key}` : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(name in KEYS) || !this.get()) return;
    event.preventDefault();
    event.stopPropagation();
    if (this.held.has(event.code)) return;
    this.held.set(event.code, name);
    this.keyed([name], TAP);
    this.before = performance.now();
    this.frame ||= requestAnimationFrame((now) => this.tick(now));
  }

  /** Held keys go on until they are let go of. */
  private tick(now: number): void {
    this.frame = 0;
    if (!this.held.size) return;
    const seconds = Math.min((now - this.before) / 1000, 0.1);
    this.before = now;
    if (seconds > 0) this.keyed([...this.held.values()], seconds);
    this.frame = requestAnimationFrame((next) => this.tick(next));
  }

  private keyed(names: string[], seconds: number): void {
    let steered = this.get();
    if (!steered) return;
    for (const name of names) {
      const [turn, move, near] = KEYS[name]!;
      const by = KEY_TURN * seconds;
      const far: number = KEY_MOVE * seconds * steered.distance;
      if (turn.some(Boolean)) steered = this.turn(steered, [turn[0] * by, turn[1] * by, turn[2] * by]);
      if (move.some(Boolean)) steered = { ...steered, camera: moved(steered.camera, [move[0] * far, move[1] * far, move[2] * far]) };
      if (near) steered = nearer(steered, Math.exp(-near * KEY_MOVE * seconds));
    }
    this.act(steered);
  }

  private act(next: Steered): void {
    this.set(next, true);
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => {
      const last = this.get();
      if (last) this.set(last, false);
    }, STILL);
  }
}

/** Moved so that what lies as far as the middle follows a hand that moves by these shares of the picture's height. */
function panned(steered: Steered, dx: number, dy: number): Steered {
  const { camera, distance } = steered;
  return { ...steered, camera: moved(camera, [(-dx * distance) / camera.fx, (-dy * distance) / camera.fy, 0]) };
}

/** As far from the point that it turns around as `by` says, a share of the distance. */
function nearer({ camera, distance }: Steered, by: number): Steered {
  const next = Math.max(distance * by, 1e-6);
  return { camera: moved(camera, [0, 0, distance - next]), distance: next };
}

function span(one: { x: number; y: number }, other: { x: number; y: number }): { length: number; angle: number } {
  const [x, y] = [other.x - one.x, other.y - one.y];
  return { length: Math.hypot(x, y), angle: Math.atan2(y, x) };
}
