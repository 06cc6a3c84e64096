#!/usr/bin/env python3
"""Compares the physics with MuJoCo: `flipside rollout` and Gymnasium's environments step the same states under the
same actions.

    benches/peers/run agree [--tasks all] [--precision f64,f32] [--states 200] [--goldens DIR] [--json FILE]

There are two experiments a task. *One step*: one env step from each of many states. The states come from acting at
random and ignoring terminations, so that limits and contacts are active in most of them. *Trajectories*: 64 env
steps under uniform actions from fresh resets. Whatever the model asks for, MuJoCo's constraint solver is Newton at
a tolerance of 1e-14 without warm start. The problem is strictly convex, so the result is its one solution.

An error is |flipside - MuJoCo| / (1 + |MuJoCo|), the largest of a state's numbers. qpos, qvel, obs and reward count
together. Printed for one step: the median, the 99th percentile and the largest error over states, the share of
states within the tolerance (1e-6 in f64, 5e-4 in f32), and the share whose `terminated` is the same. Printed for
trajectories: the largest error along them, and the first step at which any of them exceeds 1e-5 (f64) or 5e-3
(f32).

--goldens DIR reads the states and MuJoCo's answers from files DIR/TASK-v5.npz instead of making them (arrays qpos,
qvel, ctrl, next_qpos, next_qvel, obs, reward, terminated; traj_qpos0, traj_qvel0, traj_ctrl, traj_qpos, …).
"""
import argparse
import pathlib
import tempfile

import numpy as np

import common

ONE_STEP = {"f64": 1e-6, "f32": 5e-4}
ALONG = {"f64": 1e-5, "f32": 5e-3}
PARTS = ("qpos", "qvel", "obs", "reward")


class Reference:
    """Gymnasium's environment, in which MuJoCo solves the constraints as exactly as it can."""

    def __init__(self, task, seed):
        import mujoco
        self.env = common.quiet_gymnasium().make(task).unwrapped
        self.rng = np.random.default_rng(seed)
        o = self.env.model.opt
        o.solver, o.iterations, o.tolerance = mujoco.mjtSolver.mjSOL_NEWTON, 200, 1e-14
        o.ls_iterations, o.ls_tolerance = 200, 1e-6
        o.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART

    def action(self, scale=1.0):
        space = self.env.action_space
        return (scale * self.rng.uniform(space.low, space.high)).astype(np.float32)

    def place(self, qpos, qvel):
        """Sets exactly this state. Nothing of the earlier state is left."""
        import mujoco
        mujoco.mj_resetData(self.env.model, self.env.data)
        self.env.set_state(qpos, qvel)

    def reset(self):
        self.env.reset(seed=int(self.rng.integers(2**31)))
        data = self.env.data
        qpos, qvel = data.qpos.copy(), data.qvel.copy()
        self.place(qpos, qvel)
        return qpos, qvel

    def step(self, action):
        obs, reward, terminated, _, _ = self.env.step(action)
        data = self.env.data
        return {"qpos": data.qpos.copy(), "qvel": data.qvel.copy(), "obs": obs.copy(), "reward": reward, "terminated": terminated}

    def one_steps(self, count):
        """`count` states with an action each, and the results of one env step."""
        data, starts, age = self.env.data, [], 10**9
        while len(starts) < count:
            if age > 150:
                self.reset()
                scale, age = self.rng.choice([0.3, 1.0]), 0
            self.env.step(self.action(scale))
            age += 1
            if not np.isfinite(data.qvel).all() or np.abs(data.qvel).max() > 60:
                age = 10**9
            elif self.rng.random() < 0.12:
                starts.append((data.qpos.copy(), data.qvel.copy(), self.action()))
        ends = []
        for qpos, qvel, action in starts:
            self.place(qpos, qvel)
            ends.append([self.step(action)])
        return experiment([s[0] for s in starts], [s[1] for s in starts], [[s[2]] for s in starts], ends)

    def trajectories(self, count, steps):
        starts, actions, ends = [], [], []
        for _ in range(count):
            starts.append(self.reset())
            actions.append([self.action() for _ in range(steps)])
            ends.append([self.step(a) for a in actions[-1]])
        return experiment([s[0] for s in starts], [s[1] for s in starts], actions, ends)


def experiment(qpos, qvel, ctrl, ends):
    """Arrays of N starts, their actions [N, T, nu] and their results, each [N, T, …]."""
    return {
        "start": {"qpos": np.array(qpos, float), "qvel": np.array(qvel, float), "ctrl": np.array(ctrl, float)},
        "end": {key: np.array([[end[key] for end in row] for row in ends]) for key in (*PARTS, "terminated")},
    }


