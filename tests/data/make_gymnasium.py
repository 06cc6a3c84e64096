#!/usr/bin/env python3
"""Writes gymnasium.npz: what Gymnasium makes of MuJoCo's states, for tests/conformance.rs.

    pip install gymnasium==1.4.0 mujoco==4.0.0 imageio packaging && python3 make_gymnasium.py

For each task, a few dozen env steps from states met while acting at random: TASK.qpos, .qvel, .ctrl before, .next_qpos, .next_qvel,
.obs, .reward, .terminated after; and for Ant .torso_x, the torso's x before and after as MuJoCo's xpos has it (after RK4 that of the
last stage, which is not quite qpos). Half of the steps end an episode, where the task can end at all.
"""
import os
import gymnasium, mujoco, numpy as np

TASKS = dict(hopper="Hopper-v5", half_cheetah="HalfCheetah-v5", walker2d="Walker2d-v5", ant="Ant-v5", inverted_pendulum="InvertedPendulum-v5")
ROWS = 32


def step(env, qpos, qvel, action):
    data = env.data
    mujoco.mj_resetData(env.model, data)
    env.set_state(qpos, qvel)
    row = dict(qpos=qpos, qvel=qvel, ctrl=action)
    x = [data.body(1).xpos[0].copy()]
    obs, reward, terminated, _, _ = env.step(action)
    x.append(data.body(1).xpos[0].copy())
    row |= dict(next_qpos=data.qpos.copy(), next_qvel=data.qvel.copy(), obs=obs, reward=[reward], terminated=[terminated], torso_x=x)
    return {k: np.asarray(v, dtype=np.float64) for k, v in row.items()}


out = {}
for i, (name, task) in enumerate(TASKS.items()):
    env, rng = gymnasium.make(task).unwrapped, np.random.default_rng(i)
    rows, count, since = [], [0, 0], 10**9
    wanted = [ROWS, 0] if name == "half_cheetah" else [ROWS // 2, ROWS // 2]
    while count != wanted:
        if since > 100:
            env.reset(seed=int(rng.integers(2**31)))
            scale, since = rng.choice([0.3, 1.0]), 0
        space = env.action_space
        env.step((scale * rng.uniform(space.low, space.high)).astype(np.float32))
        since += 1
        if rng.random() < 0.1:
            qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
            row = step(env, qpos, qvel, rng.uniform(space.low, space.high).astype(np.float32))
            ended = int(row["terminated"][0])
            if count[ended] < wanted[ended]:
                count[ended] += 1
                rows.append(row)
            since += 1000 * ended * int(rng.random() < 0.3)
    keys = [k for k in rows[0] if k != "torso_x" or name == "ant"]
    out |= {f"{name}.{k}": np.array([row[k] for row in rows]) for k in keys}
np.savez(os.path.join(os.path.dirname(os.path.abspath(__file__)), "gymnasium.npz"), **out)
