#!/usr/bin/env python3
"""Measures PPO, learning included: env steps a second of Stable-Baselines3 and of `flipside bench ppo`, on all cores.

    benches/peers/run ppo_speed [--tasks hopper] [--repeats 5] [--json FILE]

Stable-Baselines3 runs its PPO with MlpPolicy (two layers of 64, tanh) on the CPU, on Gymnasium's environment with
MuJoCo. Several configurations are tried briefly:

* its defaults: one environment, 2048 steps an update, 10 epochs, batches of 64;
* the same samples, epochs and batches from 4 or 8 environments, stepped in turn;
* 32 environments of 64 steps and batches of 256: as many samples and gradient steps an update as Flipside's
  defaults;
* 4 environments in 4 processes.

Each is tried with one and with two threads for PyTorch. Then three sides are measured in turn: the defaults, the
fastest configuration, and Flipside with its settings for the task. A figure counts env steps over the time for
collecting and learning together, after a warm-up of at least one update. It is the median of the repeats. A ratio
is the median of the paired ratios.
"""
import argparse
import math
import time
import warnings

import common

# (name, environments, steps of each per update, batch, whether each environment has its own process)
WAYS = [
    ("defaults: 1 env × 2048, batches of 64", 1, 2048, 64, False),
    ("4 envs × 512, batches of 64", 4, 512, 64, False),
    ("8 envs × 256, batches of 64", 8, 256, 64, False),
    ("32 envs × 64, batches of 256", 32, 64, 256, False),
    ("4 envs × 512, batches of 64, 4 processes", 4, 512, 64, True),
]


class Learner:
    """One configuration of Stable-Baselines3, warmed up and ready to continue learning."""

    def __init__(self, task, way, seed):
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
        name, envs, steps, batch, processes = way
        self.name, self.update = name, envs * steps
        kind = SubprocVecEnv if processes else DummyVecEnv
        self.env = make_vec_env(task, n_envs=envs, seed=seed, vec_env_cls=kind)
        self.model = PPO("MlpPolicy", self.env, n_steps=steps, batch_size=batch, device="cpu", seed=seed)
        # After one update everything is allocated and the policy has learned once.
        self.model.learn(self.update)

    def rate(self, seconds):
        """Env steps a second over whole updates that take at least `seconds` together."""
        started, before = time.perf_counter(), self.model.num_timesteps
        while (passed := time.perf_counter() - started) < seconds:
            self.model.learn(self.update, reset_num_timesteps=False)
        return (self.model.num_timesteps - before) / passed

    def close(self):
        self.env.close()


def try_all(task, arguments):
    """(configuration, PyTorch's threads, env steps a second) of a short trial of each configuration."""
    import torch
    tried = []
    for way in WAYS:
        learner = Learner(common.TASKS[task], way, arguments.seed)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tried.append((way, threads, learner.rate(arguments.try_seconds)))
        learner.close()
    return tried


def measure(task, flipside, arguments):
    import torch
    tried = try_all(task, arguments)
    print(f"\n{task}, Stable-Baselines3, a trial of each way:\n")
    print(common.table(["way", "PyTorch's threads", "env steps a second"], [[way[0], threads, common.rate(value)] for way, threads, value in tried]), flush=True)
    best = {"defaults": max(tried[:2], key=lambda t: t[2]), "fastest": max(tried, key=lambda t: t[2])}
    learners = {side: (Learner(common.TASKS[task], way, arguments.seed), threads) for side, (way, threads, _) in best.items()}
    row = {"task": task, "refused": None, "which": {side: {"way": way[0], "torch_threads": threads} for side, (way, threads, _) in best.items()},
           "tried": [{"way": way[0], "torch_threads": threads, "env_steps_per_s": value} for way, threads, value in tried]}

    words = ["bench", "ppo", "--backend", flipside.backend, "--task", task, "--seconds", arguments.seconds]
    words += ["--threads", arguments.threads] if arguments.threads else []
    words += flipside.precision(["bench", "ppo"], "f32")

    def rate_of(side):
        if side in learners:
            learner, threads = learners[side]
            torch.set_num_threads(threads)
            return learner.rate(arguments.seconds)
        if row["refused"]:
            return None
        try:
            result = flipside.json(*words)
        except common.Refused as why:
            row["refused"] = str(why)
            return None
        row["flipside_worlds"], row["flipside_threads"] = result["worlds"], result["threads"]
        return result["env_steps_per_s"]

    sides, rates = ["defaults", "flipside", "fastest"], {"defaults": [], "flipside": [], "fastest": []}
    for i in range(arguments.repeats):
        for side in sides if i % 2 == 0 else reversed(sides):
            rates[side].append(rate_of(side))
    for learner, _ in learners.values():
        learner.close()
    row["all"], row["median"], row["ratio"] = rates, {}, {}
    for side in sides:
        row["median"][side] = None if row["refused"] and side == "flipside" else common.median(rates[side])
    if not row["refused"]:
        for side in learners:
            ratios = [a / b for a, b in zip(rates["flipside"], rates[side])]
            row["ratio"][side] = {"median": common.median(ratios), "range": [min(ratios), max(ratios)]}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_common(parser, tasks="hopper")
    parser.add_argument("--threads", type=int, help="flipside's threads (default: all cores)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement (default: 4)")
    parser.add_argument("--try-seconds", type=float, default=2.0, help="length of a trial of each way (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not all(math.isfinite(x) and x > 0 for x in (arguments.seconds, arguments.try_seconds)):
        parser.error("lengths of time are positive numbers of seconds")

    common.quiet_gymnasium()
    warnings.filterwarnings("ignore", module="stable_baselines3")
    flipside = common.Flipside(arguments.flipside, arguments.backend)
    about, version = common.machine(), common.versions("stable-baselines3", "torch", "mujoco", "gymnasium") | {"flipside": flipside.version().split()[-1]}
    rows = [measure(task, flipside, arguments) for task in arguments.tasks]

    print(f"\nEnv steps a second, learning included. {common.machine_line(about, version)}; flipside's backend {arguments.backend}\n")
    body = []
    for r in rows:
        for side in ("defaults", "fastest"):
            ratio = r["ratio"].get(side)
            which = r["which"][side]
            body.append([r["task"], f"{which['way']}; {which['torch_threads']} PyTorch threads", common.rate(r["median"][side]), common.rate(r["median"]["flipside"]),
                         "–" if ratio is None else f"{common.times(ratio['median'])} ({ratio['range'][0]:.1f}–{ratio['range'][1]:.1f})"])
    print(common.table(["task", "Stable-Baselines3", "its env steps/s", "flipside's", "ratio (range)"], body))
    for r in rows:
        if r["refused"]:
            print(f"\n{r['task']}: flipside did not run: {r['refused']}")
    common.write_json(arguments.json, {"machine": about, "versions": version, "backend": arguments.backend, "rows": rows})


if __name__ == "__main__":
    main()
