#!/usr/bin/env python3
"""Measures whether a policy trained in Flipside works in MuJoCo: its return in Flipside and, without retraining, in
Gymnasium's environment.

    benches/peers/run transfer SESSION… [--episodes 100] [--at-least 0.95] [--json FILE]

Each session (a folder that `flipside train --session` made) is measured twice, over the same number of episodes: by
`flipside eval`, and in Gymnasium with MuJoCo as it is shipped. There the file that `flipside export policy` writes
acts by its mean action, clipped to the action space. An episode ends by termination or at Gymnasium's horizon on
both sides. Returns are undiscounted sums of the task's own reward. The ratio is MuJoCo's mean return over
Flipside's. The exit status is 1 if a ratio is below --at-least.

A session that was trained without terminations (as in learning from preferences) is measured without them on both
sides, if Gymnasium's task has that option.
"""
import argparse
import math
import pathlib
import statistics
import sys
import tempfile

import common


def play(env, policy, episodes, seed):
    """(return, length) of each episode. Episode i starts from seed + i."""
    found = []
    for i in range(episodes):
        obs, _ = env.reset(seed=seed + i)
        total, length, ended = 0.0, 0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy.act(obs, env.action_space))
            total, length, ended = total + reward, length + 1, terminated or truncated
        found.append((total, length))
    return found


def transfer(session, flipside, arguments, folder):
    """Measures both sides of one session. Returns a row."""
    gymnasium = common.quiet_gymnasium()
    file = folder / f"{session.name}.safetensors"
    flipside.run("export", "policy", session, "--output", file)
    policy = common.Policy(file)
    ours = flipside.json("eval", session, "--episodes", arguments.episodes, "--seed", arguments.seed, *flipside.precision(["eval"], "f32"))
    words = {} if ours["terminates"] else {"terminate_when_unhealthy": False}
    try:
        env = gymnasium.make(common.TASKS[policy.task], **words)
    except TypeError:
        raise common.Refused(f"{session}: taught without terminations, and Gymnasium's {policy.task} cannot do without; teach it with --reward true")
    if env.observation_space.shape != policy.mean.shape:
        raise common.Refused(f"{session}: observes {policy.mean.size} numbers where Gymnasium's {policy.task} gives {env.observation_space.shape}")
    theirs = play(env, policy, arguments.episodes, arguments.seed)
    returns = [r for r, _ in theirs]
    row = {
        "session": session.name, "task": policy.task, "env_steps": policy.env_steps, "episodes": arguments.episodes, "terminates": ours["terminates"],
        "flipside": {"mean": ours["mean_return"], "std": ours["std_return"], "length": ours["mean_length"], "returns": ours["returns"]},
        "mujoco": {"mean": statistics.fmean(returns), "std": statistics.pstdev(returns), "length": statistics.fmean(n for _, n in theirs), "returns": returns},
    }
    # The ratio is meaningful only for a return above zero.
    row["ratio"] = row["mujoco"]["mean"] / row["flipside"]["mean"] if row["flipside"]["mean"] > 0 else math.nan
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sessions", nargs="+", type=pathlib.Path, metavar="SESSION")
    common.add_common(parser, tasks=None)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1000, help="of the first episode (default: 1000)")
    parser.add_argument("--at-least", type=float, default=0.95, metavar="RATIO", help="share of the return to keep (default: 0.95)")
    arguments = parser.parse_args()

    flipside = common.Flipside(arguments.flipside, arguments.backend)
    about, version = common.machine(), common.versions("mujoco", "gymnasium", "numpy") | {"flipside": flipside.version().split()[-1]}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for session in arguments.sessions:
            try:
                rows.append(transfer(session.absolute(), flipside, arguments, pathlib.Path(folder)))
            except common.Refused as why:
                sys.exit(str(why))
            r = rows[-1]
            print(f"{r['task']}: {r['flipside']['mean']:.1f} in Flipside, {r['mujoco']['mean']:.1f} in MuJoCo", file=sys.stderr)

    print(f"Returns of the mean action over {arguments.episodes} episodes, mean ± σ. {common.machine_line(about, version)}\n")
    side = lambda s: f"{s['mean']:.1f} ± {s['std']:.1f}"
    print(common.table(
        ["task (env steps of training)", "in Flipside", "in Gymnasium with MuJoCo", "mean lengths", "ratio"],
        [[f"{r['task']} ({r['env_steps']:,})", side(r["flipside"]), side(r["mujoco"]), f"{r['flipside']['length']:.0f}, {r['mujoco']['length']:.0f}", f"{r['ratio']:.3f}"]
         for r in rows]))
    common.write_json(arguments.json, {"machine": about, "versions": version, "rows": rows})
    short = [r["task"] for r in rows if not r["ratio"] >= arguments.at_least]
    if short:
        sys.exit(f"\nkept less than {arguments.at_least:.0%} of their return, or had none to keep: {', '.join(short)}")


if __name__ == "__main__":
    main()
