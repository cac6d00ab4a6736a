"""The compiled loops of `raytracing`: where rays meet shapes, how far points are from them, and what is seen there.

Only what IEEE 754 fixes is used: + - * / and square roots in float64, never contracted, no sines, powers or
exponentials. A picture is therefore the same bytes on every machine and on any number of threads.

Rows of `shapes` are described in `raytracing.Scene`. Every shape is convex or a torus; boxes and cones are cores with
a rounding around them, so that a point on a surface has one nearest point in the core, and that gives the normal.

What is called takes a share of the work, `part` of `parts`, and lets go of Python's lock meanwhile. Compiled this way
it takes three quarters of the time that Numba's own parallel loops take to compile. All of it is in one file, since
Numba's cache does not notice changes of what a function calls elsewhere.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import math

import numpy as np

from treadle.kernels.compiling import compiled

SPHERE, CAPSULE, TORUS, BOX, CONE = range(5)
PLAIN, WOOD, THREAD, YARN, WEAVE, MARBLE, BANDS = range(7)

_exact = compiled(fastmath=False)
_FAR = 1e30
_BOUNCES = 3
_STEPS = 100
_RUN = 4  # pixels of a row that share one list of shapes


# Shapes, in their own frame -------------------------------------------------------------------------------------------


@_exact
def _into(shapes, i, x, y, z):
    # A direction into the frame of shape i.
    return (
        shapes[i, 5] * x + shapes[i, 6] * y + shapes[i, 7] * z,
        shapes[i, 8] * x + shapes[i, 9] * y + shapes[i, 10] * z,
        shapes[i, 11] * x + shapes[i, 12] * y + shapes[i, 13] * z,
    )


@_exact
def _outward(shapes, i, x, y, z):
    # From a point in the frame of shape i: its signed distance, and the direction in which that grows, in that frame.
    # The direction is meant for points outside and on the surface.
    kind, a, b, c, r = shapes[i, 0], shapes[i, 14], shapes[i, 15], shapes[i, 16], shapes[i, 17]
    if kind == BOX:
        u, v, w = abs(x) - a, abs(y) - b, abs(z) - c
        most = max(u, max(v, w))
        if most > 0:
            u, v, w = max(u, 0.0), max(v, 0.0), max(w, 0.0)
            length = math.sqrt(u * u + v * v + w * w)
        else:
            u, v, w, length = 1.0 * (u == most), 1.0 * (v == most), 1.0 * (w == most), most
        scale = 1 / math.sqrt(u * u + v * v + w * w)
        return (
            length - r,
            math.copysign(u, x) * scale,
            math.copysign(v, y) * scale,
            math.copysign(w, z) * scale,
        )
    if kind in (SPHERE, CAPSULE):
        z -= min(max(z, -a), a)
        length = math.sqrt(x * x + y * y + z * z)
        scale = 1 / max(length, 1e-12)
        return length - r, x * scale, y * scale, z * scale
    rho = math.sqrt(x * x + y * y)
    across = 1 / max(rho, 1e-12)
    if kind == TORUS:
        off = rho - a
        length = math.sqrt(off * off + z * z)
        scale = 1 / max(length, 1e-12)
        return length - r, x * across * off * scale, y * across * off * scale, z * scale
    # A truncated cone of radius a below and b above, half as high as c: the nearest of its caps and its side.
    u = rho - min(rho, a if z < 0 else b)
    v = abs(z) - c
    side, height = b - a, 2 * c
    along = ((b - rho) * side + (c - z) * height) / (side * side + height * height)
    along = min(max(along, 0.0), 1.0)
    s, t = rho - b + side * along, z - c + height * along
    sign = -1.0 if s < 0 and v < 0 else 1.0
    if u * u + v * v < s * s + t * t:
        s, t = u, v if z > 0 else -v
    length = math.sqrt(s * s + t * t)
    scale = sign / max(length, 1e-12)
    return sign * length - r, x * across * s * scale, y * across * s * scale, t * scale


@_exact
def _round(b, c):
    # The first root of t^2 + 2bt + c that lies in front.
    under = b * b - c
    if under < 0:
        return _FAR
    t = -b - math.sqrt(under)
    return t if t > 0 else _FAR


@_exact
def _enters(shapes, i, x, y, z, u, v, w, most):
    # Where a ray from (x, y, z) along the unit vector (u, v, w), in the frame of shape i, first meets it; _FAR where it
    # does not, or only beyond `most`.
    kind, a, b, c, r = shapes[i, 0], shapes[i, 14], shapes[i, 15], shapes[i, 16], shapes[i, 17]
    if kind == SPHERE:
        return _round(x * u + y * v + z * w, x * x + y * y + z * z - r * r)
    if kind == CAPSULE:
        flat = u * u + v * v
        p = x * u + y * v
        under = p * p - flat * (x * x + y * y - r * r)
        if under < 0:
            return _FAR
        t = (-p - math.sqrt(under)) / max(flat, 1e-30)
        at = z + t * w
        if abs(at) < a:
            return t if t > 0 else _FAR
        z -= math.copysign(a, at)
        return _round(x * u + y * v + z * w, x * x + y * y + z * z - r * r)
    # The others are found in steps, from where the ray enters a box or cylinder around them.
    if kind == BOX:
        first, last = _slab(x, u, a + r, 0.0, _FAR)
        first, last = _slab(y, v, b + r, first, last)
        first, last = _slab(z, w, c + r, first, last)
    else:
        radius, half = (a + r, r) if kind == TORUS else (max(a, b) + r, c + r)
        first, last = _slab(z, w, half, 0.0, _FAR)
        flat, p, q = u * u + v * v, x * u + y * v, x * x + y * y - radius * radius
        under = p * p - flat * q
        if under < 0:
            return _FAR
        if flat > 1e-20:
            root = math.sqrt(under)
            first, last = max(first, (-p - root) / flat), min(last, (-p + root) / flat)
        elif q > 0:
            return _FAR
    last = min(last, most)
    if 0 < first <= last and kind != TORUS:
        # On a flat or cylindrical part, what is around the shape is the shape itself.
        px, py, pz = x + first * u, y + first * v, abs(z + first * w)
        if kind == BOX:
            if (abs(px) <= a) + (abs(py) <= b) + (pz <= c) >= 2:
                return first
        elif pz <= c:
            if a == b:
                return first
        else:
            cap = a if z + first * w < 0 else b
            if px * px + py * py <= cap * cap:
                return first
    t = first
    for _ in range(_STEPS):
        if t > last:
            break
        distance, gx, gy, gz = _outward(shapes, i, x + t * u, y + t * v, z + t * w)
        if distance < 1e-11:
            return t
        towards = -(gx * u + gy * v + gz * w)
        if kind != TORUS:
            # Along a ray the distance from a convex shape is convex, so that Newton's method never steps too far.
            if towards <= 0:
                break
            t += distance / towards
        elif distance < r:
            # So near to the ring, the second derivative is nowhere below -1 / (a - 2r): the root of a parabola is safe.
            bend = 1 / (a - 2 * r)
            t += min(2 * distance / (towards + math.sqrt(towards * towards + 2 * bend * distance)), r)
        else:
            t += distance
    return _FAR


@_exact
def _slab(x, u, half, first, last):
    # What is left of the interval of a ray between two planes.
    if abs(u) < 1e-30:
        return (first, last) if abs(x) <= half else (_FAR, -_FAR)
    near, far = (-half - x) / u, (half - x) / u
    return max(first, min(near, far)), min(last, max(near, far))


# The scene ------------------------------------------------------------------------------------------------------------


@_exact
def _misses(shapes, i, x, y, z, u, v, w, slack):
    # Whether a ray passes shape i: by the ball around it, or by the cylinder around its z axis. Rays that start within
    # `slack` of this one do so, too.
    px, py, pz, reach = x - shapes[i, 2], y - shapes[i, 3], z - shapes[i, 4], shapes[i, 18] + slack
    b, c = px * u + py * v + pz * w, px * px + py * py + pz * pz - reach * reach
    if c > 0 and (b > 0 or b * b < c):
        return True
    ax, ay, az, width = shapes[i, 11], shapes[i, 12], shapes[i, 13], shapes[i, 19] + slack
    ax, ay, az = v * az - w * ay, w * ax - u * az, u * ay - v * ax
    apart = px * ax + py * ay + pz * az
    return apart * apart > width * width * (ax * ax + ay * ay + az * az)


@_exact
def _near(shapes, groups, x, y, z, u, v, w, slack, found):
    # Put the shapes that rays within `slack` of this one can meet into `found`; their number.
    count = 0
    for g in range(groups.shape[0]):
        px, py, pz, reach = x - groups[g, 0], y - groups[g, 1], z - groups[g, 2], groups[g, 3] + slack
        b, c = px * u + py * v + pz * w, px * px + py * py + pz * pz - reach * reach
        if c > 0 and (b > 0 or b * b < c):
            continue
        for i in range(int(groups[g, 4]), int(groups[g, 5])):
            if not _misses(shapes, i, x, y, z, u, v, w, slack):
                found[count] = i
                count += 1
    return count


@_exact
def _nearest(shapes, among, count, x, y, z, u, v, w):
    # The first shape among the first `count` of these on a ray, and how far it is: (_FAR, -1) where there is none.
    best, found = _FAR, -1
    for k in range(count):
        i = among[k]
        px, py, pz = _into(shapes, i, x - shapes[i, 2], y - shapes[i, 3], z - shapes[i, 4])
        du, dv, dw = _into(shapes, i, u, v, w)
        t = _enters(shapes, i, px, py, pz, du, dv, dw, best)
        if t < best:
            best, found = t, i
    return best, found


@_exact
def _distance(shapes, groups, x, y, z, most):
    # The signed distance to the nearest surface; `most` where it is more than that.
    best = most
    for g in range(groups.shape[0]):
        cx, cy, cz = x - groups[g, 0], y - groups[g, 1], z - groups[g, 2]
        bound = best + groups[g, 3]
        if bound < 0 or cx * cx + cy * cy + cz * cz > bound * bound:
            continue
        for i in range(int(groups[g, 4]), int(groups[g, 5])):
            px, py, pz, reach = x - shapes[i, 2], y - shapes[i, 3], z - shapes[i, 4], best + shapes[i, 18]
            if reach < 0 or px * px + py * py + pz * pz > reach * reach:
                continue
            px, py, pz = _into(shapes, i, px, py, pz)
            best = min(best, _outward(shapes, i, px, py, pz)[0])
    return best


@_exact
def _normal(shapes, i, x, y, z):
    # The outward normal of shape i at a point of its surface, in the world.
    px, py, pz = _into(shapes, i, x - shapes[i, 2], y - shapes[i, 3], z - shapes[i, 4])
    _, u, v, w = _outward(shapes, i, px, py, pz)
    return _back(shapes, i, u, v, w)


@_exact
def _turned_back(shapes, i, u, v, w):
    # A vector in the frame of shape i, in the world.
    return (
        shapes[i, 5] * u + shapes[i, 8] * v + shapes[i, 11] * w,
        shapes[i, 6] * u + shapes[i, 9] * v + shapes[i, 12] * w,
        shapes[i, 7] * u + shapes[i, 10] * v + shapes[i, 13] * w,
    )


@_exact
def _back(shapes, i, u, v, w):
    # The same, made a unit vector.
    nx, ny, nz = _turned_back(shapes, i, u, v, w)
    scale = 1 / max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    return nx * scale, ny * scale, nz * scale


# Materials ------------------------------------------------------------------------------------------------------------


@_exact
def _smooth(low, high, x):
    # 0 below `low`, 1 above `high`, a cubic between.
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@_exact
def _wave(x):
    # Nearly sin(2 pi x), of two parabolas.
    x -= math.floor(x)
    return 16 * x * (0.5 - x) if x < 0.5 else -16 * (x - 0.5) * (1 - x)


@_exact
def _lattice(i, j, k):
    # A number in [0, 1) for a corner of the lattice.
    h = (i * 374761393 + j * 668265263 + k * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1103515245) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 747796405) & 0xFFFFFFFF
    return ((h >> 8) & 0xFFFF) / 65536.0


@_exact
def _noise(x, y, z):
    # Smooth noise in [0, 1] with features of size 1.
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    i, j, k = np.int64(fx), np.int64(fy), np.int64(fz)
    x, y, z = _smooth(0.0, 1.0, x - fx), _smooth(0.0, 1.0, y - fy), _smooth(0.0, 1.0, z - fz)
    total = 0.0
    for corner in range(8):
        di, dj, dk = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (x if di else 1 - x) * (y if dj else 1 - y) * (z if dk else 1 - z)
        total += weight * _lattice(i + di, j + dj, k + dk)
    return total


@_exact
def _texture(kind, scale, x, y, z, u, v, w, r):
    # At a point of a shape's own frame with normal (u, v, w): how much of the second colour, how light, and the normal
    # as the texture bends it.
    if kind == WOOD:
        grain = _noise(11 * x * scale, 11 * y * scale, 1.3 * z * scale)
        ring = math.sqrt((x + 0.31) * (x + 0.31) + (y + 0.17) * (y + 0.17)) * 9 * scale
        fine = _noise(90 * x * scale, 90 * y * scale, 5 * z * scale)
        return 0.5 + 0.5 * _wave(ring + 1.6 * grain + 0.2 * z), 0.86 + 0.24 * fine, u, v, w
    if kind == THREAD:
        strand = z * scale
        across = strand - math.floor(strand) - 0.5
        tone = _lattice(np.int64(math.floor(strand)), 3, 7)
        return tone, 1.08 - 1.4 * across * across, u, v, w + 0.9 * across
    if kind == YARN:
        # Wound in bands around five axes; where bands cross, the first lies on top.
        length = 1 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
        x, y, z = x * length, y * length, z * length
        ax, ay, az = 0.0, 0.0, 1.0
        for band in range(6):
            if band == 0:
                ax, ay, az = 0.36, 0.48, 0.8
            elif band == 1:
                ax, ay, az = -0.6, 0.64, 0.48
            elif band == 2:
                ax, ay, az = 0.8, -0.36, 0.48
            elif band == 3:
                ax, ay, az = 0.28, 0.96, 0.0
            elif band == 4:
                ax, ay, az = -0.48, -0.6, 0.64
            else:
                ax, ay, az = 0.96, 0.0, 0.28
            off = ax * x + ay * y + az * z
            if abs(off) < 0.3 or band == 5:
                strand = off * scale
                across = strand - math.floor(strand) - 0.5
                light = (1.06 - 1.5 * across * across) * (1 - 0.5 * _smooth(0.25, 0.3, abs(off)))
                tone = _lattice(np.int64(math.floor(strand)), band, 1)
                return tone, light, u + 0.9 * across * ax, v + 0.9 * across * ay, w + 0.9 * across * az
    if kind == WEAVE:
        rho = math.sqrt(x * x + y * y)
        if rho > 0.9 * r:
            ring = rho * scale * 2
            across = ring - math.floor(ring) - 0.5
            return 1.0, 1.05 - 1.2 * across * across, u, v, w
        i, j = math.floor(x * scale), math.floor(y * scale)
        across, along = x * scale - i - 0.5, y * scale - j - 0.5
        if (np.int64(i) + np.int64(j)) & 1:
            return 0.0, 1.08 - 1.1 * across * across - 0.5 * along * along, u + 0.5 * across, v, w
        return 1.0, 1.08 - 1.1 * along * along - 0.5 * across * across, u, v + 0.5 * along, w
    if kind == MARBLE:
        x, y, z = x * scale, y * scale, z * scale
        cloud = _noise(2 * x, 2 * y, 2 * z) + 0.5 * _noise(4 * x, 4 * y, 4 * z) + 0.25 * _noise(9 * x, 9 * y, 9 * z)
        vein = 1 - abs(_wave(0.7 * x + 0.5 * y + 0.9 * cloud))
        return vein * vein * vein, 0.94 + 0.08 * cloud, u, v, w
    if kind == BANDS:
        return _smooth(-0.08, 0.08, _wave(z * scale) - 0.1), 1.0, u, v, w
    return 0.0, 1.0, u, v, w


# Light ----------------------------------------------------------------------------------------------------------------

_SUN = (0.48, -0.56, 0.675352)
"""Where the main light stands; a unit vector to six digits."""


@_exact
def _surroundings(u, v, w):
    # What mirrors see of a studio: a bright ceiling, walls, a floor, a soft box where the light is and one across.
    sky = 0.34 + 0.5 * _smooth(-0.1, 0.9, w) - 0.2 * _smooth(0.05, -0.5, w)
    key = _smooth(0.80, 0.93, u * _SUN[0] + v * _SUN[1] + w * _SUN[2])
    fill = _smooth(0.72, 0.86, -0.74 * u + 0.5 * v + 0.45 * w)
    return sky + 4.0 * key + 1.0 * fill, sky + 3.8 * key + 1.06 * fill, 1.04 * sky + 3.4 * key + 1.15 * fill


@_exact
def _lit(shapes, groups, x, y, z):
    # How much of the main light arrives: a cone is marched towards it, narrowed by what stands beside its axis.
    open_, t = 1.0, 0.012
    while t < 1.9:
        px, py, pz = x + t * _SUN[0], y + t * _SUN[1], z + t * _SUN[2]
        if px * px + py * py + pz * pz > 1:
            break
        distance = _distance(shapes, groups, px, py, pz, 0.12 + 0.1 * t)
        open_ = min(open_, 0.5 + 0.5 * distance * 9 / t)
        if open_ <= 0.02:
            return 0.0
        t += max(distance, 0.012 + 0.015 * t)
    return _smooth(0.0, 1.0, open_)


@_exact
def _openness(shapes, groups, x, y, z, u, v, w):
    # How much of the sky is seen from a point, by how far surfaces are along its normal.
    hidden, weight = 0.0, 1.0
    for step in range(4):
        t = 0.015 + 0.055 * step + 0.012 * step * step
        distance = _distance(shapes, groups, x + t * u, y + t * v, z + t * w, t)
        hidden += weight * (t - distance)
        weight *= 0.72
    return min(max(1 - 2.6 * hidden, 0.0), 1.0)


@_exact
def _stored(grids, light, i, x, y, z):
    # What `bake` has found for a point on shape i, in its frame: trilinear between the corners around it.
    fine = grids[i, 3]
    x, y, z = (x - grids[i, 0]) * fine, (y - grids[i, 1]) * fine, (z - grids[i, 2]) * fine
    across, deep = int(grids[i, 5]), int(grids[i, 6])
    fx = min(max(int(x), 0), int(grids[i, 4]) - 2)
    fy, fz = min(max(int(y), 0), across - 2), min(max(int(z), 0), deep - 2)
    x, y, z = x - fx, y - fy, z - fz
    sun, sky, at = 0.0, 0.0, int(grids[i, 7]) + (fx * across + fy) * deep + fz
    for corner in range(4):
        di, dj = corner & 1, corner >> 1
        weight = (x if di else 1 - x) * (y if dj else 1 - y)
        row = at + (di * across + dj) * deep
        sun += weight * ((1 - z) * light[row, 0] + z * light[row + 1, 0])
        sky += weight * ((1 - z) * light[row, 1] + z * light[row + 1, 1])
    return sun, sky


@_exact
def _seen(shapes, groups, materials, grids, light, near, x, y, z, u, v, w, t, i):
    # The light that comes back along a ray which meets shape i at distance t, linear red, green and blue.
    red, green, blue = 0.0, 0.0, 0.0
    tint_r, tint_g, tint_b = 1.0, 1.0, 1.0
    for bounce in range(_BOUNCES):
        x, y, z = x + t * u, y + t * v, z + t * w
        m = int(shapes[i, 1])
        px, py, pz = _into(shapes, i, x - shapes[i, 2], y - shapes[i, 3], z - shapes[i, 4])
        _, nx, ny, nz = _outward(shapes, i, px, py, pz)
        gx, gy, gz = _back(shapes, i, nx, ny, nz)
        radius = shapes[i, 14]
        mix, tone, nx, ny, nz = _texture(int(materials[m, 6]), materials[m, 7], px, py, pz, nx, ny, nz, radius)
        nx, ny, nz = _back(shapes, i, nx, ny, nz)
        mix = min(max(mix, 0.0), 1.0)
        base_r = tone * (materials[m, 0] + mix * (materials[m, 3] - materials[m, 0]))
        base_g = tone * (materials[m, 1] + mix * (materials[m, 4] - materials[m, 1]))
        base_b = tone * (materials[m, 2] + mix * (materials[m, 5] - materials[m, 2]))
        metal, gloss, rough = materials[m, 8], materials[m, 9], materials[m, 10]

        sun = nx * _SUN[0] + ny * _SUN[1] + nz * _SUN[2]
        facing = gx * _SUN[0] + gy * _SUN[1] + gz * _SUN[2]
        sun = max(sun, 0.0) * _smooth(-0.02, 0.12, facing)
        lit, sky = _stored(grids, light, i, px, py, pz)
        sun *= lit
        above = 0.5 + 0.5 * nz
        fill = max(-0.74 * nx + 0.5 * ny + 0.45 * nz, 0.0)
        open_ = sky * (0.25 + 0.75 * sky)
        glow_r = 2.10 * sun + open_ * (0.33 + 0.36 * above) + 0.16 * fill * sky
        glow_g = 1.98 * sun + open_ * (0.31 + 0.40 * above) + 0.17 * fill * sky
        glow_b = 1.76 * sun + open_ * (0.29 + 0.48 * above) + 0.20 * fill * sky
        matte = 1 - metal
        red += tint_r * matte * base_r * glow_r
        green += tint_g * matte * base_g * glow_g
        blue += tint_b * matte * base_b * glow_b

        cosine = min(max(-(u * nx + v * ny + w * nz), 0.0), 1.0)
        if sun > 0 and metal == 0:
            # Trowbridge and Reitz's (GGX) highlight of the light itself.
            hx, hy, hz = _SUN[0] - u, _SUN[1] - v, _SUN[2] - w
            half = 1 / max(math.sqrt(hx * hx + hy * hy + hz * hz), 1e-12)
            along = max((hx * nx + hy * ny + hz * nz) * half, 0.0)
            a2 = rough * rough
            under = along * along * (a2 - 1) + 1
            peak = min(0.04 * a2 / (4 * under * under * max(cosine, 0.15)), 6.0) * sun
            red, green, blue = red + tint_r * peak, green + tint_g * peak, blue + tint_b * peak
        grazing = 1 - cosine
        grazing *= grazing * grazing * grazing * grazing
        if metal > 0:
            tint_r *= metal * (base_r + (1 - base_r) * grazing)
            tint_g *= metal * (base_g + (1 - base_g) * grazing)
            tint_b *= metal * (base_b + (1 - base_b) * grazing)
        else:
            mirror = gloss * (0.04 + 0.96 * grazing)
            tint_r, tint_g, tint_b = mirror * tint_r, mirror * tint_g, mirror * tint_b
        if max(tint_r, max(tint_g, tint_b)) < 0.012:
            break
        twice = 2 * (u * nx + v * ny + w * nz)
        u, v, w = u - twice * nx, v - twice * ny, w - twice * nz
        x, y, z = x + 1e-6 * gx, y + 1e-6 * gy, z + 1e-6 * gz
        count = _near(shapes, groups, x, y, z, u, v, w, 0.0, near)
        t, i = _nearest(shapes, near, count, x, y, z, u, v, w)
        if i < 0 or bounce == _BOUNCES - 1:
            env_r, env_g, env_b = _surroundings(u, v, w)
            # Near other surfaces a mirror sees less of the studio than the bounces that are followed tell.
            red, green, blue = red + tint_r * env_r, green + tint_g * env_g, blue + tint_b * env_b
            break
    return red, green, blue


@_exact
def _developed(x):
    # Exposure and a shoulder (Reinhard et al. 2002, extended), still linear.
    x *= 1.15
    return min(x * (1 + x / 6.0) / (1 + 0.55 * x), 1.0)


@_exact
def _byte(levels, x):
    # How many of the 255 levels x lies above.
    low, high = 0, 255
    while low < high:
        middle = (low + high) // 2
        if x > levels[middle]:
            low = middle + 1
        else:
            high = middle
    return low


# What is called -------------------------------------------------------------------------------------------------------


@_exact
def _ray(pose, lens, column, row):
    # Origin and unit direction of the ray through a point of the picture, and the depth of one unit along it.
    fx, fy, cx, cy = lens
    a, b = (column - cx) / fx, (row - cy) / fy
    scale = 1 / math.sqrt(a * a + b * b + 1)
    a, b = a * scale, b * scale
    tx, ty, tz = pose[0, 3], pose[1, 3], pose[2, 3]
    return (
        -(pose[0, 0] * tx + pose[1, 0] * ty + pose[2, 0] * tz),
        -(pose[0, 1] * tx + pose[1, 1] * ty + pose[2, 1] * tz),
        -(pose[0, 2] * tx + pose[1, 2] * ty + pose[2, 2] * tz),
        pose[0, 0] * a + pose[1, 0] * b + pose[2, 0] * scale,
        pose[0, 1] * a + pose[1, 1] * b + pose[2, 1] * scale,
        pose[0, 2] * a + pose[1, 2] * b + pose[2, 2] * scale,
        scale,
    )


@_exact
def bake(shapes, groups, grids, light, part, parts):
    """The sun and the sky that arrive on every shape: at the points of it nearest to the corners of its grid."""
    for i in range(shapes.shape[0]):
        fine, across, deep = grids[i, 3], int(grids[i, 5]), int(grids[i, 6])
        for row in range(part, int(grids[i, 4]) * across, parts):
            for k in range(deep):
                x, y = grids[i, 0] + row // across / fine, grids[i, 1] + row % across / fine
                z = grids[i, 2] + k / fine
                off, u, v, w = _outward(shapes, i, x, y, z)
                if abs(off) * fine > 1.75:  # no point of the surface is in a cell with this corner
                    continue
                x, y, z = x - off * u, y - off * v, z - off * w
                _, u, v, w = _outward(shapes, i, x, y, z)
                x, y, z = _turned_back(shapes, i, x, y, z)
                x, y, z = x + shapes[i, 2], y + shapes[i, 3], z + shapes[i, 4]
                u, v, w = _back(shapes, i, u, v, w)
                at = int(grids[i, 7]) + row * deep + k
                light[at, 0] = _lit(shapes, groups, x + 0.002 * u, y + 0.002 * v, z + 0.002 * w)
                light[at, 1] = _openness(shapes, groups, x, y, z, u, v, w)


@_exact
def trace(shapes, groups, pose, lens, depth, normals, found, part, parts):
    """The first surface on the ray through every pixel's centre: depth, normal and shape; 0, 0 and -1 where none is."""
    height, width = depth.shape
    near = np.empty(shapes.shape[0], np.int64)
    for row in range(part, height, parts):
        for column in range(width):
            x, y, z, u, v, w, ahead = _ray(pose, lens, column + 0.5, row + 0.5)
            count = _near(shapes, groups, x, y, z, u, v, w, 0.0, near)
            t, i = _nearest(shapes, near, count, x, y, z, u, v, w)
            found[row, column] = i
            depth[row, column] = t * ahead if i >= 0 else 0.0
            nx, ny, nz = 0.0, 0.0, 0.0
            if i >= 0:
                nx, ny, nz = _normal(shapes, i, x + t * u, y + t * v, z + t * w)
            normals[row, column, 0], normals[row, column, 1], normals[row, column, 2] = nx, ny, nz


