// A pane: one view of the run, of a kept state or of another run, with its controls, figures and pixel inspector.

import { Refused, type Packet } from "../connection.js";
import { fill, h, show, write } from "../dom.js";
import { short } from "../curves/numbers.js";
import type { Page } from "../page.js";
import type { Frame } from "../protocol.js";
import { CameraNumbers } from "./camera_numbers.js";
import { focus, level, seen, toNumbers, upOf, type Camera } from "./camera.js";
import { controls } from "./controls.js";
import { fitting, shownOptions, type Value, type Values, type View } from "./described.js";
import { HELP as FLAT_HELP, Zooming } from "./flat.js";
import { Inspector } from "./inspector.js";
import { Overlay } from "./overlay.js";
import { Picture, WHOLE, type Zoom } from "./picture.js";
import { Samples } from "./samples.js";
import { HELP as SPACE_HELP, Steering, type Steered } from "./steer.js";

/** What is looked at: null is the run as it is now. */
export interface Subject {
  label: string;
  state: number | null;
  run: string | null;
  /** The views there are of it; null: those of the run as it is now. */
  views: View[] | null;
}

/** What is told when somebody moves in one pane, so that the other can follow. */
export interface Moved {
  steered: Steered | null;
  zoom: Zoom;
  moving: boolean;
}

/** Pixels of a picture that is asked for: at most so many on a side, at least so many. */
const MOST = 2048;
const LEAST = 16;
/** Where a view without cameras is seen from: three before the origin. */
const BEFORE = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 0, 0, 0, 1];
/** Frames are counted over so many milliseconds. */
const COUNTED = 3000;

export class Pane {
  readonly element: HTMLElement;
  view: View | null = null;
  values: Values = {};
  /** Told of every motion by a person. */
  onMove: (moved: Moved) => void = () => {};
  subject: Subject = { label: "live", state: null, run: null, views: null };
  private steered: Steered | null = null;
  private zoom: Zoom = WHOLE;
  private moving = false;
  private flying = false;
  private quality = 1;
  private onScreen = false;
  private asking = false;
  private wanted = false;
  private held: Packet<Frame>[] = [];
  private painting: Promise<void> = Promise.resolve();
  private shown: Frame | null = null;
  private settled = true;
  private times: number[] = [];
  private bytes = 0;

  private readonly picture = new Picture();
  private readonly stage = h("div", { class: "screen", tabindex: "0", role: "application" });
  private readonly refused = h("p", { class: "refused", role: "status", hidden: true });
  private readonly figures = h("p", { class: "figures" });
  private readonly options = h("div", { class: "options" });
  private readonly numbers = new CameraNumbers((camera) => this.steer(camera, false, true));
  private readonly snap = h("select", { "aria-label": "Training camera" });
  private readonly spaceTools: HTMLElement;
  private readonly inspector: Inspector;
  private readonly overlay: Overlay;
  private readonly samples: Samples;

