#!/usr/bin/env python3
"""Writes NAME.npz for every task of envs/ that mirrors one of Gymnasium's: what MuJoCo and Gymnasium compute, for tests/golden.

    python3 -m venv ref && ref/bin/pip install mujoco==4.0.0 gymnasium==1.4.0 imageio packaging numpy
    ref/bin/python tests/data/golden/make_golden.py

float64 throughout; S = 104 states, K = 3 trajectories of T = 64 env steps.

  qpos [S,nq]  qvel [S,nv]  ctrl [S,nu]    a state met while acting at random, and the action held for one env step. In 88 of them a limit
                                           or a contact pushes, in 16 nothing does.
  M [S,nv,nv]  bias  passive  actuator  qacc_smooth  constraint  qacc [S,nv]      mj_forward there
  ncon [S]                                 contacts there, closer than their margin
  next_qpos  next_qvel  obs  reward  terminated         one env step later, as Gymnasium's step has it
  start_qpos [K,nq]  start_qvel            a fresh reset; then row [k,t] is what step t, with actions uniform in their space, led to:
  traj_ctrl  traj_qpos  traj_qvel  traj_obs  traj_reward  traj_terminated [K,T,…]

MuJoCo's solver is set to Newton at a tight tolerance without warm start, whatever the model asks for. The problem is strictly convex, so
this is its one solution; what a solver that stops earlier leaves is no reference. For the same reason the iteration that finds where a
capsule touches a cylinder goes on to 1e-12.
"""
import pathlib, sys
import gymnasium, mujoco, numpy as np

TASKS = dict(inverted_pendulum="InvertedPendulum-v5", inverted_double_pendulum="InvertedDoublePendulum-v5", reacher="Reacher-v5",
             pusher="Pusher-v5", swimmer="Swimmer-v5", hopper="Hopper-v5", half_cheetah="HalfCheetah-v5", walker2d="Walker2d-v5", ant="Ant-v5",
             humanoid="Humanoid-v5", humanoid_standup="HumanoidStandup-v5")
PUSHED, FREE, TRAJECTORIES, STEPS = 88, 16, 3, 64
# Faster than this (m/s, rad/s) a robot is beyond what it was made for.
FASTEST = 60
FORK = 0.02  # the radius of Pusher's fork, metres
PUCK = 0.05  # and of its puck, which is as far from its middle to its top


def make(task):
    env = gymnasium.make(task).unwrapped
    o = env.model.opt
    o.solver, o.iterations, o.tolerance, o.ls_iterations, o.ls_tolerance = mujoco.mjtSolver.mjSOL_NEWTON, 200, 1e-14, 200, 1e-6
    o.ccd_tolerance, o.ccd_iterations = 1e-12, 1000
    o.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    return env


def action(env, rng, scale=1.0):
    """Single precision, as actions are, in double: so that Gymnasium sums their squares in double, too."""
    s = env.action_space
    return (scale * rng.uniform(s.low, s.high)).astype(np.float32).astype(float)


def put(env, qpos, qvel):
    mujoco.mj_resetData(env.model, env.data)
    env.set_state(qpos, qvel)


def lay_puck(env, rng):
    """Pusher's puck would lie beside the fork once in a thousand resets: moves the arm until a prong is beside where the puck can be, and
    lays the puck against it."""
    m, d = env.model, env.data
    prongs = [g for g in range(m.ngeom) if m.geom_contype[g] and m.geom_conaffinity[g] and m.geom_bodyid[g]]
    table = m.geom_pos[0, 2]
    while True:
        qpos = d.qpos.copy()
        low, high = m.jnt_range[:7].T
        qpos[:7] = rng.uniform(low, high)
        put(env, qpos, 0.5 * rng.standard_normal(m.nv) * (np.arange(m.nv) < 7))
        g = rng.choice(prongs)
        axis, half = d.geom_xmat[g].reshape(3, 3)[:, 2], m.geom_size[g, 1]
        point = d.geom_xpos[g] + rng.uniform(-1, 1) * half * axis
        lowest = min(d.geom_xpos[p][2] - abs(d.geom_xmat[p].reshape(3, 3)[2, 2]) * m.geom_size[p, 1] for p in prongs) - FORK
        if lowest < table or not table + 0.02 < point[2] < table + 2 * PUCK:
            continue
        # Beside the prong, seen from above, with room for a push or a little overlap.
        side = np.array([-axis[1], axis[0]]) * rng.choice([-1, 1])
        if np.linalg.norm(side) < 0.3:
            continue
        place = point[:2] + side / np.linalg.norm(side) * (FORK / np.linalg.norm(side) + PUCK + rng.uniform(-0.002, 0.004))
        # The puck's slides are y, then x, about where its body is drawn.
        body = m.body("object")
        qpos[7:9] = place[1] - body.pos[1], place[0] - body.pos[0]
        put(env, qpos, d.qvel.copy())
        mujoco.mj_forward(m, d)
        # The rest of the fork may have come to lie in it.
        if deepest(d) > -0.003:
            return


