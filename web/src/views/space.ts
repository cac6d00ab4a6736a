// Points, lines, cameras and boxes in WebGL, seen by the same camera as the picture that they lie over. The only file
// that knows three.js: it is loaded when something is to be laid over a picture.

import {
  BufferAttribute,
  BufferGeometry,
  PerspectiveCamera,
  LineBasicMaterial,
  LineSegments,
  Points,
  PointsMaterial,
  Scene,
  WebGLRenderer,
} from "three";
import { axis, centre, plus, scaled, type Camera, type Vector } from "./camera.js";
import { pieces, type Shapes } from "./shapes.js";

export const KINDS = ["points", "lines", "boxes", "cameras"] as const;
export type Kind = (typeof KINDS)[number];

/** Corners of a box by the bits of their number: x, y, z low or high; each edge joins two that differ in one. */
const EDGES = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((corner) =>
  [1, 2, 4].filter((bit) => !(corner & bit)).map((bit) => [corner, corner | bit] as const),
);

export class Space {
  private readonly renderer: WebGLRenderer;
  private readonly scene = new Scene();
  private readonly eye = new PerspectiveCamera();
  private readonly drawn = new Map<Kind, Points | LineSegments>();

  /** Throws where the browser has no WebGL. */
  constructor(readonly canvas: HTMLCanvasElement) {
    this.renderer = new WebGLRenderer({ canvas, alpha: true, antialias: true, preserveDrawingBuffer: true });
    this.renderer.setClearColor(0, 0);
    this.eye.matrixAutoUpdate = this.eye.matrixWorldAutoUpdate = false;
  }

  /** How much there is of each kind. */
  get counts(): Record<Kind, number> {
    const count = (kind: Kind) => this.drawn.get(kind)?.userData["count"] ?? 0;
    return { points: count("points"), lines: count("lines"), boxes: count("boxes"), cameras: count("cameras") };
  }

  setShapes(shapes: Shapes): void {
    const { points, colors, lines, line_colors, offsets, boxes } = shapes;
    this.remove("points");
    this.remove("lines");
    this.remove("boxes");
    if (points?.length) {
      const material = new PointsMaterial({ size: 3, sizeAttenuation: false, vertexColors: Boolean(colors), color: colors ? 0xffffff : 0xffc400 });
      this.add("points", new Points(geometry(points, colors), material), points.length / 3);
    }
    if (lines?.length && offsets) {
      const made = geometry(lines, line_colors);
      made.setIndex(new BufferAttribute(pieces(offsets), 1));
      const material = new LineBasicMaterial({ vertexColors: Boolean(line_colors), color: line_colors ? 0xffffff : 0x56b4e9 });
      this.add("lines", new LineSegments(made, material), offsets.length - 1);
    }
    if (boxes?.length) {
      const ends: number[] = [];
      for (let at = 0; at < boxes.length; at += 6) {
        const corner = (bits: number) => [0, 1, 2].map((i) => boxes[at + i + (bits & (1 << i) ? 3 : 0)]!);
        for (const [one, other] of EDGES) ends.push(...corner(one), ...corner(other));
      }
      this.add("boxes", new LineSegments(geometry(new Float32Array(ends), null), new LineBasicMaterial({ color: 0xff9a5c })), boxes.length / 6);
    }
  }

  /** Cameras as pyramids of which the tip is where they stand. */
  setCameras(cameras: readonly { camera: Camera; aspect: number }[], depth: number): void {
    this.remove("cameras");
    const ends: number[] = [];
    for (const { camera, aspect } of cameras) {
      const tip = centre(camera);
      const at = (u: number, v: number): Vector => {
        const [x, y, z] = [axis(camera, 0), axis(camera, 1), axis(camera, 2)];
        const aside = scaled(x, (u * aspect * depth) / (2 * camera.fx));
        return plus(plus(plus(tip, scaled(z, depth)), aside), scaled(y, (v * depth) / (2 * camera.fy)));
      };
      const corners = [at(-1, -1), at(1, -1), at(1, 1), at(-1, 1)] as const;
      corners.forEach((corner, i) => ends.push(...tip, ...corner, ...corner, ...corners[(i + 1) % 4]!));
    }
    if (!ends.length) return;
    const made = new LineSegments(geometry(new Float32Array(ends), null), new LineBasicMaterial({ color: 0x2fc79b }));
    this.add("cameras", made, cameras.length);
  }

  /** Draw what is shown, in a picture of so many pixels. */
  draw(camera: Camera, width: number, height: number, distance: number, shown: ReadonlySet<Kind>): void {
    const { renderer, eye } = this;
    if (this.canvas.width !== width || this.canvas.height !== height) renderer.setSize(width, height, false);
    const p = camera.pose;
    // three.js looks along -z with y up: the second and the third row change their sign.
    const signs = [1, -1, -1, 1];
    const rows = p.map((value, at) => value * signs[at >> 2]!) as unknown as Parameters<typeof eye.matrixWorldInverse.set>;
    eye.matrixWorldInverse.set(...rows);
    eye.matrixWorld.copy(eye.matrixWorldInverse).invert();
    eye.matrix.copy(eye.matrixWorld);
    const [near, far] = [distance / 500, distance * 500];
    const [right, top] = [(near * width) / height / (2 * camera.fx), near / (2 * camera.fy)];
    eye.projectionMatrix.makePerspective(-right, right, top, -top, near, far);
    eye.projectionMatrixInverse.copy(eye.projectionMatrix).invert();
    for (const [kind, object] of this.drawn) object.visible = shown.has(kind);
    renderer.render(this.scene, eye);
  }

  private add(kind: Kind, object: Points | LineSegments, count: number): void {
    object.frustumCulled = false;
    object.userData["count"] = count;
    this.drawn.set(kind, object);
    this.scene.add(object);
  }

  private remove(kind: Kind): void {
    const object = this.drawn.get(kind);
    if (!object) return;
    this.scene.remove(object);
    this.drawn.delete(kind);
    object.geometry.dispose();
    (object.material as LineBasicMaterial | PointsMaterial).dispose();
  }
}

function geometry(places: Float32Array, colors: Uint8Array | null): BufferGeometry {
  const made = new BufferGeometry();
  made.setAttribute("position", new BufferAttribute(places, 3));
  if (colors) made.setAttribute("color", new BufferAttribute(colors, 3, true));
  return made;
}
