#!/usr/bin/env python3
"""What MuJoCo makes of tests/data/meshes/meshes.xml: the reference of tests/physics/meshes.rs.

    python3 -m venv ref && ref/bin/pip install mujoco==4.0.0 numpy
    ref/bin/python tests/data/make_meshes.py

Writes meshes.json beside this file, and before that the two binary files that the robot names: meshes/bracket.stl, an angle bracket, and
meshes/hills.png. Arrays bear MuJoCo's names; inertias are written as matrices, and a mesh's vertices in its body's frame, which have no
sign or order of axes to choose. `rest` is where the centres of mass of the bodies over the floor come to lie; those over the terraces
rest at heights that the file gives.
"""
import json, pathlib, struct, zlib
import mujoco, numpy as np

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE / "meshes"
OUTLINE = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 2), (0, 2)]
HILLS = [[40, 40, 120, 120, 200], [40, 40, 120, 120, 200], [90, 90, 20, 20, 250]]


def bracket():
    vertices = [(x, y, z) for z in (0, .5) for x, y in OUTLINE]
    bottom = [(0, k + 1, k) for k in range(1, 5)]
    faces = bottom + [(a + 6, c + 6, b + 6) for a, b, c in bottom]
    for i in range(6):
        j = (i + 1) % 6
        faces += [(i, j, j + 6), (i, j + 6, i + 6)]
    return vertices, faces


def write_stl(path):
    vertices, faces = bracket()
    triangle = lambda face: bytes(12) + b"".join(struct.pack("<3f", *vertices[i]) for i in face) + bytes(2)
    path.write_bytes(bytes(80) + struct.pack("<I", len(faces)) + b"".join(map(triangle, faces)))


def write_png(path):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", len(HILLS[0]), len(HILLS), 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(row) for row in HILLS))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def turned(quat, vectors):
    mat = np.zeros(9)
    mujoco.mju_quat2Mat(mat, quat)
    return vectors @ mat.reshape(3, 3).T


def inertia(m, body):
    axes = turned(m.body_iquat[body], np.eye(3)).T
    return (axes @ np.diag(m.body_inertia[body]) @ axes.T).ravel()


def vertices(m, geom):
    """Of the geom's mesh, in the frame of its body."""
    mesh = m.geom_dataid[geom]
    own = m.mesh_vert[m.mesh_vertadr[mesh]:][:m.mesh_vertnum[mesh]].astype(float)
    return m.geom_pos[geom] + turned(m.geom_quat[geom], own)


def main():
    write_stl(FOLDER / "bracket.stl")
    write_png(FOLDER / "hills.png")
    m = mujoco.MjModel.from_xml_path(str(FOLDER / "meshes.xml"))
    is_mesh = m.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    out = dict(
        body_mass=m.body_mass, body_ipos=m.body_ipos[1:], body_inertia=[inertia(m, b) for b in range(1, m.nbody)],
        geom_pos=m.geom_pos, hfield_size=m.hfield_size, hfield_nrow=m.hfield_nrow, hfield_ncol=m.hfield_ncol,
        hfield_data=m.hfield_data, vertices=[vertices(m, g).ravel() for g in np.flatnonzero(is_mesh)],
    )
    d = mujoco.MjData(m)
    while d.time < 6:
        mujoco.mj_step(m, d)
    floor = range(1, 6)
    assert abs(d.qvel[:6 * len(floor)]).max() < 1e-6, "something still moves"
    out |= dict(rest=d.xipos[floor])
    plain = {key: [np.asarray(row).round(12).tolist() for row in value] for key, value in out.items()}
    (HERE / "meshes.json").write_text(json.dumps(plain, separators=(",", ":")).replace('],"', '],\n"') + "\n")


main()