  constructor(
    private readonly page: Page,
    readonly number: number,
  ) {
    this.inspector = new Inspector(page, number, this.picture, () => this.draw());
    this.overlay = new Overlay(page, () => this.draw());
    this.overlay.onToggle = (shapes) => shapes && this.drawShapes();
    this.samples = new Samples(page, (name) => this.choose("sample", name, false));
    this.snap.onchange = () => this.snapTo(this.snap.selectedIndex - 1);
    const fly = h("button", { type: "button", "aria-pressed": "false", title: "Drags turn the camera around itself" }, "Fly");
    fly.onclick = () => {
      this.flying = !this.flying;
      fly.setAttribute("aria-pressed", String(this.flying));
    };
    const levelled = h("button", { type: "button", title: "Roll until up is up", onclick: () => this.level() }, "Level");
    const next = (by: number) => () => this.snapTo((this.snap.selectedIndex - 1 + by + this.count()) % Math.max(this.count(), 1));
    const before = h("button", { type: "button", "aria-label": "Camera before", onclick: next(-1) }, "‹");
    const after = h("button", { type: "button", "aria-label": "Next camera", onclick: next(1) }, "›");
    this.spaceTools = h("div", { class: "row" }, before, this.snap, after, fly, levelled, ...this.overlay.controls);
    const quality = h("select", { "aria-label": "Resolution" }, ...[1, 0.5, 0.25].map((share) => h("option", { value: share }, `${share * 100} % of the pixels`)));
    quality.onchange = () => {
      this.quality = Number(quality.value);
      this.ask();
    };
    this.stage.append(this.picture.canvas, this.overlay.canvas, this.refused);
    this.element = h(
      "div",
      { class: "pane", role: "group", "aria-label": `Pane ${number + 1}` },
      this.stage,
      this.figures,
      this.inspector.element,
      this.spaceTools,
      h("div", { class: "row" }, quality, this.inspector.button, this.samples.button),
      this.samples.element,
      this.options,
      this.numbers.element,
    );
    new Steering(this.stage, () => this.steered, (next, moving) => this.move(next, moving), () => this.flying);
    new Zooming(this.picture.canvas, this.stage, () => this.flat(), (zoom, moving) => this.moveFlat(zoom, moving));
    this.inspector.follow(this.stage, () => this.drawnZoom());
    new ResizeObserver(() => this.resized()).observe(this.stage);
    new IntersectionObserver(([entry]) => this.seen(entry!.isIntersecting)).observe(this.stage);
    document.addEventListener("visibilitychange", () => this.visible());
    page.connection.onFrame(number, (packet) => this.take(packet));
  }

  /** Turn the pixel inspector on or off. */
  inspect(): void {
    this.inspector.toggle();
  }

  /** Look at another view; what was chosen stays where the new one takes it. */
  setView(view: View | null): void {
    const before = this.view;
    if (before?.name !== view?.name) {
      this.picture.clear();
      this.shown = null;
      this.times = [];
      write(this.figures, view ? "Drawing …" : "");
      this.zoom = WHOLE;
      this.steered = null;
    }
    this.view = view;
    if (view) this.values = fitting(view, this.values);
    const space = view?.kind === "space";
    const free = this.steered !== null && this.snap.selectedIndex <= 0;
    if (space && !this.steered) this.steered = this.first(view);
    fill(this.snap, h("option", { value: "" }, "Free camera"), ...(view?.cameras ?? []).map(({ name }) => h("option", {}, name)));
    if (space && view.cameras.length && !free) this.snap.selectedIndex = 1;
    show(this.spaceTools, space);
    show(this.snap, Boolean(view?.cameras.length));
    show(this.numbers.element, space);
    this.numbers.show(this.steered?.camera ?? null);
    this.stage.classList.toggle("space", space);
    this.stage.setAttribute("aria-label", `${view?.title ?? "No view"}: ${space ? SPACE_HELP : FLAT_HELP}; I inspects pixels`);
    this.overlay.setView(view, this.steered?.distance ?? 1);
    this.inspector.setView(view);
    this.samples.setView(view);
    this.drawOptions();
    this.draw();
    this.ask();
    this.drawShapes();
  }

  /** Look at something else; where its views are others, `setView` is called next and asks for the picture. */
  setSubject(subject: Subject, otherViews = false): void {
    this.subject = subject;
    this.samples.setSubject(subject);
    if (otherViews) return;
    this.ask();
    this.drawShapes();
  }

  /** Follow the other pane. */
  follow({ steered, zoom, moving }: Moved): void {
    if (steered && this.view?.kind === "space") this.steer(steered.camera, moving, false, steered.distance);
    if (!steered && this.view?.kind === "flat") {
      this.zoom = zoom;
      this.moving = moving;
      this.draw();
      if (this.view.zooms || !moving) this.ask();
    }
  }

  /** Where it looks from, for another pane to begin there. */
  where(): Moved | null {
    return this.view ? { steered: this.view.kind === "space" ? this.steered : null, zoom: this.zoom, moving: false } : null;
  }

  /** Ask for frames, as somebody wants to see them; one question at a time, the newest. */
  ask(): void {
    this.wanted = true;
    if (!this.asking) void this.send();
  }

