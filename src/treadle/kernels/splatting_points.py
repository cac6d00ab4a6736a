"""The compiled loops over splats one by one: projection and spherical harmonics, each with its gradient.

What is summed over all splats (the gradients to the pose and to the eye) is summed by blocks of `BLOCK` splats, one row
of partial sums each: the same sums on any number of threads.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"
from __future__ import annotations

import math

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.splatting_reference import LEAST_ALPHA, MARGIN, WIDEST

BLOCK = 1024


@numba.njit(inline="always")
def _share(count, part, parts):
    # Whole blocks, so that a block is the same work wherever it runs.
    blocks = (count + BLOCK - 1) // BLOCK
    return blocks * part // parts, blocks * (part + 1) // parts


@numba.njit(inline="always")
def samples(center, extent, pixels):
    """The first and the last of so many pixels whose samples lie within `extent` of `center`; none if first > last."""
    least, most = center - extent - 0.5, center + extent - 0.5
    first, last = 0, pixels - 1
    # Written so that NaN has none, and that only what fits becomes a whole number.
    if not (least <= last and most >= 0):
        return 1, 0
    if least > 0:
        first = np.int64(least)
        if first < least:
            first += 1
    if most < last:
        last = np.int64(most)
    return first, last


@numba.njit(inline="always")
def _clip(value, least, most):
    if value < least:
        return least
    if value > most:
        return most
    return value


@numba.njit(inline="always")
def _rotation(w, x, y, z, two, one):
    return (
        *(one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)),
        *(two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)),
        *(two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)),
    )


@compiled()
def _project(means, quaternions, scales, opacities, pose, lens, size, options, first, last, outputs):
    real = means.dtype.type
    zero, one, two = real(0), real(1), real(2)
    fx, fy, cx, cy = real(lens[0]), real(lens[1]), real(lens[2]), real(lens[3])
    near, blur, antialiased = real(options[0]), real(options[1]), options[2] != 0
    margin_x, margin_y = real(MARGIN * 0.5 * size[0]) / fx, real(MARGIN * 0.5 * size[1]) / fy
    left, right = -cx / fx - margin_x, (real(size[0]) - cx) / fx + margin_x
    top, bottom = -cy / fy - margin_y, (real(size[1]) - cy) / fy + margin_y
    least, infinite = real(LEAST_ALPHA), real(np.inf)
    centers, conics, depths, compensations, extents = outputs
    r00, r01, r02, tx = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, ty = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, tz = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    for i in range(first, last):
        centers[i, 0], centers[i, 1] = zero, zero
        conics[i, 0], conics[i, 1], conics[i, 2] = zero, zero, zero
        extents[i, 0], extents[i, 1] = zero, zero
        depths[i] = zero
        compensations[i] = zero if antialiased else one
        # Comparisons are written so that NaN is culled.
        opacity = opacities[i]
        x, y, z = means[i, 0], means[i, 1], means[i, 2]
        depth = r20 * x + r21 * y + r22 * z + tz
        if not (depth >= near and depth < infinite and opacity >= least):
            continue
        x, y = r00 * x + r01 * y + r02 * z + tx, r10 * x + r11 * y + r12 * z + ty
        z = depth
        # J W, the rotation of the splat, and M = J W R S: Sigma2 = M M^T, with the sum of squared minors for det.
        u, v = _clip(x / z, left, right), _clip(y / z, top, bottom)
        jx, jy, jxz, jyz = fx / z, fy / z, -fx * u / z, -fy * v / z
        a0, a1, a2 = jx * r00 + jxz * r20, jx * r01 + jxz * r21, jx * r02 + jxz * r22
        b0, b1, b2 = jy * r10 + jyz * r20, jy * r11 + jyz * r21, jy * r12 + jyz * r22
        qw, qx, qy, qz = quaternions[i, 0], quaternions[i, 1], quaternions[i, 2], quaternions[i, 3]
        norm = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        q = _rotation(qw / norm, qx / norm, qy / norm, qz / norm, two, one)
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        m0 = (a0 * q[0] + a1 * q[3] + a2 * q[6]) * s0
        m1 = (a0 * q[1] + a1 * q[4] + a2 * q[7]) * s1
        m2 = (a0 * q[2] + a1 * q[5] + a2 * q[8]) * s2
        n0 = (b0 * q[0] + b1 * q[3] + b2 * q[6]) * s0
        n1 = (b0 * q[1] + b1 * q[4] + b2 * q[7]) * s1
        n2 = (b0 * q[2] + b1 * q[5] + b2 * q[8]) * s2
        d0, d1, d2 = m1 * n2 - m2 * n1, m2 * n0 - m0 * n2, m0 * n1 - m1 * n0
        sharp = d0 * d0 + d1 * d1 + d2 * d2
        xx, xy, yy = m0 * m0 + m1 * m1 + m2 * m2, m0 * n0 + m1 * n1 + m2 * n2, n0 * n0 + n1 * n1 + n2 * n2
        det = sharp + blur * (xx + yy) + blur * blur
        if not (det > zero and det < infinite):
            continue
        compensation = math.sqrt(sharp / det) if antialiased else one
        opacity = opacity * compensation
        if not opacity >= least:
            continue
        xx, yy = xx + blur, yy + blur
        reach = min(math.sqrt(two * math.log(opacity / least)), real(WIDEST))
        across, along = reach * math.sqrt(xx), reach * math.sqrt(yy)
        x, y = fx * x / z + cx, fy * y / z + cy
        first_x, last_x = samples(x, across, size[0])
        first_y, last_y = samples(y, along, size[1])
        if first_x > last_x or first_y > last_y:
            continue
        centers[i, 0], centers[i, 1] = x, y
        conics[i, 0], conics[i, 1], conics[i, 2] = yy / det, -xy / det, xx / det
        extents[i, 0], extents[i, 1] = across, along
        depths[i] = depth
        compensations[i] = compensation


@compiled()
def project(means, quaternions, scales, opacities, pose, lens, size, options, outputs, part, parts):
    """Project splats; `options` are near, eps2d and antialiased, `outputs` the arrays of a `Projection`."""
    count = means.shape[0]
    start, stop = _share(count, part, parts)
    _project(
        means, quaternions, scales, opacities, pose, lens, size, options,
        start * BLOCK, min(stop * BLOCK, count), outputs,
    )  # fmt: skip


@compiled()
def _project_back(means, quaternions, scales, pose, lens, size, options, saved, grads, first, last, outputs, totals):
    real = means.dtype.type
    zero, one, two = real(0), real(1), real(2)
    fx, fy, cx, cy = real(lens[0]), real(lens[1]), real(lens[2]), real(lens[3])
    antialiased = options[2] != 0
    margin_x, margin_y = real(MARGIN * 0.5 * size[0]) / fx, real(MARGIN * 0.5 * size[1]) / fy
    left, right = -cx / fx - margin_x, (real(size[0]) - cx) / fx + margin_x
    top, bottom = -cy / fy - margin_y, (real(size[1]) - cy) / fy + margin_y
    conics, compensations, extents = saved
    grad_centers, grad_conics, grad_depths, grad_compensations = grads
    grad_means, grad_quaternions, grad_scales = outputs
    r00, r01, r02, tx = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, ty = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, tz = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    for i in range(first, last):
        if not extents[i, 0] > zero:
            for k in range(3):
                grad_means[i, k] = zero
                grad_scales[i, k] = zero
            for k in range(4):
                grad_quaternions[i, k] = zero
            continue
        px, py, pz = means[i, 0], means[i, 1], means[i, 2]
        x, y = r00 * px + r01 * py + r02 * pz + tx, r10 * px + r11 * py + r12 * pz + ty
        z = r20 * px + r21 * py + r22 * pz + tz
        u, v = _clip(x / z, left, right), _clip(y / z, top, bottom)
        jx, jy, jxz, jyz = fx / z, fy / z, -fx * u / z, -fy * v / z
        a0, a1, a2 = jx * r00 + jxz * r20, jx * r01 + jxz * r21, jx * r02 + jxz * r22
        b0, b1, b2 = jy * r10 + jyz * r20, jy * r11 + jyz * r21, jy * r12 + jyz * r22
        qw, qx, qy, qz = quaternions[i, 0], quaternions[i, 1], quaternions[i, 2], quaternions[i, 3]
        norm = math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw / norm, qx / norm, qy / norm, qz / norm
        q = _rotation(qw, qx, qy, qz, two, one)
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        e0, e1 = a0 * q[0] + a1 * q[3] + a2 * q[6], a0 * q[1] + a1 * q[4] + a2 * q[7]
        e2 = a0 * q[2] + a1 * q[5] + a2 * q[8]
        f0, f1 = b0 * q[0] + b1 * q[3] + b2 * q[6], b0 * q[1] + b1 * q[4] + b2 * q[7]
        f2 = b0 * q[2] + b1 * q[5] + b2 * q[8]
        m0, m1, m2, n0, n1, n2 = e0 * s0, e1 * s1, e2 * s2, f0 * s0, f1 * s1, f2 * s2
        # To Sigma2, where dQ = -Q dSigma2 Q for the conic Q; then to M, by dM = 2 dSigma2 M.
        cxx, cxy, cyy = conics[i, 0], conics[i, 1], conics[i, 2]
        gxx, gxy, gyy = grad_conics[i, 0], grad_conics[i, 1] / two, grad_conics[i, 2]
        hxx, hxy = cxx * gxx + cxy * gxy, cxx * gxy + cxy * gyy
        hyx, hyy = cxy * gxx + cyy * gxy, cxy * gxy + cyy * gyy
        vxx, vxy, vyy = -(hxx * cxx + hxy * cxy), -(hxx * cxy + hxy * cyy), -(hyx * cxy + hyy * cyy)
        pull = zero
        d0, d1, d2 = m1 * n2 - m2 * n1, m2 * n0 - m0 * n2, m0 * n1 - m1 * n0
        if antialiased:
            # The compensation is sqrt(D / det): its logarithm's gradient is half that of ln D less that of ln det.
            pull = grad_compensations[i] * compensations[i] / two
            vxx, vxy, vyy = vxx - pull * cxx, vxy - pull * cxy, vyy - pull * cyy
            pull = two * pull / (d0 * d0 + d1 * d1 + d2 * d2)
        gm0 = two * (vxx * m0 + vxy * n0) + pull * (d2 * n1 - d1 * n2)
        gm1 = two * (vxx * m1 + vxy * n1) + pull * (d0 * n2 - d2 * n0)
        gm2 = two * (vxx * m2 + vxy * n2) + pull * (d1 * n0 - d0 * n1)
        gn0 = two * (vxy * m0 + vyy * n0) + pull * (d1 * m2 - d2 * m1)
        gn1 = two * (vxy * m1 + vyy * n1) + pull * (d2 * m0 - d0 * m2)
        gn2 = two * (vxy * m2 + vyy * n2) + pull * (d0 * m1 - d1 * m0)
        grad_scales[i, 0] = gm0 * e0 + gn0 * f0
        grad_scales[i, 1] = gm1 * e1 + gn1 * f1
        grad_scales[i, 2] = gm2 * e2 + gn2 * f2
        gm0, gm1, gm2, gn0, gn1, gn2 = gm0 * s0, gm1 * s1, gm2 * s2, gn0 * s0, gn1 * s1, gn2 * s2
        # To the rotation of the splat, and through it to the quaternion.
        g00, g01, g02 = a0 * gm0 + b0 * gn0, a0 * gm1 + b0 * gn1, a0 * gm2 + b0 * gn2
        g10, g11, g12 = a1 * gm0 + b1 * gn0, a1 * gm1 + b1 * gn1, a1 * gm2 + b1 * gn2
        g20, g21, g22 = a2 * gm0 + b2 * gn0, a2 * gm1 + b2 * gn1, a2 * gm2 + b2 * gn2
        gw = two * (qx * (g21 - g12) + qy * (g02 - g20) + qz * (g10 - g01))
        gx = two * (qw * (g21 - g12) + qy * (g01 + g10) + qz * (g02 + g20) - two * qx * (g11 + g22))
        gy = two * (qw * (g02 - g20) + qx * (g01 + g10) + qz * (g12 + g21) - two * qy * (g00 + g22))
        gz = two * (qw * (g10 - g01) + qx * (g02 + g20) + qy * (g12 + g21) - two * qz * (g00 + g11))
        along = gw * qw + gx * qx + gy * qy + gz * qz
        grad_quaternions[i, 0] = (gw - along * qw) / norm
        grad_quaternions[i, 1] = (gx - along * qx) / norm
        grad_quaternions[i, 2] = (gy - along * qy) / norm
        grad_quaternions[i, 3] = (gz - along * qz) / norm
        # To J W, and from it to J and to the camera's rotation W.
        ga0, ga1, ga2 = q[0] * gm0 + q[1] * gm1 + q[2] * gm2, q[3] * gm0 + q[4] * gm1 + q[5] * gm2, zero
        ga2 = q[6] * gm0 + q[7] * gm1 + q[8] * gm2
        gb0, gb1, gb2 = q[0] * gn0 + q[1] * gn1 + q[2] * gn2, q[3] * gn0 + q[4] * gn1 + q[5] * gn2, zero
        gb2 = q[6] * gn0 + q[7] * gn1 + q[8] * gn2
        gjx, gjxz = ga0 * r00 + ga1 * r01 + ga2 * r02, ga0 * r20 + ga1 * r21 + ga2 * r22
        gjy, gjyz = gb0 * r10 + gb1 * r11 + gb2 * r12, gb0 * r20 + gb1 * r21 + gb2 * r22
        # To the centre in the camera's frame: from the pixel, from the depth, from J.
        pixel_x, pixel_y = grad_centers[i, 0] * jx, grad_centers[i, 1] * jy
        gx, gy = pixel_x, pixel_y
        gz = grad_depths[i] - (pixel_x * x + pixel_y * y) / z
        gz -= (gjx * jx + gjy * jy + gjxz * jxz + gjyz * jyz) / z
        gu, gv = -gjxz * jx, -gjyz * jy
        if left <= x / z <= right:
            gx += gu / z
            gz -= gu * x / (z * z)
        if top <= y / z <= bottom:
            gy += gv / z
            gz -= gv * y / (z * z)
        grad_means[i, 0] = r00 * gx + r10 * gy + r20 * gz
        grad_means[i, 1] = r01 * gx + r11 * gy + r21 * gz
        grad_means[i, 2] = r02 * gx + r12 * gy + r22 * gz
        totals[0, 0] += gx * px + ga0 * jx
        totals[0, 1] += gx * py + ga1 * jx
        totals[0, 2] += gx * pz + ga2 * jx
        totals[0, 3] += gx
        totals[1, 0] += gy * px + gb0 * jy
        totals[1, 1] += gy * py + gb1 * jy
        totals[1, 2] += gy * pz + gb2 * jy
        totals[1, 3] += gy
        totals[2, 0] += gz * px + ga0 * jxz + gb0 * jyz
        totals[2, 1] += gz * py + ga1 * jxz + gb1 * jyz
        totals[2, 2] += gz * pz + ga2 * jxz + gb2 * jyz
        totals[2, 3] += gz


@compiled()
def project_back(means, quaternions, scales, pose, lens, size, options, saved, grads, outputs, totals, part, parts):
    """Write the gradients to means, quaternions and scales; add each block's to the pose to `totals` (blocks, 4, 4)."""
    count = means.shape[0]
    start, stop = _share(count, part, parts)
    for block in range(start, stop):
        first = block * BLOCK
        _project_back(
            means, quaternions, scales, pose, lens, size, options, saved, grads,
            first, min(first + BLOCK, count), outputs, totals[block],
        )  # fmt: skip