@_exact
def paint(shapes, groups, materials, grids, light, pose, lens, levels, samples, pixels, part, parts):
    """Every pixel (height, width, 4) uint8, the mean of `samples` (16, 2) of it.

    The first 4 are enough where they see the same shape and hardly differ, 8 where they see the same shape. `levels`
    are the 255 linear values between the 256 that a byte can have.
    """
    height, width = pixels.shape[:2]
    around, near = np.empty(shapes.shape[0], np.int64), np.empty(shapes.shape[0], np.int64)
    for row in range(part, height, parts):
        for start in range(0, width, _RUN):
            x, y, z, u, v, w, _ = _ray(pose, lens, start + 0.5 * _RUN, row + 0.5)
            # All of the scene is at most 1 beyond its middle; half of these pixels' diagonal there is less.
            slack = (1 + math.sqrt(x * x + y * y + z * z)) * 0.55 * _RUN / min(lens[0], lens[1])
            about = _near(shapes, groups, x, y, z, u, v, w, slack, around)
            for column in range(start, min(start + _RUN, width)):
                if about == 0:
                    for channel in range(4):
                        pixels[row, column, channel] = 0
                    continue
                red, green, blue, hits, count = 0.0, 0.0, 0.0, 0, 0
                shape, differ, low, high = -2, False, 2.0, -1.0
                for s in range(samples.shape[0]):
                    if not differ and (s == 8 or (s == 4 and high - low < 0.04)):
                        break
                    x, y, z, u, v, w, _ = _ray(pose, lens, column + samples[s, 0], row + samples[s, 1])
                    t, i = _nearest(shapes, around, about, x, y, z, u, v, w)
                    differ |= shape != -2 and i != shape
                    shape = i
                    count += 1
                    if i >= 0:
                        r, g, b = _seen(shapes, groups, materials, grids, light, near, x, y, z, u, v, w, t, i)
                        r, g, b = _developed(r), _developed(g), _developed(b)
                        red, green, blue, hits = red + r, green + g, blue + b, hits + 1
                        tone = math.sqrt(0.3 * r + 0.6 * g + 0.1 * b)
                        low, high = min(low, tone), max(high, tone)
                scale = 1 / max(hits, 1)
                pixels[row, column, 0] = _byte(levels, red * scale)
                pixels[row, column, 1] = _byte(levels, green * scale)
                pixels[row, column, 2] = _byte(levels, blue * scale)
                pixels[row, column, 3] = (510 * hits + count) // (2 * count)


@_exact
def distances(shapes, groups, points, out, part, parts):
    """The signed distance from each of `points` (n, 3) to the nearest surface, negative inside."""
    count = points.shape[0]
    for k in range(count * part // parts, count * (part + 1) // parts):
        out[k] = _distance(shapes, groups, points[k, 0], points[k, 1], points[k, 2], 1e6)