def deepest(d):
    return min((d.contact[c].dist for c in range(d.ncon)), default=0.0)


def states(env, name, rng):
    """Rollouts, half of which go on when they terminate, started anew every 150 steps, sampled every few steps."""
    m, d = env.model, env.data
    kept, t = {True: [], False: []}, 10**9
    wanted = {True: PUSHED, False: FREE}
    while any(len(kept[k]) < wanted[k] for k in kept):
        if t > (8 if name == "pusher" else 150):
            env.reset(seed=int(rng.integers(2**31)))
            scale, t, stops = rng.choice([0.3, 1.0]), 0, rng.random() < 0.5
            if name == "pusher" and rng.random() < 0.9:
                lay_puck(env, rng)
        terminated = env.step(action(env, rng, scale))[2]
        t += 1
        if not np.all(np.isfinite(d.qvel)) or np.abs(d.qvel).max() > FASTEST or (terminated and stops):
            t = 10**9
        elif name == "pusher" and deepest(d) < -0.01:
            t = 10**9  # the fork came down through the top of the puck, which cannot give way downwards
        elif rng.random() < (0.4 if name == "pusher" else 0.12):
            qpos, qvel, held = d.qpos.copy(), d.qvel.copy(), action(env, rng)
            put(env, qpos, qvel)
            d.ctrl[:] = held
            mujoco.mj_forward(m, d)
            pushes = np.abs(d.qfrc_constraint)
            # Pusher's contacts are those with the puck; the arm's limits push often enough.
            pushed = bool(np.any((pushes[7:9] if name == "pusher" and len(kept[True]) < PUSHED - 16 else pushes) > 1e-9))
            if len(kept[pushed]) < wanted[pushed] and (pushed or not np.any(pushes > 1e-9)):
                kept[pushed].append((qpos, qvel, held))
    return kept[True] + kept[False]


def stages(env, qpos, qvel, a):
    m, d = env.model, env.data
    put(env, qpos, qvel)
    d.ctrl[:] = a
    mujoco.mj_forward(m, d)
    full = np.zeros((m.nv, m.nv))
    mujoco.mj_fullM(m, d, full)
    row = dict(qpos=qpos, qvel=qvel, ctrl=a, M=full, bias=d.qfrc_bias.copy(), passive=d.qfrc_passive.copy(), actuator=d.qfrc_actuator.copy(),
               qacc_smooth=d.qacc_smooth.copy(), constraint=d.qfrc_constraint.copy(), qacc=d.qacc.copy(), ncon=d.ncon)
    put(env, qpos, qvel)
    obs, reward, terminated, _, _ = env.step(a)
    return row | dict(next_qpos=d.qpos.copy(), next_qvel=d.qvel.copy(), obs=obs.copy(), reward=reward, terminated=terminated)


def trajectory(env, rng):
    env.reset(seed=int(rng.integers(2**31)))
    d = env.data
    start = dict(start_qpos=d.qpos.copy(), start_qvel=d.qvel.copy())
    put(env, *start.values())
    rows = []
    for _ in range(STEPS):
        a = action(env, rng)
        obs, reward, terminated, _, _ = env.step(a)
        rows.append(dict(ctrl=a, qpos=d.qpos.copy(), qvel=d.qvel.copy(), obs=obs.copy(), reward=reward, terminated=terminated))
    return start | {f"traj_{k}": np.array([r[k] for r in rows]) for k in rows[0]}


for i, (name, task) in enumerate(TASKS.items()):
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    env, rng = make(task), np.random.default_rng(i)
    one = [stages(env, *state) for state in states(env, name, rng)]
    many = [trajectory(env, rng) for _ in range(TRAJECTORIES)]
    data = {k: np.array([r[k] for r in rows], dtype=float) for rows in (one, many) for k in rows[0]}
    np.savez_compressed(pathlib.Path(__file__).parent / f"{name}.npz", **data)
    print(f"{name:26s} contacts in {np.mean(data['ncon'] > 0):.0%} of the states, up to {data['ncon'].max():.0f}; {data['terminated'].mean():.0%} terminate")
