#!/usr/bin/env python3
"""What MuJoCo makes of our robots: the reference of tests/physics.

    python3 -m venv ref && ref/bin/pip install mujoco==4.0.0 gymnasium==1.4.0 imageio packaging numpy
    ref/bin/python tests/data/make_mujoco.py

Writes mujoco.json beside this file, and fails if a robot of ours is not Gymnasium's, number for number. Arrays bear MuJoCo's names;
orientations and inertias are written as matrices, which have no sign or order to choose. A robot's `states` hold random qpos, qvel and
ctrl, the frames of its bodies there, and its accelerations without contacts and limits, which depend on everything else that the model
says. `rest` is where a robot that keeps still comes to lie, with contacts and limits.
"""
import json, os, pathlib
import gymnasium, mujoco, numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ENVS = HERE.parent.parent / "envs"
GYMNASIUMS = dict(hopper="hopper", half_cheetah="half_cheetah", walker2d="walker2d_v5", ant="ant", inverted_pendulum="inverted_pendulum",
                  inverted_double_pendulum="inverted_double_pendulum", reacher="reacher", pusher="pusher_v5", swimmer="swimmer",
                  humanoid="humanoid", humanoid_standup="humanoidstandup")
ROBOTS = {name: ENVS / f"{name}.xml" for name in GYMNASIUMS} | {"zoo": HERE / "zoo.xml"}
STATES, RESTING = 6, {"half_cheetah": 30.0, "ant": 30.0}
# How many of geom_size's three numbers a type has; a plane's are about looks.
SIZES = {int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")): count
         for name, count in dict(PLANE=0, SPHERE=1, CAPSULE=2, CYLINDER=2, BOX=3).items()}


def rounded(x):
    """To twelve digits behind the point, or to twelve digits where the number is smaller."""
    if isinstance(x, (list, np.ndarray)):
        return [rounded(row) for row in x]
    return float(f"{x:.11e}") if abs(x) < 0.1 else round(float(x), 12)


def matrix(quat):
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, quat)
    return out


def inertia(m, body):
    axes = matrix(m.body_iquat[body]).reshape(3, 3)
    return (axes @ np.diag(m.body_inertia[body]) @ axes.T).ravel()


def first(array):
    """The linear coefficient of what newer versions let be a polynomial."""
    return array[:, 0] if array.ndim > 1 else array


def compiled(m):
    moving = slice(1, m.nbody)
    sizes = [m.geom_size[g][:SIZES[m.geom_type[g]]] for g in range(m.ngeom)]
    whole = dict(
        nq=m.nq, nv=m.nv, nu=m.nu, nbody=m.nbody, opt_integrator=m.opt.integrator, opt_solver=m.opt.solver,
        opt_iterations=m.opt.iterations, body_parentid=m.body_parentid, body_weldid=m.body_weldid, body_rootid=m.body_rootid,
        jnt_type=m.jnt_type, jnt_bodyid=m.jnt_bodyid, jnt_qposadr=m.jnt_qposadr, jnt_dofadr=m.jnt_dofadr, jnt_limited=m.jnt_limited,
        geom_type=m.geom_type, geom_bodyid=m.geom_bodyid, geom_contype=m.geom_contype, geom_conaffinity=m.geom_conaffinity,
        geom_condim=m.geom_condim, geom_priority=m.geom_priority, site_bodyid=m.site_bodyid,
        actuator_ctrllimited=m.actuator_ctrllimited, actuator_joint=m.actuator_trnid[:, 0],
    )
    real = dict(
        opt_timestep=m.opt.timestep, opt_gravity=m.opt.gravity, opt_density=m.opt.density, opt_viscosity=m.opt.viscosity,
        opt_impratio=m.opt.impratio, opt_tolerance=m.opt.tolerance,
        qpos0=m.qpos0, qpos_spring=m.qpos_spring,
        body_pos=m.body_pos, body_mat=[matrix(q) for q in m.body_quat], body_mass=m.body_mass, body_ipos=m.body_ipos[moving],
        body_inertia=[inertia(m, b) for b in range(1, m.nbody)], body_invweight0=m.body_invweight0,
        jnt_pos=m.jnt_pos, jnt_axis=m.jnt_axis, jnt_range=m.jnt_range, jnt_stiffness=first(m.jnt_stiffness), jnt_margin=m.jnt_margin,
        jnt_solref=m.jnt_solref, jnt_solimp=m.jnt_solimp,
        dof_damping=first(m.dof_damping), dof_armature=m.dof_armature, dof_frictionloss=m.dof_frictionloss, dof_invweight0=m.dof_invweight0,
        geom_size=sizes, geom_pos=m.geom_pos, geom_mat=[matrix(q) for q in m.geom_quat], geom_friction=m.geom_friction,
        geom_margin=m.geom_margin, geom_gap=m.geom_gap, geom_solmix=m.geom_solmix, geom_solref=m.geom_solref, geom_solimp=m.geom_solimp,
        site_pos=m.site_pos, actuator_gear=m.actuator_gear[:, 0], actuator_ctrlrange=m.actuator_ctrlrange,
    )
    return {k: np.asarray(v).tolist() for k, v in whole.items()} | {k: rounded(v) for k, v in real.items()}