  /** See no more of it. */
  close(): void {
    this.onScreen = false;
    if (this.page.store.get("link") === "open") void this.page.connection.ask({ type: "unwatch", pane: this.number }).catch(() => {});
  }

  /** The run has gone on: what is laid over the picture follows, not faster than it is asked for. */
  tick(): void {
    this.overlay.tick(this.page.store.get("state")?.step ?? 0, () => this.drawShapes());
  }

  // Watching -----------------------------------------------------------------------------------------------------------

  private async send(): Promise<void> {
    this.asking = true;
    while (this.wanted) {
      this.wanted = false;
      const { view, subject, onScreen } = this;
      const [width, height] = this.pixels();
      if (!view || !onScreen || !width || this.page.store.get("link") !== "open") break;
      try {
        await this.page.connection.ask({
          type: "watch",
          pane: this.number,
          view: view.name,
          state: subject.state,
          run: subject.run,
          width,
          height,
          camera: view.kind === "space" && this.steered ? toNumbers(this.steered.camera) : null,
          options: this.values,
          moving: this.moving,
        });
        show(this.refused, false);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        write(this.refused, error.message);
        show(this.refused, true);
      }
    }
    this.asking = false;
  }

  /** The size to ask for: the stage's in the screen's pixels, or as much of it as was chosen. */
  private pixels(): [number, number] {
    const { width, height } = this.picture.canvas;
    if (!this.onScreen || this.stage.clientWidth < 2) return [0, 0];
    const zoom = this.view?.kind === "flat" && !this.view.zooms ? this.zoom.zoom : 1;
    const scale = Math.min(this.quality * zoom, MOST / width, MOST / height);
    const bounded = (pixels: number) => Math.min(Math.max(Math.round(pixels * scale), LEAST), MOST);
    return [bounded(width), bounded(height)];
  }

  private take(packet: Packet<Frame>): void {
    // A tab that nobody sees gives no credit back: the studio then draws nothing for it.
    if (document.hidden) this.held.push(packet);
    else this.painting = this.painting.then(() => this.paint(packet)); // one after the other: a small one is read faster
  }

  private visible(): void {
    if (document.hidden) return;
    for (const packet of this.held.splice(0)) this.take(packet);
  }

  private async paint({ header, bytes }: Packet<Frame>): Promise<void> {
    try {
      if (header.view === this.view?.name) {
        this.picture.take(await createImageBitmap(new Blob([bytes], { type: `image/${header.format}` })));
        this.shown = header;
        this.bytes = bytes.length;
        this.draw();
        this.tell(performance.now());
        this.inspector.again();
        // What is made in pieces is all there now: what is laid over the picture, too.
        if (header.still && !this.settled) this.drawShapes();
        this.settled = header.still;
      }
    } catch {
      write(this.refused, `frame ${header.frame} is no picture that this browser can read`);
      show(this.refused, true);
    } finally {
      this.page.connection.drawn(header.frame);
    }
  }

  private seen(onScreen: boolean): void {
    if (onScreen === this.onScreen) return;
    if (onScreen) {
      this.onScreen = true;
      this.resized();
      this.ask();
    } else this.close();
  }

  private resized(): void {
    const { clientWidth, clientHeight } = this.stage;
    if (clientWidth < 2 || !this.picture.fit(clientWidth * devicePixelRatio, clientHeight * devicePixelRatio)) return;
    this.draw();
    this.ask();
  }

  // Moving -------------------------------------------------------------------------------------------------------------

  private first(view: View): Steered {
    const named = view.cameras[0];
    if (!named) return { camera: { fx: 1.2, fy: 1.2, pose: BEFORE }, distance: 3 };
    return { camera: named.camera, distance: this.ahead(view, named.camera) };
  }

  /** How far ahead of a camera the middle of the scene is. */
  private ahead(view: View, camera: Camera): number {
    const middle = focus(view.cameras.map((named) => named.camera));
    const depth = middle ? seen(camera, middle)[2] : 0;
    return depth > 1e-3 ? depth : this.steered?.distance ?? 1;
  }

