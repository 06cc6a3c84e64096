#!/usr/bin/env python3
"""Measures the physics: env steps a second of Flipside's lanes and of mujoco.rollout on one core, and of EnvPool on
two threads.

    benches/peers/run speed [--tasks hopper,ant] [--sessions SESSION…] [--repeats 5] [--json FILE]

What is compared, and why it is fair:

* The work. MuJoCo does exactly the env steps of Gymnasium's own episodes. Gymnasium plays them once, untimed:
  actions are uniform in the action space, or a policy's mean actions, and each is held for the frame skip. Episodes
  end by termination or at the horizon, and Gymnasium resets them. The state and the warm start before every env
  step are recorded. mujoco.rollout then replays all steps on one thread, each from its own start, and must end in
  exactly Gymnasium's bits. So resets cost MuJoCo nothing, and it does no step that an episode would not have.
  (Replaying whole episodes in one call was at most 2 % faster.) Flipside plays episodes live: its figure includes
  resets, observations, rewards and terminations. Choosing actions is timed on neither side. MuJoCo computes one
  world after another, so their number does not matter there. Flipside has 64.
* The model. It is Gymnasium's, with its integrator, frame skip, solver and tolerances, contacts active, in double
  precision. Flipside has its own copy of the same robot and solves in single precision. The residual beside each
  figure is the distance of the accelerations from the optimum of the constraint problem, |M a - f - J'force(a)| /
  (1 + |f|) in double precision, the worst of 64 states.
* The clock. The sides run alternately, and who goes first alternates too. Warm-up is not timed on either side. A
  figure is the median of the repeats. A ratio is the median of the paired ratios, with their range.
* EnvPool steps 64 robots on two threads. It is tried once waiting for all of them and once for half at a time, and
  the faster way counts. A reset takes EnvPool a step of its own, which is not counted as an env step. Flipside on
  two threads runs alternately with it.
"""
import argparse
import pathlib
import tempfile
import time

import numpy as np

import common

WORLDS = 64
STATES_FOR_RESIDUAL = 64


class Recording:
    """`count` env steps of Gymnasium's own episodes: states before, warm starts, controls and states after."""

    def __init__(self, env, count, policy, seed):
        import mujoco
        self.model, self.skip = env.unwrapped.model, env.unwrapped.frame_skip
        m, space = self.model, env.action_space
        self.kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
        size = mujoco.mj_stateSize(m, self.kind)
        self.before, self.after = np.zeros((count, size)), np.zeros((count, size))
        self.warm, ctrl = np.zeros((count, m.nv)), np.zeros((count, m.nu))
        self.episodes, contacts = 0, 0
        rng = np.random.default_rng(seed)
        data, ended = env.unwrapped.data, True
        for i in range(count):
            if ended:
                obs, _ = env.reset(seed=int(rng.integers(2**31)))
                self.episodes += 1
            action = policy.act(obs, space) if policy else rng.uniform(space.low, space.high).astype(np.float32)
            mujoco.mj_getState(m, data, self.before[i], self.kind)
            self.warm[i], ctrl[i] = data.qacc_warmstart, action
            obs, _, terminated, truncated, _ = env.step(action)
            mujoco.mj_getState(m, data, self.after[i], self.kind)
            contacts += data.ncon > 0
            ended = terminated or truncated
        self.count, self.touching = count, contacts / count
        self.ctrl = np.repeat(ctrl[:, None, :], self.skip, axis=1).copy()
        self.data = [mujoco.MjData(m)]
        self.out = np.zeros((count, self.skip, size))
        self.sensors = np.zeros((count, self.skip, m.nsensordata))

    def replay(self, pool):
        """Replays all env steps with mujoco.rollout on the calling thread."""
        pool.rollout(self.model, self.data, self.before, self.ctrl, initial_warmstart=self.warm, state=self.out, sensordata=self.sensors)

    def check(self):
        """Checks that the replay equals Gymnasium's steps, bit for bit."""
        if not np.array_equal(self.out[:, -1], self.after):
            raise SystemExit("mujoco.rollout did not replay what Gymnasium did; the comparison would be void")

    def residual(self):
        """MuJoCo's own distance from the optimum, the worst over a sample of the recorded states."""
        import mujoco
        m, d, worst = self.model, self.data[0], 0.0
        assert not m.dof_frictionloss.any() and m.neq == 0, "only limits and contacts with pyramids are covered"
        for i in np.linspace(0, self.count - 1, STATES_FOR_RESIDUAL).astype(int):
            mujoco.mj_resetData(m, d)
            mujoco.mj_setState(m, d, self.before[i], self.kind)
            d.qacc_warmstart[:], d.ctrl[:] = self.warm[i], self.ctrl[i, 0]
            mujoco.mj_forward(m, d)
            smooth = d.qfrc_passive - d.qfrc_bias + d.qfrc_actuator
            off = np.zeros(m.nv)
            mujoco.mj_mulM(m, d, off, d.qacc)
            off -= smooth
            if d.nefc:
                row, force = np.zeros(d.nefc), np.zeros(m.nv)
                mujoco.mj_mulJacVec(m, d, row, d.qacc)
                mujoco.mj_mulJacTVec(m, d, force, -d.efc_D * np.minimum(0.0, row - d.efc_aref))
                off -= force
            worst = max(worst, np.linalg.norm(off) / (1 + np.linalg.norm(smooth)))
        return worst


