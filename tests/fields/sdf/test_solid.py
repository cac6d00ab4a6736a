from __future__ import annotations

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.fields.sdf.paint import Paint
from treadle.fields.sdf.reading import Surface
from treadle.fields.sdf.shapes import knot
from treadle.fields.sdf.solid import RADIUS, barycentric, enclose, read_solid

pytest.importorskip("igl")


def soup(surface: Surface) -> Surface:
    """The same triangles, none of which shares a vertex with another."""
    return Surface(surface.vertices[surface.faces].reshape(-1, 3), np.arange(3 * len(surface.faces)).reshape(-1, 3))


def volume(solid) -> float:
    a, b, c = (solid.vertices[solid.faces[:, k]] for k in range(3))
    return float(np.einsum("nk,nk->n", a, np.cross(b, c)).sum() / 6)


def test_it_is_centred_scaled_and_knows_the_way_back(box):
    surface = box((10, 20, 30), (11, 22, 33))
    solid = enclose(surface)
    assert np.linalg.norm(solid.vertices, axis=1).max() == pytest.approx(RADIUS)
    np.testing.assert_allclose(solid.vertices.min(0), -solid.vertices.max(0), atol=1e-12)
    back = solid.vertices @ solid.to_input[:3, :3].T + solid.to_input[:3, 3]
    np.testing.assert_allclose(np.sort(back, axis=0), np.sort(surface.vertices, axis=0), atol=1e-12)
    np.testing.assert_allclose((surface.vertices - solid.center) * solid.scale, solid.vertices, atol=1e-12)


def test_distances_are_exact_and_negative_inside(box):
    solid = enclose(box((-1, -1, -1), (1, 1, 1)))
    half = RADIUS / np.sqrt(3)
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    beyond = np.abs(points) - half
    expected = np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(1), 0)
    np.testing.assert_allclose(solid.distances(points), expected, atol=1e-12)
    np.testing.assert_array_equal(solid.inside(points), expected < 0)
    assert solid.areas.sum() == pytest.approx(6 * (2 * half) ** 2)
    assert len(solid.distances(np.zeros((0, 3)))) == 0


def test_vertices_at_one_place_are_one(ball):
    solid = enclose(soup(ball()))
    assert solid.topology.watertight and len(solid.vertices) == len(ball().vertices) and not solid.notes
    shaken = soup(ball())
    noise = np.random.default_rng(0).uniform(-1e-8, 1e-8, shaken.vertices.shape)
    assert enclose(Surface(shaken.vertices + noise, shaken.faces)).topology.watertight


def test_spot_is_watertight_once_it_is_welded(spot):
    solid = read_solid(spot)
    assert (len(solid.vertices), str(solid.topology)) == (2930, "1 part, watertight, genus 0")
    assert solid.paint is not None and len(solid.paint.images) == 1


def test_holes_are_noted_and_do_not_disturb_the_sign(spot):
    whole = read_solid(spot)
    rng = np.random.default_rng(0)
    holed = enclose(Surface(whole.vertices, np.delete(whole.faces, rng.choice(len(whole.faces), 200, False), 0)))
    assert "it is not watertight (" in holed.notes[0]
    points = rng.uniform(-1, 1, (20000, 3))
    assert (whole.inside(points) == holed.inside(points)).mean() > 0.9999


def test_what_is_inside_out_is_turned_round_and_said(ball):
    surface = ball(paint=True)
    solid = enclose(Surface(surface.vertices, surface.faces[:, ::-1]))
    assert volume(solid) > 0 and solid.notes == ("it was inside out: all faces turned round",)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_single_faces_that_are_turned_round_are_mended_and_said(ball, share):
    surface = ball(paint=True)
    turned = np.random.default_rng(0).random(len(surface.faces)) < share
    order = np.where(turned[:, None], [2, 1, 0], [0, 1, 2])
    mixed = Surface(surface.vertices, np.take_along_axis(surface.faces, order, 1))
    solid = enclose(mixed)
    assert solid.topology.watertight and volume(solid) == pytest.approx(volume(enclose(surface)))
    assert "faces went the other way than those around them" in solid.notes[0]


def test_colours_stay_on_their_faces_whatever_is_mended(ball):
    surface = ball(paint=True)
    rng = np.random.default_rng(0)
    corners = rng.random((len(surface.faces), 3, 3)).astype(np.float32)
    plain = enclose(Surface(surface.vertices, surface.faces, Paint.plain(corners)))
    turned = np.where(rng.random(len(surface.faces))[:, None] < 0.3, [2, 1, 0], [0, 1, 2])
    mixed = Surface(
        surface.vertices,
        np.take_along_axis(surface.faces, turned, 1),
        Paint.plain(np.take_along_axis(corners, turned[:, :, None], 1)),
    )
    mended = enclose(mixed)
    assert "turned round" in mended.notes[0]
    places, faces = plain.surface(rng.random((200, 3)))
    np.testing.assert_allclose(mended.colors(places, faces), plain.colors(places, faces), atol=1e-5)


