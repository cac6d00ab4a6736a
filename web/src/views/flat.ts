// Mouse, touch and keys that zoom and pan a flat picture.

import { draggedBy, WHOLE, zoomedAt, type Place, type Zoom } from "./picture.js";

const STILL = 180;

export const HELP = "wheel or + and − zoom, drag or arrows pan, 0 shows all of it";

export class Zooming {
  private readonly pointers = new Map<number, { x: number; y: number }>();
  private timer = 0;

  /** `get` has the zoom as it is and where the picture lies at zoom 1; null where the view is not flat. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    element: HTMLElement,
    private readonly get: () => { zoom: Zoom; fitted: Place } | null,
    private readonly set: (zoom: Zoom, moving: boolean) => void,
  ) {
    element.addEventListener("pointerdown", (event) => {
      if (!this.get()) return;
      element.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      element.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("keydown", (event) => this.key(event, element));
  }

  private move(event: PointerEvent): void {
    const before = this.pointers.get(event.pointerId);
    const flat = this.get();
    if (!before || !flat) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    const box = this.canvas.getBoundingClientRect();
    const [u, v] = [(now.x - before.x) / box.width, (now.y - before.y) / box.height];
    let zoom = draggedBy(flat.zoom, other ? u / 2 : u, other ? v / 2 : v, flat.fitted, this.canvas);
    if (other) {
      const far = (one: { x: number; y: number }) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
      const [x, y] = this.from(box, (now.x + other.x) / 2, (now.y + other.y) / 2);
      zoom = zoomedAt(zoom, far(now) / far(before), x, y, flat.fitted, this.canvas);
    }
    this.act(zoom);
  }

  private wheel(event: WheelEvent): void {
    const flat = this.get();
    if (!flat) return;
    // At the ends of the zoom the page scrolls on.
    if ((flat.zoom.zoom <= 1 && event.deltaY > 0) || (flat.zoom.zoom >= 64 && event.deltaY < 0)) return;
    event.preventDefault();
    const lines = event.deltaMode ? event.deltaY * 16 : event.deltaY;
    const by = Math.exp(-Math.min(Math.max(lines, -120), 120) / 400);
    const [u, v] = this.from(this.canvas.getBoundingClientRect(), event.clientX, event.clientY);
    this.act(zoomedAt(flat.zoom, by, u, v, flat.fitted, this.canvas));
  }

  private key(event: KeyboardEvent, element: HTMLElement): void {
    const flat = this.get();
    if (!flat || event.ctrlKey || event.metaKey || event.altKey || event.target !== element) return;
    const { zoom, fitted } = flat;
    const drag = (u: number, v: number) => draggedBy(zoom, u, v, fitted, this.canvas);
    const acts: Record<string, () => Zoom> = {
      "+": () => zoomedAt(zoom, 1.25, 0, 0, fitted, this.canvas),
      "=": () => zoomedAt(zoom, 1.25, 0, 0, fitted, this.canvas),
      "-": () => zoomedAt(zoom, 0.8, 0, 0, fitted, this.canvas),
      "0": () => WHOLE,
      ArrowLeft: () => drag(0.1, 0),
      ArrowRight: () => drag(-0.1, 0),
      ArrowUp: () => drag(0, 0.1),
      ArrowDown: () => drag(0, -0.1),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    this.act(act());
  }

  /** A point of the page from the canvas's middle, in shares of the canvas. */
  private from(box: DOMRect, x: number, y: number): [number, number] {
    return [(x - box.left) / box.width - 0.5, (y - box.top) / box.height - 0.5];
  }

  private act(zoom: Zoom): void {
    this.set(zoom, true);
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.set(this.get()?.zoom ?? zoom, false), STILL);
  }
}