def meet(m, i, j):
    return bool((m.geom_contype[i] & m.geom_conaffinity[j]) | (m.geom_contype[j] & m.geom_conaffinity[i]))


def geoms_that_count(m):
    """All but those of the world that touch nothing, which are there to be looked at; by body, size and place, as the order may differ."""
    counts = lambda i: m.geom_bodyid[i] != 0 or any(meet(m, i, j) for j in range(m.ngeom))
    return sorted(filter(counts, range(m.ngeom)), key=lambda i: (m.geom_bodyid[i], *m.geom_size[i].round(9), *m.geom_pos[i].round(9)))


def flat(x):
    return [number for row in x for number in flat(row)] if isinstance(x, list) else [x]


def is_gymnasiums(name, ours):
    """Ours and theirs compile to the same arrays. Which geoms meet counts, not by which masks; and sites only where a task reads one."""
    folder = pathlib.Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    theirs = mujoco.MjModel.from_xml_path(str(folder / f"{GYMNASIUMS[name]}.xml"))
    arrays = []
    for m in (ours, theirs):
        a, chosen = compiled(m), geoms_that_count(m)
        a |= {key: [a[key][i] for i in chosen] for key in a if key.startswith("geom_")}
        a["meeting"] = [meet(m, i, j) for i in chosen for j in chosen]
        arrays.append(a)
    skipped = {"geom_contype", "geom_conaffinity"} | ({"site_pos", "site_bodyid"} if name != "inverted_double_pendulum" else set())
    for key in arrays[0].keys() - skipped:
        x, y = (np.array(flat(a[key]), float) for a in arrays)
        assert x.shape == y.shape and np.allclose(x, y, rtol=1e-9, atol=1e-12), f"{name}: {key} is {x}, and Gymnasium's {y}"


def state(m, rng):
    d = mujoco.MjData(m)
    d.qvel = rng.normal(0, 2, m.nv)
    mujoco.mj_integratePos(m, d.qpos, rng.normal(0, 0.5, m.nv), 1.0)
    d.ctrl = rng.uniform(-1, 1, m.nu)
    mujoco.mj_forward(m, d)
    frames = np.hstack([d.xpos, d.xquat])
    return dict(qpos=rounded(d.qpos), qvel=rounded(d.qvel), ctrl=rounded(d.ctrl), frames=[rounded(f) for f in frames],
                qacc=rounded(d.qacc))


def rest(m, seconds):
    d = mujoco.MjData(m)
    while d.time < seconds:
        mujoco.mj_step(m, d)
    return rounded(d.qpos)


def main():
    out = {}
    for name, path in ROBOTS.items():
        m = mujoco.MjModel.from_xml_path(str(path))
        if name in GYMNASIUMS:
            is_gymnasiums(name, m)
        out[name] = compiled(m)
        if name in RESTING:
            out[name]["rest"] = rest(m, RESTING[name])
        m.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
        rng = np.random.default_rng(0)
        out[name]["states"] = [state(m, rng) for _ in range(STATES)]
    (HERE / "mujoco.json").write_text(json.dumps(out, separators=(",", ":")).replace('],"', '],\n"') + "\n")


main()