@compiled()
def _basis(x, y, z, degree, out, slopes):
    """The spherical harmonics above degree 0 at a unit vector, (15,), and their derivatives, (15, 3)."""
    real = out.dtype.type
    if degree >= 1:
        c = real(0.4886025119029199)
        out[0], out[1], out[2] = -c * y, c * z, -c * x
        slopes[0, 1], slopes[1, 2], slopes[2, 0] = -c, c, -c
    if degree >= 2:
        c, d, e = real(1.0925484305920792), real(0.31539156525252005), real(0.5462742152960396)
        two, four = real(2), real(4)
        xx, yy, zz = x * x, y * y, z * z
        out[3], out[4], out[5] = c * x * y, -c * y * z, d * (two * zz - xx - yy)
        out[6], out[7] = -c * x * z, e * (xx - yy)
        slopes[3, 0], slopes[3, 1] = c * y, c * x
        slopes[4, 1], slopes[4, 2] = -c * z, -c * y
        slopes[5, 0], slopes[5, 1], slopes[5, 2] = -two * d * x, -two * d * y, four * d * z
        slopes[6, 0], slopes[6, 2] = -c * z, -c * x
        slopes[7, 0], slopes[7, 1] = two * e * x, -two * e * y
        if degree >= 3:
            three, six, eight = real(3), real(6), real(8)
            f, g, h = real(0.5900435899266435), real(2.890611442640554), real(0.4570457994644658)
            k, m = real(0.3731763325901154), real(1.445305721320277)
            out[8], out[9] = -f * y * (three * xx - yy), g * x * y * z
            out[10], out[11] = -h * y * (four * zz - xx - yy), k * z * (two * zz - three * xx - three * yy)
            out[12], out[13] = -h * x * (four * zz - xx - yy), m * z * (xx - yy)
            out[14] = -f * x * (xx - three * yy)
            slopes[8, 0], slopes[8, 1] = -six * f * x * y, -three * f * (xx - yy)
            slopes[9, 0], slopes[9, 1], slopes[9, 2] = g * y * z, g * x * z, g * x * y
            slopes[10, 0], slopes[10, 1] = two * h * x * y, -h * (four * zz - xx - three * yy)
            slopes[10, 2] = -eight * h * y * z
            slopes[11, 0], slopes[11, 1] = -six * k * x * z, -six * k * y * z
            slopes[11, 2] = k * (six * zz - three * xx - three * yy)
            slopes[12, 0], slopes[12, 1] = -h * (four * zz - three * xx - yy), two * h * x * y
            slopes[12, 2] = -eight * h * x * z
            slopes[13, 0], slopes[13, 1], slopes[13, 2] = two * m * x * z, -two * m * y * z, m * (xx - yy)
            slopes[14, 0], slopes[14, 1] = -three * f * (xx - yy), six * f * x * y


