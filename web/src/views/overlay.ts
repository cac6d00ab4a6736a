// What is laid over a view in space, and the switches for it. WebGL is loaded when a switch is first on.

import { Refused } from "../connection.js";
import { h, show, write } from "../dom.js";
import type { Page } from "../page.js";
import type { Camera } from "./camera.js";
import type { Values, View } from "./described.js";
import { readShapes, type Shapes } from "./shapes.js";
import type { Kind, Space } from "./space.js";

const KINDS: readonly Kind[] = ["points", "lines", "boxes", "cameras"];
/** Milliseconds between two times that shapes of a run that goes on are asked for. */
const REFRESH = 4000;

export class Overlay {
  readonly canvas = h("canvas", { class: "overlay", "aria-hidden": "true" });
  readonly controls: HTMLElement[];
  private readonly boxes = new Map<Kind, HTMLInputElement>();
  private readonly labels = new Map<Kind, HTMLElement>();
  private readonly line = h("span", { class: "note", role: "status" });
  private readonly on = new Set<Kind>();
  private view: View | null = null;
  private space: Space | null = null;
  private begun = false;
  private depth = 1;
  private shapes: Shapes | null = null;
  private loaded = -1;
  private last = 0;
  private asked = 0;
  /** Views whose own overlays were switched on: after that they are people's to switch. */
  private readonly seen = new Set<string>();

  constructor(
    private readonly page: Page,
    private readonly changed: () => void,
  ) {
    this.controls = [
      ...KINDS.map((kind) => {
        const box = h("input", { type: "checkbox", "data-overlay": kind });
        box.onchange = () => void this.toggle(kind, box.checked);
        this.boxes.set(kind, box);
        const label = h("label", { class: "switch" }, box, ` ${kind}`);
        this.labels.set(kind, label);
        return label;
      }),
      this.line,
    ];
  }

  setView(view: View | null, distance: number): void {
    this.view = view;
    this.depth = distance * 0.06;
    this.shapes = null;
    this.loaded = -1;
    for (const [kind, label] of this.labels) show(label, kind === "cameras" ? Boolean(view?.cameras.length) : Boolean(view?.shapes));
    show(this.canvas, view?.kind === "space");
    this.space?.setCameras(view?.cameras ?? [], this.depth);
    this.space?.setShapes({ points: null, colors: null, lines: null, line_colors: null, offsets: null, boxes: null });
    if (!view || this.seen.has(view.name)) return;
    this.seen.add(view.name);
    for (const kind of KINDS.filter((kind) => view.laidOver.includes(kind))) {
      this.boxes.get(kind)!.checked = true;
      void this.toggle(kind, true);
    }
  }

  /** Ask for the shapes, where somebody wants to see some. */
  async load(state: number | null, run: string | null, options: Values): Promise<void> {
    const { view } = this;
    if (!view?.shapes || !this.wantsShapes() || !this.space || this.page.store.get("link") !== "open") return;
    const asked = (this.asked += 1);
    this.last = performance.now();
    this.loaded = this.page.store.get("state")?.step ?? 0;
    try {
      const packet = await this.page.connection.series({ type: "overlay", view: view.name, state, run, options });
      if (asked !== this.asked || !this.space) return; // another was asked for meanwhile
      this.shapes = readShapes(packet);
      this.space.setShapes(this.shapes);
      this.tell();
      this.changed();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      write(this.line, error.message);
    }
  }

  tick(step: number, load: () => void): void {
    if (step !== this.loaded && this.wantsShapes() && performance.now() - this.last > REFRESH) load();
  }

  draw(camera: Camera, like: HTMLCanvasElement, distance: number): void {
    if (!this.space) return;
    this.space.draw(camera, like.width, like.height, distance, this.on);
  }

  private wantsShapes(): boolean {
    return [...this.on].some((kind) => kind !== "cameras");
  }

  private async toggle(kind: Kind, on: boolean): Promise<void> {
    if (on) this.on.add(kind);
    else this.on.delete(kind);
    if (on && !this.begun) await this.begin();
    this.tell();
    this.onToggle(kind !== "cameras" && on);
    this.changed();
  }

  /** Told whether shapes are to be asked for. */
  onToggle: (shapes: boolean) => void = () => {};

  private async begin(): Promise<void> {
    this.begun = true;
    try {
      const { Space } = await import("./space.js");
      this.space = new Space(this.canvas);
      this.space.setCameras(this.view?.cameras ?? [], this.depth);
    } catch {
      write(this.line, "This browser has no WebGL: nothing can be laid over the picture.");
      for (const box of this.boxes.values()) {
        box.checked = false;
        box.disabled = true;
      }
      this.on.clear();
    }
  }

  private tell(): void {
    if (!this.space) return;
    const counts = this.space.counts;
    const said = KINDS.filter((kind) => this.on.has(kind)).map((kind) => (counts[kind] ? `${counts[kind]} ${kind}` : `no ${kind}`));
    write(this.line, said.join(", "));
  }
}