def from_golden(file):
    """(one step, trajectories) from a file, in the form of `experiment`."""
    g = np.load(file)
    one = {"start": {"qpos": g["qpos"], "qvel": g["qvel"], "ctrl": g["ctrl"][:, None]},
           "end": {key: g[name][:, None] for key, name in zip((*PARTS, "terminated"), ("next_qpos", "next_qvel", "obs", "reward", "terminated"))}}
    many = {"start": {"qpos": g["traj_qpos0"], "qvel": g["traj_qvel0"], "ctrl": g["traj_ctrl"]},
            "end": {key: g[f"traj_{key}"] for key in (*PARTS, "terminated")}}
    return one, many


def replay(flipside, task, start, precision, folder):
    """The results of `flipside rollout` for the same starts and actions."""
    given, made = folder / "in.npz", folder / "out.npz"
    np.savez(given, **start)
    flipside.run("rollout", task, "--backend", flipside.backend, *flipside.precision(["rollout"], precision), "--input", given, "--output", made)
    with np.load(made) as out:
        return {key: out[key] for key in (*PARTS, "terminated")}


def errors(mine, theirs):
    """The largest scaled error of each step, [N, T], over all parts and by part."""
    by_part = {}
    for part in PARTS:
        a, b = (np.asarray(x[part], float) for x in (mine, theirs))
        if part == "reward":
            a, b = a.reshape(theirs["reward"].shape), b
        if a.shape != b.shape:
            raise common.Refused(f"{part} has shape {a.shape} where MuJoCo's has {b.shape}")
        off = np.abs(a - b) / (1 + np.abs(b))
        # A number that is not finite counts as an infinite error.
        by_part[part] = np.where(np.isfinite(off), off, np.inf).reshape(*b.shape[:2], -1).max(axis=2)
    return np.max(list(by_part.values()), axis=0), by_part


def judge(flipside, task, precision, one, many, folder):
    row = {"task": task, "precision": precision}
    mine = replay(flipside, task, one["start"], precision, folder)
    off, by_part = errors(mine, one["end"])
    same = np.asarray(mine["terminated"], bool).reshape(off.shape) == one["end"]["terminated"].astype(bool)
    row |= {
        "states": off.size, "median": float(np.median(off)), "p99": float(np.quantile(off, 0.99)), "max": float(off.max()),
        "within": float((off <= ONE_STEP[precision]).mean()), "terminated_same": float(same.mean()),
        "max_by_part": {part: float(e.max()) for part, e in by_part.items()}, "worst_state": int(off[:, 0].argmax()),
    }
    mine = replay(flipside, task, many["start"], precision, folder)
    off, _ = errors(mine, many["end"])
    leaves = np.flatnonzero((off > ALONG[precision]).any(axis=0))
    row |= {"steps": off.shape[1], "along_max": float(off.max()), "leaves_at": int(leaves[0]) + 1 if leaves.size else None}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_common(parser)
    parser.add_argument("--precision", default="f64,f32", metavar="P,Q", help="f64, f32 or both (default)")
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--trajectories", type=int, default=8)
    parser.add_argument("--steps", type=int, default=64, help="env steps of a trajectory (default: 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--goldens", type=pathlib.Path, metavar="DIR", help="read states and answers from here")
    arguments = parser.parse_args()
    precisions = arguments.precision.split(",")
    if not set(precisions) <= set(ONE_STEP):
        parser.error("a precision is f32 or f64")

    flipside = common.Flipside(arguments.flipside, arguments.backend)
    if not flipside.precision(["rollout"], "f64"):
        print(f"note: `rollout` on {arguments.backend} leaves no choice of precision in this build; its own is held to f32's tolerances")
        precisions = ["f32"]
    version = common.versions("mujoco", "gymnasium", "numpy") | {"flipside": flipside.version().split()[-1]}
    rows, refused = [], []
    with tempfile.TemporaryDirectory() as folder:
        for index, task in enumerate(arguments.tasks):
            if arguments.goldens:
                one, many = from_golden(arguments.goldens / f"{common.TASKS[task]}.npz")
            else:
                reference = Reference(common.TASKS[task], [arguments.seed, index])
                one, many = reference.one_steps(arguments.states), reference.trajectories(arguments.trajectories, arguments.steps)
            for precision in precisions:
                try:
                    rows.append(judge(flipside, task, precision, one, many, pathlib.Path(folder)))
                except common.Refused as why:
                    refused.append(f"{task}: {why}")
                    break

    print(f"\nScaled errors against MuJoCo. {'; '.join(f'{k} {v}' for k, v in version.items())}; backend {arguments.backend}\n")
    head = ["task", "precision", "one step: median", "99 %", "largest", "within tolerance", "`terminated` same", "trajectories: largest", "leaves tolerance at step"]
    print(common.table(head, [
        [r["task"], r["precision"], *(common.small(r[k]) for k in ("median", "p99", "max")), f"{r['within']:.1%}", f"{r['terminated_same']:.1%}",
         common.small(r["along_max"]), r["leaves_at"] or f"none of {r['steps']}"] for r in rows]))
    for why in refused:
        print(f"\n{why}")
    common.write_json(arguments.json, {"versions": version, "rows": rows, "refused": refused})


if __name__ == "__main__":
    main()
