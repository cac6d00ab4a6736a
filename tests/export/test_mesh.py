"""Meshes as files: each format read back, seen by other rules than ours, and files that are not what they say."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from treadle.cameras.ply import Ply, read_ply, write_ply
from treadle.errors import UsageError
from treadle.export.mesh import ENDINGS, Mesh, read_mesh, write_mesh

MESHES = Path(__file__).parents[3] / "shared" / "data" / "meshes"


@pytest.fixture
def tetrahedron() -> Mesh:
    vertices = np.array([(0, 0, 0), (1 / 3, 0, 0), (0, 1e-5, 0), (0, 0, -12345.678)], np.float32)
    faces = np.array([(0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2)], np.int32)
    return Mesh(vertices, faces, np.array([(0, 1, 2), (10, 128, 200), (253, 254, 255), (7, 7, 7)], np.uint8))


@pytest.mark.parametrize("ending", [*ENDINGS, ".GLB"])
@pytest.mark.parametrize("tinted", [True, False])
def test_every_format_is_read_back(tmp_path: Path, tetrahedron: Mesh, ending: str, tinted: bool) -> None:
    path = tmp_path / f"x{ending}"
    mesh = tetrahedron if tinted else Mesh(tetrahedron.vertices, tetrahedron.faces)
    assert write_mesh(path, mesh, ["a word about it"]) == path.stat().st_size
    assert b"a word about it" in path.read_bytes()
    found = read_mesh(path)
    assert found.vertices.dtype == np.float32 and (found.vertices == mesh.vertices).all()
    assert found.faces.dtype == np.int32 and (found.faces == mesh.faces).all()
    if tinted:
        assert found.colors is not None and found.colors.dtype == np.uint8
        assert (found.colors == mesh.colors).all()
    else:
        assert found.colors is None


def test_a_glb_is_laid_out_as_gltf_demands(tmp_path: Path, tetrahedron: Mesh) -> None:
    write_mesh(tmp_path / "x.glb", tetrahedron)
    content = (tmp_path / "x.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), b"JSON") and size % 4 == 0
    document = json.loads(content[20 : 20 + size])
    binary_size, binary_kind = struct.unpack_from("<I4s", content, 20 + size)
    assert binary_kind == b"BIN\0" and binary_size == len(content) - 28 - size == document["buffers"][0]["byteLength"]
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    place = document["meshes"][0]["primitives"][0]["attributes"]["POSITION"]
    np.testing.assert_allclose(document["accessors"][place]["min"], tetrahedron.vertices.min(0))
    np.testing.assert_allclose(document["accessors"][place]["max"], tetrahedron.vertices.max(0))
    color = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    start = 28 + size + document["bufferViews"][color["bufferView"]]["byteOffset"]
    light = np.frombuffer(content, "<u2", 4, start + 8) / 65535
    np.testing.assert_allclose(
        light, [0.00303527, 0.21586050, 0.57758044, 1], atol=1e-5
    )  # 10, 128, 200 in linear light


def test_an_obj_of_another_program_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.obj"
    path.write_text("# by hand\nmtllib x.mtl\nv 0 0 0\nv 1 0 0 \nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\n"
                    "f 1/1/1 2/1/1 3/1/1 4/1/1\nf -4//1 -3//1 -1//1\n")  # fmt: skip
    mesh = read_mesh(path)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 3]] and mesh.colors is None


@pytest.mark.skipif(not MESHES.is_dir(), reason="the shared meshes are not on this machine")
def test_real_meshes_are_read() -> None:
    for path, faces in ((MESHES / "fandisk.obj", 12946), (next((MESHES / "spot").glob("*.obj")), 5856)):
        mesh = read_mesh(path)
        assert len(mesh.faces) == faces
        a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
        assert float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum()) > 0, "counterclockwise from outside"


def bad(tmp_path: Path, tetrahedron: Mesh, what: str) -> Path:
    kind = what.split()[0]
    path = tmp_path / f"x.{kind}"
    write_mesh(path, tetrahedron)
    content = path.read_bytes()
    changes = {
        "ply cut off": content[:-1],
        "ply empty": b"",
        "glb empty": b"",
        "glb cut off": content[:-1],
        "glb other": b"ply\n" + content,
        "glb without mesh": content.replace(b'"meshes"', b'"meshed"'),
        "glb huge": content.replace(b'"count":12', b'"count":99'),
        "obj empty": b"",
        "obj words": b"v 0 0 zero\n",
        "obj two": b"v 0 0 0\nf 1 1\n",
        "obj without faces": b"v 0 0 0\n",
        "obj beyond": b"v 0 0 0\nf 1 1 2\n",
        "obj nan": b"v 0 0 nan\nf 1 1 1\n",
    }
    path.write_bytes(changes[what])
    return path


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("ply cut off", "is cut off"),
        ("ply empty", "is no PLY file"),
        ("glb empty", "is damaged, or no GLB file"),
        ("glb cut off", "is cut off"),
        ("glb other", "is no GLB file of glTF 2.0"),
        ("glb without mesh", "is damaged, or no GLB file of one mesh"),
        ("glb huge", "is damaged"),
        ("obj empty", "is no OBJ file: it has no vertices"),
        ("obj words", "line 1 is no vertex or face of an OBJ file: 'v 0 0 zero'"),
        ("obj two", "line 2 is no vertex or face"),
        ("obj without faces", "has no faces"),
        ("obj beyond", "a face names a vertex that is not there"),
        ("obj nan", "vertex 0 of 1 has a coordinate that is not finite"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, tetrahedron: Mesh, what: str, said: str) -> None:
    path = bad(tmp_path, tetrahedron, what)
    with pytest.raises(UsageError) as caught:
        read_mesh(path)
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_plys_and_names_are_refused(tmp_path: Path, tetrahedron: Mesh) -> None:
    path = tmp_path / "x.ply"
    write_mesh(path, tetrahedron)
    elements = read_ply(path).elements
    quads = np.zeros(1, [("vertex_indices", "i4", 4)])
    for face, said in [(quads, "expected x, y, z and vertex_indices of three each"), (quads[:0], "is empty")]:
        write_ply(path, Ply({**elements, "face": face}))
        with pytest.raises(UsageError, match=said):
            read_mesh(path)
    for call in (lambda: write_mesh(tmp_path / "x.stl", tetrahedron), lambda: read_mesh(tmp_path / "x.stl")):
        with pytest.raises(UsageError, match=r"a mesh is a file that ends in \.ply or \.obj or \.glb"):
            call()
    with pytest.raises(UsageError, match="the mesh has no faces"):
        write_mesh(path, Mesh(tetrahedron.vertices, tetrahedron.faces[:0]))
    for ending in ENDINGS:
        with pytest.raises(UsageError, match="cannot be written"):
            write_mesh(tmp_path / "no" / f"x{ending}", tetrahedron)
