// A frame on a canvas: fitted to it, zoomed and panned where it is flat, with the pixel that is being inspected.

/** What part of the picture is shown: `zoom` times what fits, around a middle in shares of its width and height. */
export interface Zoom {
  zoom: number;
  x: number;
  y: number;
}

export const WHOLE: Zoom = { zoom: 1, x: 0.5, y: 0.5 };

/** Where the picture lies on the canvas, in the canvas's pixels. */
export interface Place {
  left: number;
  top: number;
  width: number;
  height: number;
}

export class Picture {
  readonly canvas = document.createElement("canvas");
  /** Of the picture in its own pixels; null before there is one. */
  size: [number, number] | null = null;
  private bitmap: ImageBitmap | null = null;
  private readonly context = this.canvas.getContext("2d")!;

  /** Take a new frame; the one before is let go of. */
  take(bitmap: ImageBitmap): void {
    this.bitmap?.close();
    this.bitmap = bitmap;
    this.size = [bitmap.width, bitmap.height];
  }

  clear(): void {
    this.bitmap?.close();
    this.bitmap = null;
    this.size = null;
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Make the canvas as large as it is on the screen, in the screen's pixels. Returns whether it has changed. */
  fit(width: number, height: number): boolean {
    const [w, h] = [Math.max(Math.round(width), 1), Math.max(Math.round(height), 1)];
    if (this.canvas.width === w && this.canvas.height === h) return false;
    this.canvas.width = w;
    this.canvas.height = h;
    return true;
  }

  /** Where a picture of this shape lies. */
  place(zoom: Zoom, [width, height] = this.size ?? [1, 1]): Place {
    const { canvas } = this;
    const scale = Math.min(canvas.width / width, canvas.height / height) * zoom.zoom;
    return {
      left: canvas.width / 2 - zoom.x * width * scale,
      top: canvas.height / 2 - zoom.y * height * scale,
      width: width * scale,
      height: height * scale,
    };
  }

  /** Draw it, and around `pixel`, a column and a row of the picture, a frame. */
  draw(zoom: Zoom, pixel: readonly [number, number] | null): void {
    const { canvas, context, bitmap, size } = this;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!bitmap || !size) return;
    const { left, top, width, height } = this.place(zoom);
    const scale = width / size[0];
    context.imageSmoothingEnabled = scale < 2; // pixels that can be seen are shown as what they are
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, left, top, width, height);
    if (!pixel) return;
    const side = Math.max(scale, 7);
    const [x, y] = [left + (pixel[0] + 0.5) * scale, top + (pixel[1] + 0.5) * scale];
    for (const [colour, grown] of [["#000", 1.5], ["#fff", 0]] as const) {
      context.strokeStyle = colour;
      context.lineWidth = 1.5;
      context.strokeRect(x - side / 2 - grown, y - side / 2 - grown, side + 2 * grown, side + 2 * grown);
    }
  }

  /** The column and row of the picture at a point of the canvas on the page, null beside it. */
  at(zoom: Zoom, clientX: number, clientY: number): [number, number] | null {
    if (!this.size) return null;
    const { canvas } = this;
    const box = canvas.getBoundingClientRect();
    const { left, top, width, height } = this.place(zoom);
    const x = (((clientX - box.left) * canvas.width) / box.width - left) / width;
    const y = (((clientY - box.top) * canvas.height) / box.height - top) / height;
    if (!(x >= 0 && x < 1 && y >= 0 && y < 1)) return null;
    return [Math.floor(x * this.size[0]), Math.floor(y * this.size[1])];
  }

  /** Red, green and blue of a pixel as it was sent. */
  colour([x, y]: readonly [number, number]): [number, number, number] {
    const one = new OffscreenCanvas(1, 1).getContext("2d")!;
    one.drawImage(this.bitmap!, x, y, 1, 1, 0, 0, 1, 1);
    const [red, green, blue] = one.getImageData(0, 0, 1, 1).data;
    return [red!, green!, blue!];
  }
}

/** Zoomed by a factor with the point at shares (u, v) of the canvas, from its middle, staying where it is. */
export function zoomedAt(zoom: Zoom, by: number, u: number, v: number, fitted: Place, canvas: HTMLCanvasElement): Zoom {
  const next = Math.min(Math.max(zoom.zoom * by, 1), 64);
  // The point of the picture that is there: at zoom 1 the picture is `fitted`.
  const [w, h] = [fitted.width / canvas.width, fitted.height / canvas.height];
  const shift = 1 / zoom.zoom - 1 / next;
  return kept({ zoom: next, x: zoom.x + (u * shift) / w, y: zoom.y + (v * shift) / h }, w, h);
}

/** Moved by shares of the canvas. */
export function draggedBy(zoom: Zoom, u: number, v: number, fitted: Place, canvas: HTMLCanvasElement): Zoom {
  const [w, h] = [fitted.width / canvas.width, fitted.height / canvas.height];
  return kept({ ...zoom, x: zoom.x - u / zoom.zoom / w, y: zoom.y - v / zoom.zoom / h }, w, h);
}

/** Without a gap that the picture could fill. `w` and `h` are the shares of the canvas that it fills at zoom 1. */
function kept({ zoom, x, y }: Zoom, w: number, h: number): Zoom {
  const inside = (at: number, share: number) => {
    const half = 0.5 / (zoom * share); // half of the canvas, as a share of the picture
    return half >= 0.5 ? 0.5 : Math.min(Math.max(at, half), 1 - half);
  };
  return { zoom, x: inside(x, w), y: inside(y, h) };
}