def test_several_parts_and_a_hollow_are_solids(ball, box):
    small, far = ball(0.4), box((3, 0, 0), (4, 1, 1))
    count = len(ball().vertices)
    hollow = Surface(
        np.concatenate([ball().vertices, small.vertices, far.vertices]),
        np.concatenate([ball().faces, small.faces[:, ::-1] + count, far.faces + 2 * count]),
    )
    solid = enclose(hollow)
    assert solid.topology.parts == 3 and not solid.notes
    at = (np.array([[0.0, 0, 0], [0.7, 0, 0], [2, 0, 0], [3.5, 0.5, 0.5]]) - solid.center) * solid.scale
    assert solid.inside(at).tolist() == [False, True, False, True]


@pytest.mark.parametrize(("factor", "shift"), [(1e9, 1e12), (1e-9, 0), (1e150, 0), (1e-150, 0)])
def test_sizes_and_places_of_any_magnitude(box, factor, shift):
    surface = box()
    solid = enclose(Surface(surface.vertices * factor + shift, surface.faces))
    assert volume(solid) == pytest.approx(volume(enclose(surface)), rel=1e-3) and not solid.notes


REFUSED = {
    "no faces": (lambda s: s.faces[:0], "has no faces"),
    "one triangle": (lambda s: s.faces[:1], "encloses no volume"),
    "one vertex": (lambda s: s.faces * 0, "has all its vertices in one place"),
    "lines": (lambda s: s.faces[:, [0, 1, 1]], "has no face with an area"),
    "both sides": (lambda s: np.concatenate([s.faces, s.faces[:, ::-1]]), "encloses no volume"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_encloses_nothing_is_refused_by_name(box, case):
    faces, said = REFUSED[case]
    with pytest.raises(UsageError, match=f"^a thing {said}"):
        enclose(Surface(box().vertices, faces(box())), "a thing")


def test_flat_and_infinite_meshes_are_refused(ball):
    surface = ball()
    with pytest.raises(UsageError, match="encloses no volume"):
        enclose(Surface(surface.vertices * [1, 1, 0], surface.faces))
    vertices = surface.vertices.copy()
    vertices[7] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        enclose(Surface(vertices, surface.faces))


def test_double_and_empty_faces_are_left_out_and_counted(box):
    faces = np.concatenate([box().faces, box().faces[:2], [[0, 0, 1]]])
    solid = enclose(Surface(box().vertices, faces))
    assert len(solid.faces) == 12 and solid.topology.watertight
    assert solid.notes == ("3 of its 15 faces have no area or are there twice: left out",)


def test_what_lies_inside_of_the_solid_is_noted(ball):
    count = len(ball().vertices)
    nested = Surface(
        np.concatenate([ball().vertices, ball(0.5).vertices]), np.concatenate([ball().faces, ball().faces + count])
    )
    assert "20% of its surface lies inside of the solid" in enclose(nested).notes[0]


def test_points_on_the_surface_are_spread_evenly_over_its_area(box):
    solid = enclose(box((0, 0, 0), (1, 2, 3)))
    places, faces = solid.surface(np.random.default_rng(0).random((60000, 3)))
    assert np.abs(solid.distances(places)).max() < 1e-12
    found = np.bincount(faces, minlength=12) / len(faces)
    np.testing.assert_allclose(found, solid.areas / solid.areas.sum(), atol=0.005)
    weights = barycentric(solid.vertices[solid.faces[faces]], places)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.005)
    rebuilt = np.einsum("nk,nkc->nc", weights, solid.vertices[solid.faces[faces]])
    np.testing.assert_allclose(rebuilt, places, atol=1e-12)


def test_the_fingerprint_is_that_of_shape_and_colours(ball):
    prints = {
        enclose(surface).fingerprint()
        for surface in (ball(), ball(paint=True), ball(rings=12), Surface(*soup_of(ball)))
    }
    assert len(prints) == 4 and enclose(ball()).fingerprint() == enclose(ball()).fingerprint()


def soup_of(ball):
    surface = ball()
    return surface.vertices[:, [1, 2, 0]] * [1, 1, 0.5], surface.faces


def test_our_own_knot_is_watertight_coloured_and_does_not_touch_itself():
    solid = enclose(knot())
    assert str(solid.topology) == "1 part, watertight, genus 1" and not solid.notes
    assert solid.paint is not None and 0.1 < volume(solid) < 0.6
    places, faces = solid.surface(np.random.default_rng(0).random((2000, 3)))
    assert not solid.inside(places + 0.01 * solid.normals[faces]).any()
    assert solid.inside(places - 0.01 * solid.normals[faces]).all()


def test_which_way_is_right_is_decided_by_most_faces_of_each_part(ball):
    count = len(ball().vertices)
    faces = np.concatenate([ball().faces, ball().faces + count])
    first = len(ball().faces)
    faces[first] = faces[first][::-1]  # the first of the second part, from which the others could be turned
    solid = enclose(Surface(np.concatenate([ball().vertices, ball().vertices + 3]), faces))
    assert solid.notes == (f"1 of its {2 * first} faces went the other way than those around them: turned round",)
    assert volume(solid) == pytest.approx(2 * volume(enclose(ball())) * (solid.scale / enclose(ball()).scale) ** 3)