def rate_of(work, seconds):
    """Units of work a second. `work()` returns how many it did and is called until `seconds` have passed."""
    done, started = 0, time.perf_counter()
    while True:
        done += work()
        passed = time.perf_counter() - started
        if passed >= seconds:
            return done / passed


def flipside_rate(flipside, task, threads, seconds, session):
    """Flipside's own measurement: a warm-up, then the median of five windows."""
    verb = ["bench", "physics"]
    if session and not flipside.knows(verb, "--session"):
        raise common.Refused("this build's `bench physics` has no --session")
    who = ["--session", session] if session else ["--task", task]
    return flipside.json(*verb, "--backend", flipside.backend, *flipside.precision(verb, "f32"), *who,
                         "--threads", threads, "--worlds", WORLDS, "--seconds", seconds)


def alternate(repeats, first, second):
    """Runs two measurements `repeats` times in pairs, alternating who goes first. Returns both lists of results."""
    results = ([], [])
    for i in range(repeats):
        for which in ((0, 1), (1, 0))[i % 2]:
            results[which].append((first, second)[which]())
    return results


class EnvPoolRate:
    """EnvPool on two threads under random actions. Resets take time but do not count as env steps."""

    def __init__(self, task, batch):
        import envpool
        self.env = envpool.make(task, env_type="gymnasium", num_envs=WORLDS, batch_size=batch, num_threads=2)
        space, rng = self.env.action_space, np.random.default_rng(0)
        self.actions = [rng.uniform(space.low, space.high, (batch, *space.shape)).astype(space.dtype) for _ in range(64)]
        self.turn = 0
        self.env.async_reset()

    def step(self):
        info = self.env.recv()[-1]
        self.env.send(self.actions[self.turn % len(self.actions)], info["env_id"])
        self.turn += 1
        # The step of a reset has number 0 in its episode.
        return int(np.count_nonzero(info["elapsed_step"]))

    def rate(self, seconds):
        return rate_of(self.step, seconds)


