from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from treadle.errors import UsageError
from treadle.fields.sdf.reading import ENDINGS, read_surface

trimesh = pytest.importorskip("trimesh")

CORNERS = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 4]], float)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def written(path: Path, vertices=CORNERS, faces=FACES, **visual) -> Path:
    trimesh.Trimesh(vertices, faces, process=False, **visual).export(path)
    return path


def textured_obj(folder: Path, picture: str = "skin.png") -> Path:
    """A triangle with a red and a blue half, by a texture; named in its .mtl."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4, 0], pixels[:, 4:, 2] = 255, 255
    Image.fromarray(pixels).save(folder / "skin.png")
    (folder / "one.mtl").write_text(f"newmtl skin\nmap_Kd {picture}\n")
    lines = ["mtllib one.mtl", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt .125 .5", "vt .875 .5", "vt .5 .9", "usemtl skin"]
    (folder / "one.obj").write_text("\n".join([*lines, "f 1/1 2/2 3/3"]) + "\n")
    return folder / "one.obj"


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_triangles(ending, tmp_path):
    found = read_surface(written(tmp_path / f"mesh{ending}"))
    expected = np.sort(CORNERS[FACES].reshape(4, -1), axis=0)
    np.testing.assert_allclose(np.sort(found.vertices[found.faces].reshape(4, -1), axis=0), expected, atol=1e-6)
    assert found.vertices.dtype == np.float64 and found.faces.dtype == np.int64


def test_polygons_are_cut_into_triangles(tmp_path):
    path = tmp_path / "square.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\nf -4 -3 -2\n")
    assert len(read_surface(path).faces) == 3


@pytest.mark.parametrize("ending", [".ply", ".glb", ".obj"])
def test_colours_of_vertices_are_read(ending, tmp_path):
    shades = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [90, 90, 90, 255]], np.uint8)
    found = read_surface(written(tmp_path / f"mesh{ending}", vertex_colors=shades))
    where = np.linalg.norm(found.vertices[found.faces] - [2, 0, 0], axis=2) < 1e-6
    faces, corners = np.nonzero(where)
    np.testing.assert_allclose(found.paint.at(faces, np.eye(3)[corners]), [[0, 1, 0]] * 3, atol=0.01)


def test_a_texture_is_looked_up_between_the_corners(tmp_path):
    paint = read_surface(textured_obj(tmp_path)).paint
    left, right, between = paint.at(np.zeros(3, int), np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]]))
    np.testing.assert_allclose([left, right, between], [[1, 0, 0], [0, 0, 1], [0.5, 0, 0.5]], atol=1e-6)


def test_a_texture_that_the_file_does_not_name_is_given_or_lies_beside_it(tmp_path):
    path = textured_obj(tmp_path)
    path.write_text(path.read_text().replace("mtllib one.mtl\n", ""))
    assert not read_surface(path).paint.images
    given = read_surface(path, tmp_path / "skin.png")
    np.testing.assert_allclose(given.paint.at(np.zeros(1, int), np.array([[1.0, 0, 0]])), [[1, 0, 0]])
    (tmp_path / "skin.png").rename(tmp_path / "one_texture.png")
    beside = read_surface(path)
    assert beside.paint.images and "one_texture.png is on it" in beside.notes[0]
    with pytest.raises(UsageError, match="does not say where in a texture"):
        read_surface(written(tmp_path / "plain.ply"), tmp_path / "one_texture.png")


def test_objects_of_a_scene_stand_where_it_says_and_a_mirrored_one_is_not_inside_out(tmp_path):
    scene = trimesh.Scene()
    mesh = trimesh.Trimesh(CORNERS, FACES, process=False)
    scene.add_geometry(mesh, transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    scene.add_geometry(mesh, transform=np.diag([-1.0, 1, 1, 1]))
    scene.export(tmp_path / "scene.glb")
    found = read_surface(tmp_path / "scene.glb")
    assert len(found.faces) == 8
    assert found.vertices[:, 0].min() == pytest.approx(-2) and found.vertices[:, 0].max() == pytest.approx(12)
    a, b, c = (found.vertices[found.faces[:, k]] for k in range(3))
    assert np.einsum("nk,nk->n", a, np.cross(b, c)).sum() / 6 == pytest.approx(2 * 4)  # both volumes are positive


BAD = {
    "empty.obj": b"",
    "words.obj": b"this is a letter\n",
    "points.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\n",
    "absent.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "nan.obj": b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n",
    "text.stl": b"solid nothing\nendsolid nothing\n",
    "noise.stl": bytes(range(256)) * 3,
    "noise.ply": b"ply\n" + bytes(range(256)),
    "noise.glb": b"glTF" + bytes(range(256)),
    "picture.glb": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "lines.ply": b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    b"end_header\n0 0 0\n1 1 1\n",
    "giant.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\nproperty float x\n"
    b"property float y\nproperty float z\nelement face 4000000000\nproperty list uchar int vertex_indices\nend_header\n"
    + bytes(64),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_mesh_is_one_line_that_names_the_file(name, tmp_path):
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(UsageError) as error:
        read_surface(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_cut_off_or_mixed_up_is_named_or_still_a_mesh(ending, tmp_path, capfd):
    shades = np.full((4, 4), 200, np.uint8)
    content = written(tmp_path / f"whole{ending}", vertex_colors=shades).read_bytes()
    rng, refused = np.random.default_rng(0), 0
    damaged = [content[: len(content) * k // 12] for k in range(12)]
    for _ in range(25):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 6):
            changed[place] = rng.integers(0, 256)
        damaged.append(bytes(changed))
    path = tmp_path / f"damaged{ending}"
    for bad in damaged:
        path.write_bytes(bad)
        try:
            found = read_surface(path)
        except UsageError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert np.isfinite(found.vertices[found.faces]).all()
    assert refused >= 8
    assert capfd.readouterr() == ("", "")  # nothing of what trimesh has to say about it is printed


def test_other_files_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a mesh is a file that ends in \.obj, \.ply, \.stl or \.glb"):
        read_surface(tmp_path / "mesh.fbx")
    with pytest.raises(UsageError, match=r"gone\.obj cannot be read"):
        read_surface(tmp_path / "gone.obj")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


def test_a_texture_from_elsewhere_is_not_opened_and_postscript_never_interpreted(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = textured_obj(folder, "../secret.png")
    (folder / "skin.png").rename(tmp_path / "secret.png")
    assert not read_surface(path).paint.images
    path = textured_obj(folder)
    (folder / "skin.png").write_bytes(POSTSCRIPT)
    assert not read_surface(path).paint.images
    path = textured_obj(folder, "http://127.0.0.1:9/skin.png")
    assert not read_surface(path).paint.images


def test_a_glb_with_a_strange_picture_is_refused(tmp_path):
    skin = trimesh.visual.TextureVisuals(uv=np.random.default_rng(0).random((4, 2)), image=Image.new("RGB", (4, 4)))
    content = written(tmp_path / "skin.glb", visual=skin).read_bytes()
    assert read_surface(tmp_path / "skin.glb").paint.images[0].shape == (4, 4, 3)
    size = struct.unpack_from("<I", content, 12)[0]
    document, binary = json.loads(content[20 : 20 + size]), bytearray(content[28 + size :])
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    start = view.get("byteOffset", 0)
    binary[start : start + view["byteLength"]] = POSTSCRIPT.ljust(view["byteLength"])[: view["byteLength"]]
    out = io.BytesIO(content[: 28 + size])
    out.seek(0, 2)
    out.write(binary)
    (tmp_path / "skin.glb").write_bytes(out.getvalue())
    with pytest.raises(UsageError, match=r"skin\.glb: a texture in it is no picture of a known kind"):
        read_surface(tmp_path / "skin.glb")
