#!/usr/bin/env python3
"""Writes gymnasium.npz: what Gymnasium makes of MuJoCo's states, for tests/conformance.rs.

    pip install gymnasium==1.4.0 mujoco==4.0.0 imageio packaging && python3 make_gymnasium.py

For each task, a few dozen env steps from states met while acting at random: TASK.qpos, .qvel, .ctrl before, .next_qpos, .next_qvel,
.obs, .reward, .terminated after; and what else the task reads of mjData: .frames_before and .frames (xpos and xquat), .cinert, .cvel,
.cfrc_ext, .qfrc_actuator, .qfrc_constraint after the step. After RK4 these are those of the last stage, which is not quite qpos. Half of
the steps end an episode, where the task can end at all.
"""
import os
import gymnasium, mujoco, numpy as np

# Gymnasium's name, and what the task reads.
BODIES = ["cinert", "cvel", "qfrc_actuator", "cfrc_ext"]
TASKS = dict(hopper=("Hopper-v5", []), half_cheetah=("HalfCheetah-v5", []), walker2d=("Walker2d-v5", []), ant=("Ant-v5", ["frames", "cfrc_ext"]),
             inverted_pendulum=("InvertedPendulum-v5", []), inverted_double_pendulum=("InvertedDoublePendulum-v5", ["frames", "qfrc_constraint"]),
             reacher=("Reacher-v5", ["frames"]), pusher=("Pusher-v5", ["frames"]), swimmer=("Swimmer-v5", []),
             humanoid=("Humanoid-v5", ["frames"] + BODIES), humanoid_standup=("HumanoidStandup-v5", BODIES))
ROWS = 32


def derived(data, name):
    return np.hstack([data.xpos, data.xquat]).ravel() if name == "frames" else getattr(data, name).ravel().copy()


def step(env, reads, qpos, qvel, action):
    data = env.data
    mujoco.mj_resetData(env.model, data)
    env.set_state(qpos, qvel)
    row = dict(qpos=qpos, qvel=qvel, ctrl=action)
    if "frames" in reads:
        row["frames_before"] = derived(data, "frames")
    obs, reward, terminated, _, _ = env.step(action)
    row |= dict(next_qpos=data.qpos.copy(), next_qvel=data.qvel.copy(), obs=obs, reward=[reward], terminated=[terminated])
    row |= {name: derived(data, name) for name in reads}
    return {k: np.asarray(v, dtype=np.float64) for k, v in row.items()}


out = {}
for i, (name, (task, reads)) in enumerate(TASKS.items()):
    env, rng = gymnasium.make(task).unwrapped, np.random.default_rng(i)
    rows, count, since = [], [0, 0], 10**9
    ends = name in ("hopper", "walker2d", "ant", "inverted_pendulum", "inverted_double_pendulum", "humanoid")
    wanted = [ROWS // 2, ROWS // 2] if ends else [ROWS, 0]
    while count != wanted:
        if since > 100:
            env.reset(seed=int(rng.integers(2**31)))
            scale, since = rng.choice([0.3, 1.0]), 0
        space = env.action_space
        env.step((scale * rng.uniform(space.low, space.high)).astype(np.float32))
        since += 1
        if rng.random() < 0.1:
            qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
            row = step(env, reads, qpos, qvel, rng.uniform(space.low, space.high).astype(np.float32))
            ended = int(row["terminated"][0])
            if count[ended] < wanted[ended]:
                count[ended] += 1
                rows.append(row)
            since += 1000 * ended * int(rng.random() < 0.3)
    out |= {f"{name}.{k}": np.array([row[k] for row in rows]) for k in rows[0]}
np.savez_compressed(os.path.join(os.path.dirname(os.path.abspath(__file__)), "gymnasium.npz"), **out)
