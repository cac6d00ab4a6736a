// The camera in exact numbers: where it stands, where it looks, how wide; and all 18 that the studio is told, to copy.

import { h, write } from "../dom.js";
import { axis, centre, fromNumbers, looking, toNumbers, type Camera, type Vector } from "./camera.js";

const AXES = ["x", "y", "z"] as const;

export class CameraNumbers {
  readonly element: HTMLDetailsElement;
  private camera: Camera | null = null;
  private readonly place: HTMLInputElement[];
  private readonly ahead: HTMLInputElement[];
  private readonly angle: HTMLInputElement;
  private readonly all = h("textarea", { rows: 3, spellcheck: "false", "aria-label": "The camera's 18 numbers: fx and fy as a share of the height, world to camera row by row" });
  private readonly error = h("p", { class: "note", role: "status" });

  constructor(private readonly change: (camera: Camera) => void) {
    const field = (label: string, apply: () => void) => {
      const input = h("input", { type: "number", step: "any", "aria-label": label });
      input.onchange = apply;
      return input;
    };
    this.place = AXES.map((name) => field(`Camera's ${name}`, () => this.applied()));
    this.ahead = AXES.map((name) => field(`Looks along ${name}`, () => this.applied()));
    this.angle = field("Field of view, upright, in degrees", () => this.applied());
    this.all.onchange = () => this.appliedAll();
    this.element = h(
      "details",
      { class: "camera-numbers" },
      h("summary", {}, "Camera in numbers"),
      h("div", { class: "row" }, h("span", {}, "stands at"), ...this.place),
      h("div", { class: "row" }, h("span", {}, "looks along"), ...this.ahead),
      h("div", { class: "row" }, h("span", {}, "field of view, °"), this.angle),
      this.all,
      this.error,
    );
    this.element.ontoggle = () => this.draw();
  }

  show(camera: Camera | null): void {
    this.camera = camera;
    if (this.element.open) this.draw();
  }

  private draw(): void {
    const { camera } = this;
    if (!camera) return;
    const put = (input: HTMLInputElement | HTMLTextAreaElement, text: string) => {
      if (document.activeElement !== input) input.value = text; // not under the hands of who writes
    };
    centre(camera).forEach((value, at) => put(this.place[at]!, value.toFixed(6)));
    axis(camera, 2).forEach((value, at) => put(this.ahead[at]!, value.toFixed(6)));
    put(this.angle, ((2 * Math.atan(0.5 / camera.fy) * 180) / Math.PI).toFixed(4));
    put(this.all, JSON.stringify(toNumbers(camera)));
  }

  private applied(): void {
    const { camera } = this;
    const read = (inputs: HTMLInputElement[]) => inputs.map((input) => Number(input.value)) as unknown as Vector;
    const [place, ahead, angle] = [read(this.place), read(this.ahead), Number(this.angle.value)];
    if (!camera || ![...place, ...ahead, angle].every(Number.isFinite)) return;
    if (!ahead.some(Boolean)) return write(this.error, "It looks along no direction: one number at least is not 0.");
    if (!(angle > 0 && angle < 180)) return write(this.error, "The field of view is between 0 and 180 degrees.");
    write(this.error, "");
    const fy = 0.5 / Math.tan((angle * Math.PI) / 360);
    const lens = { ...camera, fx: (camera.fx / camera.fy) * fy, fy };
    this.change(looking(lens, place, ahead, axis(camera, 1)));
  }

  private appliedAll(): void {
    let numbers: unknown;
    try {
      numbers = JSON.parse(this.all.value);
    } catch {
      numbers = null;
    }
    if (!Array.isArray(numbers) || numbers.length !== 18 || !numbers.every((value) => Number.isFinite(value))) {
      return write(this.error, "Expected 18 numbers in brackets, with commas between.");
    }
    write(this.error, "");
    this.change(fromNumbers(numbers as number[]));
  }
}