@numba.njit(inline="always")
def _direction(means, eye, i, zero):
    # From the eye to a splat; zero where they are at one place.
    x, y, z = means[i, 0] - eye[0], means[i, 1] - eye[1], means[i, 2] - eye[2]
    length = math.sqrt(x * x + y * y + z * z)
    if length > zero or length != length:
        return x / length, y / length, z / length, length
    return zero, zero, zero, zero


@compiled()
def harmonics(dc, rest, means, eye, degree, visible, colors, part, parts):
    """Write the colours of visible splats, zero for the others."""
    real = dc.dtype.type
    zero, half, flat = real(0), real(0.5), real(0.28209479177387814)
    count, used = dc.shape[0], degree * (degree + 2)
    basis, slopes = np.zeros(15, dc.dtype), np.zeros((15, 3), dc.dtype)
    for i in range(count * part // parts, count * (part + 1) // parts):
        if not visible[i]:
            colors[i, 0], colors[i, 1], colors[i, 2] = zero, zero, zero
            continue
        x, y, z, _ = _direction(means, eye, i, zero)
        _basis(x, y, z, degree, basis, slopes)
        red, green, blue = flat * dc[i, 0] + half, flat * dc[i, 1] + half, flat * dc[i, 2] + half
        for k in range(used):
            red += basis[k] * rest[i, k, 0]
            green += basis[k] * rest[i, k, 1]
            blue += basis[k] * rest[i, k, 2]
        # Written so that NaN is seen.
        colors[i, 0] = zero if red < zero else red
        colors[i, 1] = zero if green < zero else green
        colors[i, 2] = zero if blue < zero else blue


@compiled()
def harmonics_back(
    dc, rest, means, eye, degree, visible, colors, grad, grad_dc, grad_rest, grad_means, totals, part, parts
):
    """Write the gradients of visible splats (the others' stay), and each block's gradient to the means, summed."""
    real = dc.dtype.type
    zero, flat = real(0), real(0.28209479177387814)
    count, used = dc.shape[0], degree * (degree + 2)
    basis, slopes = np.zeros(15, dc.dtype), np.zeros((15, 3), dc.dtype)
    start, stop = _share(count, part, parts)
    for i in range(start * BLOCK, min(stop * BLOCK, count)):
        if not visible[i]:
            continue
        x, y, z, length = _direction(means, eye, i, zero)
        _basis(x, y, z, degree, basis, slopes)
        red = grad[i, 0] if colors[i, 0] > zero else zero
        green = grad[i, 1] if colors[i, 1] > zero else zero
        blue = grad[i, 2] if colors[i, 2] > zero else zero
        grad_dc[i, 0], grad_dc[i, 1], grad_dc[i, 2] = flat * red, flat * green, flat * blue
        gx, gy, gz = zero, zero, zero
        for k in range(used):
            grad_rest[i, k, 0] = basis[k] * red
            grad_rest[i, k, 1] = basis[k] * green
            grad_rest[i, k, 2] = basis[k] * blue
            pull = red * rest[i, k, 0] + green * rest[i, k, 1] + blue * rest[i, k, 2]
            gx += pull * slopes[k, 0]
            gy += pull * slopes[k, 1]
            gz += pull * slopes[k, 2]
        if length > zero:
            along = gx * x + gy * y + gz * z
            gx, gy, gz = (gx - along * x) / length, (gy - along * y) / length, (gz - along * z) / length
            grad_means[i, 0], grad_means[i, 1], grad_means[i, 2] = gx, gy, gz
            totals[i // BLOCK, 0] += gx
            totals[i // BLOCK, 1] += gy
            totals[i // BLOCK, 2] += gz
