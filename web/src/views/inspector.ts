// The numbers under a pixel: by hovering, by a tap, or with the arrow keys.

import { Refused } from "../connection.js";
import { h, show, write } from "../dom.js";
import type { Page } from "../page.js";
import type { View } from "./described.js";
import type { Picture, Zoom } from "./picture.js";

const STEPS: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export class Inspector {
  readonly button = h("button", { type: "button", "aria-pressed": "false" }, "Inspect pixels");
  readonly element = h("p", { class: "inspected", role: "status", hidden: true });
  /** Column and row of the picture; null while nothing is inspected. */
  pixel: [number, number] | null = null;
  private on = false;
  private view: View | null = null;
  private asking = false;
  private wanted = false;

  constructor(
    private readonly page: Page,
    private readonly pane: number,
    private readonly picture: Picture,
    private readonly changed: () => void,
  ) {
    this.button.onclick = () => this.toggle();
  }

  setView(view: View | null): void {
    this.view = view;
    this.pixel = null;
    write(this.element, "");
  }

  /** Follow pointer and keys over an element; `zoom` says what part of the picture is shown. */
  follow(element: HTMLElement, zoom: () => Zoom): void {
    element.addEventListener("pointermove", (event) => {
      if (this.on && event.pointerType === "mouse" && !event.buttons) this.put(this.picture.at(zoom(), event.clientX, event.clientY));
    });
    element.addEventListener("click", (event) => {
      if (this.on) this.put(this.picture.at(zoom(), event.clientX, event.clientY));
    });
    // Before steering and zooming hear of it: with the inspector on, arrows go from pixel to pixel.
    element.addEventListener("keydown", (event) => this.key(event), { capture: true });
  }

  /** The picture is another one: the same pixel has other numbers. */
  again(): void {
    if (!this.on || !this.pixel || !this.picture.size) return;
    const [width, height] = this.picture.size;
    this.put([Math.min(this.pixel[0], width - 1), Math.min(this.pixel[1], height - 1)]);
  }

  toggle(): void {
    this.on = !this.on;
    this.button.setAttribute("aria-pressed", String(this.on));
    show(this.element, this.on);
    const size = this.picture.size;
    if (!this.on) this.pixel = null;
    else if (size) this.put([Math.floor(size[0] / 2), Math.floor(size[1] / 2)]);
    this.changed();
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() === "i") {
      event.preventDefault();
      event.stopPropagation();
      return this.toggle();
    }
    const step = STEPS[event.key];
    const { size } = this.picture;
    if (!this.on || !step || !size) return;
    event.preventDefault();
    event.stopPropagation();
    const by = event.shiftKey ? 10 : 1;
    const [x, y] = this.pixel ?? [0, 0];
    const inside = (at: number, end: number) => Math.min(Math.max(at, 0), end - 1);
    this.put([inside(x + by * step[0], size[0]), inside(y + by * step[1], size[1])]);
  }

  private put(pixel: [number, number] | null): void {
    if (!pixel) return;
    this.pixel = pixel;
    this.changed();
    this.wanted = true;
    if (!this.asking) void this.send();
  }

  private async send(): Promise<void> {
    this.asking = true;
    while (this.wanted && this.pixel) {
      this.wanted = false;
      const [x, y] = this.pixel;
      const place = `column ${x}, row ${y}`;
      if (!this.view?.inspect) {
        const [red, green, blue] = this.picture.colour(this.pixel);
        write(this.element, `${place}: red ${red}, green ${green}, blue ${blue} of 255, as shown`);
        continue;
      }
      try {
        const found = await this.page.connection.ask<Record<string, number | string>>({ type: "inspect", pane: this.pane, x, y });
        // Exact: as many digits as the number has.
        write(this.element, `${place}: ${Object.entries(found).map(([name, value]) => `${name} ${value}`).join(", ")}`);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        write(this.element, `${place}: ${error.message}`);
      }
    }
    this.asking = false;
  }
}