def measure(task, flipside, arguments, session=None, policy=None):
    """Measures one task under one kind of action: those of a session's policy, or random ones."""
    gymnasium = common.quiet_gymnasium()
    from mujoco import rollout
    row = {"task": task, "actions": "policy" if policy else "random"}
    env = gymnasium.make(common.TASKS[task])
    recording = Recording(env, arguments.record, policy, arguments.seed)
    row |= {"episodes": recording.episodes, "recorded": recording.count, "touching": recording.touching, "mujoco_residual": recording.residual()}

    row["residual"], refused = None, None
    with rollout.Rollout(nthread=0) as pool:

        def replay():
            recording.replay(pool)
            return recording.count

        def ours(threads):
            nonlocal refused
            if refused:
                return None
            try:
                result = flipside_rate(flipside, task, threads, arguments.seconds, session)
            except common.Refused as why:
                refused = str(why)
                return None
            row["residual"] = result.get("solver_residual")
            row["device"] = result["device"]
            return result["env_steps_per_s"]

        replay()
        recording.check()
        theirs, mine = alternate(arguments.repeats, lambda: rate_of(replay, arguments.seconds), lambda: ours(1))
        row |= {"mujoco": common.median(theirs), "mujoco_all": theirs}
        if not refused:
            ratios = [a / b for a, b in zip(mine, theirs)]
            row |= {"flipside": common.median(mine), "flipside_all": mine, "ratio": common.median(ratios), "ratio_range": [min(ratios), max(ratios)]}
        if not policy and not arguments.without_envpool:
            both = [EnvPoolRate(common.TASKS[task], batch) for batch in (WORLDS, WORLDS // 2)]
            trial = [pool.rate(arguments.seconds / 2) for pool in both]
            best = both[int(np.argmax(trial))]
            theirs, mine = alternate(arguments.repeats, lambda: best.rate(arguments.seconds), lambda: ours(2))
            row |= {"envpool": common.median(theirs), "envpool_all": theirs}
            if not refused:
                row |= {"flipside_two": common.median(mine), "flipside_two_all": mine, "ratio_envpool": common.median([a / b for a, b in zip(mine, theirs)])}
    row["refused"] = refused
    return row


def of_session(session, flipside):
    """(task, session, policy) of a session folder, through `flipside export policy`."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "policy.safetensors"
        try:
            flipside.run("export", "policy", session.absolute(), "--output", file)
        except common.Refused as why:
            raise SystemExit(f"{session}: {why}")
        policy = common.Policy(file)
    return policy.task, session.absolute(), policy


def show(rows, about):
    head = ["task, actions", "mujoco.rollout, 1 core", "flipside, 1 core", "ratio (range)", "residual, MuJoCo's", "residual, flipside's", "EnvPool, 2 threads", "flipside, 2 threads", "ratio"]
    body = []
    for r in rows:
        low, high = r.get("ratio_range", [None, None])
        ratio = f"{common.times(r['ratio'])} ({low:.1f}–{high:.1f})" if "ratio" in r else "–"
        body.append([f"{r['task']}, {r['actions']}", common.rate(r["mujoco"]), common.rate(r.get("flipside")), ratio, common.small(r["mujoco_residual"]),
                     common.small(r["residual"]), common.rate(r.get("envpool")), common.rate(r.get("flipside_two")), common.times(r.get("ratio_envpool"))])
    print(f"\nEnv steps a second. {about}\n")
    print(common.table(head, body))
    for r in rows:
        if r["refused"]:
            print(f"\n{r['task']}, {r['actions']}: flipside did not run: {r['refused']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_common(parser)
    parser.add_argument("--sessions", type=pathlib.Path, nargs="+", default=[], metavar="SESSION", help="sessions of `flipside train`: under their policies' actions too")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of measurements (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (default: 1)")
    parser.add_argument("--record", type=int, default=8000, help="env steps of Gymnasium to replay (default: 8000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-envpool", action="store_true")
    arguments = parser.parse_args()

    flipside = common.Flipside(arguments.flipside, arguments.backend)
    about, version = common.machine(), common.versions("mujoco", "gymnasium", "envpool", "numpy") | {"flipside": flipside.version().split()[-1]}
    line = common.machine_line(about, version)
    precision = flipside.precision(["bench", "physics"], "f32")
    line += f"; flipside's backend {arguments.backend}" + (", f32" if precision else ", which leaves no choice of precision in this build")
    rows = []
    for task, session, policy in [(task, None, None) for task in arguments.tasks] + [of_session(s, flipside) for s in arguments.sessions]:
        rows.append(measure(task, flipside, arguments, session, policy))
        r = rows[-1]
        print(f"{task}, {r['actions']}: {r['recorded']} env steps in {r['episodes']} episodes, {r['touching']:.0%} end in contact; "
              f"MuJoCo {common.rate(r['mujoco'])}, flipside {common.rate(r.get('flipside'))}", flush=True)
    show(rows, line)
    common.write_json(arguments.json, {"machine": about, "versions": version, "backend": arguments.backend, "rows": rows})


if __name__ == "__main__":
    main()
