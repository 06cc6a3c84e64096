#!/usr/bin/env python3
"""What MuJoCo makes of our robots: the reference of tests/physics.rs.

    python3 -m venv ref && ref/bin/pip install mujoco==4.0.0 numpy
    ref/bin/python tests/data/make_mujoco.py

Writes mujoco.json beside this file. A robot's `states` hold random qpos, qvel and ctrl, the frames of its bodies there, and
its accelerations without contacts and limits, which depend on everything else that the model says. `rest` is where a robot
that keeps still comes to lie, with contacts and limits.
"""
import json, pathlib
import mujoco, numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ENVS = HERE.parent.parent / "envs"
ROBOTS = {name: ENVS / f"{name}.xml" for name in ["hopper", "half_cheetah", "walker2d", "ant", "inverted_pendulum"]}
ROBOTS["zoo"] = HERE / "zoo.xml"
STATES, RESTING = 6, {"half_cheetah": 30.0, "ant": 30.0}


def rounded(x):
    return np.asarray(x, float).round(12).tolist()


def inertia(m, body):
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, m.body_iquat[body])
    axes = axes.reshape(3, 3)
    return axes @ np.diag(m.body_inertia[body]) @ axes.T


def compiled(m):
    moving = slice(1, m.nbody)
    return dict(
        qpos0=rounded(m.qpos0),
        body_mass=rounded(m.body_mass), body_ipos=rounded(m.body_ipos[moving]),
        body_inertia=[rounded(inertia(m, b).ravel()) for b in range(1, m.nbody)],
        body_weldid=m.body_weldid.tolist(), body_rootid=m.body_rootid.tolist(),
        jnt_qposadr=m.jnt_qposadr.tolist(), jnt_dofadr=m.jnt_dofadr.tolist(), jnt_limited=m.jnt_limited.tolist(),
        jnt_range=rounded(m.jnt_range), jnt_stiffness=rounded(m.jnt_stiffness[:, 0] if m.jnt_stiffness.ndim > 1 else m.jnt_stiffness),
        jnt_solref=rounded(m.jnt_solref), jnt_solimp=rounded(m.jnt_solimp),
        dof_damping=rounded(m.dof_damping[:, 0] if m.dof_damping.ndim > 1 else m.dof_damping), dof_armature=rounded(m.dof_armature),
        geom_pos=rounded(m.geom_pos), geom_friction=rounded(m.geom_friction), geom_margin=rounded(m.geom_margin),
        geom_gap=rounded(m.geom_gap), geom_solmix=rounded(m.geom_solmix), geom_solref=rounded(m.geom_solref),
        geom_solimp=rounded(m.geom_solimp), geom_condim=m.geom_condim.tolist(), geom_priority=m.geom_priority.tolist(),
        actuator_gear=rounded(m.actuator_gear[:, 0]), actuator_ctrlrange=rounded(m.actuator_ctrlrange),
        actuator_ctrllimited=m.actuator_ctrllimited.tolist(), actuator_joint=m.actuator_trnid[:, 0].tolist(),
    )


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
        out[name] = compiled(m)
        if name in RESTING:
            out[name]["rest"] = rest(m, RESTING[name])
        m.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
        rng = np.random.default_rng(0)
        out[name]["states"] = [state(m, rng) for _ in range(STATES)]
    (HERE / "mujoco.json").write_text(json.dumps(out, separators=(",", ":")).replace('],"', '],\n"') + "\n")


main()