  private move(next: Steered, moving: boolean): void {
    this.snap.selectedIndex = 0;
    this.steer(next.camera, moving, true, next.distance);
  }

  private steer(camera: Camera, moving: boolean, tell: boolean, distance = this.steered?.distance ?? 1): void {
    this.steered = { camera, distance };
    this.moving = moving;
    this.numbers.show(camera);
    this.draw();
    this.ask();
    if (tell) this.onMove({ steered: this.steered, zoom: this.zoom, moving });
  }

  private snapTo(index: number): void {
    const named = this.view?.cameras[index];
    if (!named || !this.view) return;
    this.snap.selectedIndex = index + 1;
    this.steer(named.camera, false, true, this.ahead(this.view, named.camera));
  }

  private count(): number {
    return this.view?.cameras.length ?? 0;
  }

  private level(): void {
    if (!this.steered || !this.view) return;
    const all = this.view.cameras.map((named) => named.camera);
    this.move({ ...this.steered, camera: level(this.steered.camera, upOf(all)) }, false);
  }

  private flat(): { zoom: Zoom; fitted: ReturnType<Picture["place"]> } | null {
    if (this.view?.kind !== "flat" || !this.picture.size) return null;
    return { zoom: this.zoom, fitted: this.picture.place(WHOLE) };
  }

  private moveFlat(zoom: Zoom, moving: boolean): void {
    const before = this.zoom;
    this.zoom = zoom;
    this.moving = moving;
    this.stage.classList.toggle("near", zoom.zoom > 1);
    if (this.view?.zooms) Object.assign(this.values, { zoom: zoom.zoom, x: zoom.x, y: zoom.y });
    this.draw();
    if (this.view?.zooms || (!moving && before.zoom === zoom.zoom)) this.ask();
    this.onMove({ steered: null, zoom, moving });
  }

  // Drawing ------------------------------------------------------------------------------------------------------------

  /** Where a frame lies: one that the studio has zoomed into is all of what is to be seen. */
  private drawnZoom(): Zoom {
    return this.view?.kind === "flat" && !this.view.zooms ? this.zoom : WHOLE;
  }

  private draw(): void {
    this.picture.draw(this.drawnZoom(), this.inspector.pixel);
    const { steered } = this;
    if (this.view?.kind === "space" && steered) this.overlay.draw(steered.camera, this.picture.canvas, steered.distance);
  }

  private drawShapes(): void {
    if (this.view?.kind === "space") void this.overlay.load(this.subject.state, this.subject.run, this.values);
  }

  private drawOptions(): void {
    const { view } = this;
    fill(this.options, ...(view ? controls(shownOptions(view), this.values, (name, value, moving) => this.choose(name, value, moving)) : []));
  }

  /** Choose a value of one of the view's options. */
  choose(name: string, value: Value, moving: boolean): void {
    this.values = { ...this.values, [name]: value };
    this.moving = moving;
    this.ask();
    if (!moving) this.drawShapes();
    if (name === "sample") this.drawOptions();
  }

  /** The line under the picture: what it shows, how good that is, and how often it comes. */
  private tell(now: number): void {
    const { shown } = this;
    if (!shown) return;
    this.times = [...this.times.filter((time) => now - time < COUNTED), now];
    const since = now - this.times[0]!;
    const rate = since > 500 ? ((this.times.length - 1) * 1000) / since : 0;
    const figures = Object.entries(shown.figures).map(([name, value]) => `${name} ${short(value)}`);
    const parts = [
      `${this.subject.label}, ${shown.since && shown.since < shown.step ? `steps ${shown.since} to` : "step"} ${shown.step}`,
      ...figures,
      `${shown.width} × ${shown.height}${shown.still ? "" : ", coarse"}`,
      `${(1000 * shown.seconds).toFixed(shown.seconds < 0.01 ? 1 : 0)} ms, ${(this.bytes / 1000).toFixed(0)} kB`,
      ...(rate ? [`${rate.toFixed(1)} frames/s`] : []),
    ];
    write(this.figures, parts.join(" · "));
    this.element.dataset["frame"] = String(shown.frame);
    this.element.dataset["still"] = String(shown.still);
  }
}

