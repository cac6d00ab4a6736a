// The camera that a person moves: a pinhole that looks along z, x to the right and y down, as the studio has it.
//
// It is told to the studio as 18 numbers: focal lengths as a share of the picture's height, then `world_to_camera`
// row by row. All motions are rigid motions in the camera's own frame, so there is no up that it could get stuck at.

export type Vector = readonly [number, number, number];

export interface Camera {
  fx: number;
  fy: number;
  /** 16 numbers, row by row. */
  pose: readonly number[];
}

export const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1] as const;

export function fromNumbers(numbers: readonly number[]): Camera {
  return { fx: numbers[0]!, fy: numbers[1]!, pose: numbers.slice(2, 18) };
}

export function toNumbers(camera: Camera): number[] {
  return [camera.fx, camera.fy, ...camera.pose];
}

export function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

export function cross(a: Vector, b: Vector): Vector {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

export function scaled(a: Vector, by: number): Vector {
  return [a[0] * by, a[1] * by, a[2] * by];
}

export function plus(a: Vector, b: Vector): Vector {
  return [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
}

export function length(a: Vector): number {
  return Math.hypot(...a);
}

export function unit(a: Vector): Vector {
  return scaled(a, 1 / (length(a) || 1));
}

/** Row `at` of the rotation: where the camera's x, y or z axis points in the world. */
export function axis(camera: Camera, at: 0 | 1 | 2): Vector {
  const p = camera.pose;
  return [p[4 * at]!, p[4 * at + 1]!, p[4 * at + 2]!];
}

/** Where the camera stands in the world. */
export function centre(camera: Camera): Vector {
  const shift: Vector = [camera.pose[3]!, camera.pose[7]!, camera.pose[11]!];
  const [x, y, z] = [axis(camera, 0), axis(camera, 1), axis(camera, 2)];
  return scaled(plus(plus(scaled(x, shift[0]), scaled(y, shift[1])), scaled(z, shift[2])), -1);
}

/** A point of the world in the camera's frame. */
export function seen(camera: Camera, point: Vector): Vector {
  const p = camera.pose;
  return [0, 4, 8].map((row) => p[row]! * point[0] + p[row + 1]! * point[1] + p[row + 2]! * point[2] + p[row + 3]!) as
    unknown as Vector;
}

/** The same camera standing at `at`, looking along `forward`; `down` says where its picture's lower edge is, about. */
export function looking(camera: Camera, at: Vector, forward: Vector, down: Vector): Camera {
  const z = unit(forward);
  let x = cross(down, z);
  if (length(x) < 1e-9) x = cross(Math.abs(z[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0], z);
  x = unit(x);
  const y = cross(z, x);
  return withRows(camera, x, y, z, [-dot(x, at), -dot(y, at), -dot(z, at)]);
}

function withRows(camera: Camera, x: Vector, y: Vector, z: Vector, shift: Vector): Camera {
  const pose = [...x, shift[0], ...y, shift[1], ...z, shift[2], 0, 0, 0, 1];
  return { fx: camera.fx, fy: camera.fy, pose };
}

/** Turned by the angles (radians) about its own x, y and z axis, around a point that is `distance` in front of it. */
export function turned(camera: Camera, angles: Vector, distance: number): Camera {
  const turn = rotation(angles);
  const row = (at: 0 | 1 | 2): Vector => turn[at]!;
  const [x, y, z] = [axis(camera, 0), axis(camera, 1), axis(camera, 2)];
  const mix = (weights: Vector) =>
    plus(plus(scaled(x, weights[0]), scaled(y, weights[1])), scaled(z, weights[2]));
  const shift: Vector = [camera.pose[3]!, camera.pose[7]!, camera.pose[11]! - distance];
  const moved: Vector = [dot(row(0), shift), dot(row(1), shift), dot(row(2), shift) + distance];
  return upright(withRows(camera, mix(row(0)), mix(row(1)), mix(row(2)), moved));
}

/** Moved by so much along its own axes. */
export function moved(camera: Camera, by: Vector): Camera {
  const pose = [...camera.pose];
  pose[3]! -= by[0];
  pose[7]! -= by[1];
  pose[11]! -= by[2];
  return { ...camera, pose };
}

/** Rolled about its own axis until `up` points up in its picture. */
export function level(camera: Camera, up: Vector): Camera {
  const forward = axis(camera, 2);
  if (length(cross(up, forward)) < 1e-6) return camera; // it looks straight up or down: any roll is level
  return looking(camera, centre(camera), forward, scaled(up, -1));
}

/** The point that the cameras look at: the nearest to all of their axes; null where they have none in common. */
export function focus(cameras: readonly Camera[]): Vector | null {
  // The sum over cameras of (I - z zT) (p - c) = 0, solved by Cramer's rule.
  const a = [0, 0, 0, 0, 0, 0, 0, 0, 0];
  const b = [0, 0, 0];
  for (const camera of cameras) {
    const [z, c] = [axis(camera, 2), centre(camera)];
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 3; j++) {
        const weight = (i === j ? 1 : 0) - z[i]! * z[j]!;
        a[3 * i + j]! += weight;
        b[i]! += weight * c[j]!;
      }
    }
  }
  const rows: Vector[] = [0, 3, 6].map((at) => [a[at]!, a[at + 1]!, a[at + 2]!] as Vector);
  const right: Vector = [b[0]!, b[1]!, b[2]!];
  const whole = dot(rows[0]!, cross(rows[1]!, rows[2]!));
  if (Math.abs(whole) < 1e-6 * cameras.length ** 3) return null;
  // The matrix is symmetric: its columns are its rows.
  return [
    dot(right, cross(rows[1]!, rows[2]!)) / whole,
    dot(rows[0]!, cross(right, rows[2]!)) / whole,
    dot(rows[0]!, cross(rows[1]!, right)) / whole,
  ];
}

/** Where the cameras have up in common: the mean of what is up in their pictures. */
export function upOf(cameras: readonly Camera[]): Vector {
  let sum: Vector = [0, 0, 0];
  for (const camera of cameras) sum = plus(sum, scaled(axis(camera, 1), -1));
  return length(sum) > 1e-6 ? unit(sum) : [0, -1, 0];
}

function rotation([a, b, c]: Vector): Vector[] {
  const [ca, sa, cb, sb, cc, sc] = [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b), Math.cos(c), Math.sin(c)];
  return [
    [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
    [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
    [-sb, cb * sa, cb * ca],
  ];
}

/** Its axes made orthonormal again: the studio refuses a pose that a thousand drags have bent. */
function upright(camera: Camera): Camera {
  const z = unit(axis(camera, 2));
  const x = unit(cross(axis(camera, 1), z));
  const p = camera.pose;
  return withRows(camera, x, cross(z, x), z, [p[3]!, p[7]!, p[11]!]);
}
