"""What the comparisons share: tasks, the flipside program, exported policies, the machine, and output."""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Flipside's name of each task → Gymnasium's id.
TASKS = {
    "inverted_pendulum": "InvertedPendulum-v5",
    "inverted_double_pendulum": "InvertedDoublePendulum-v5",
    "reacher": "Reacher-v5",
    "pusher": "Pusher-v5",
    "swimmer": "Swimmer-v5",
    "hopper": "Hopper-v5",
    "half_cheetah": "HalfCheetah-v5",
    "walker2d": "Walker2d-v5",
    "ant": "Ant-v5",
    "humanoid": "Humanoid-v5",
    "humanoid_standup": "HumanoidStandup-v5",
}


def add_common(parser, tasks="all"):
    """The options that every comparison has."""
    parser.add_argument("--flipside", type=pathlib.Path, default=ROOT / "target/release/flipside", metavar="FILE",
                        help="the program (default: this tree's target/release/flipside)")
    parser.add_argument("--backend", default="lanes", help="its physics backend (default: lanes)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured to this file too")
    if tasks:
        parser.add_argument("--tasks", default=tasks, type=task_list, metavar="A,B,…", help=f"flipside's names of tasks, all or none (default: {tasks})")


def task_list(text):
    names = list(TASKS) if text == "all" else [] if text == "none" else [n.strip() for n in text.split(",") if n.strip()]
    by_gymnasium = {value: key for key, value in TASKS.items()}
    names = [by_gymnasium.get(n, n) for n in names]
    unknown = [n for n in names if n not in TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such task: {', '.join(unknown)}")
    return names


class Refused(Exception):
    """Flipside refused a command. Holds its error message."""


class Flipside:
    """The program under comparison, run as a person would run it."""

    def __init__(self, program, backend):
        self.program, self.backend = program.absolute(), backend
        if not program.is_file():
            sys.exit(f"there is no {program}: build it with `cargo xtask build`, or name it with --flipside")
        self.helps = {}

    def run(self, *arguments):
        """Returns its stdout, or raises Refused with its error message."""
        done = subprocess.run([str(self.program), *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
            raise Refused(next((line for line in said if line.lower().startswith("error")), said[-1]).strip())
        return done.stdout

    def json(self, *arguments):
        """Returns the last line of stdout with --json, parsed."""
        return json.loads(self.run(*arguments, "--json").strip().splitlines()[-1])

    def knows(self, verb, option):
        """Whether this build's `verb` (a list of words) has `option`."""
        key = " ".join(verb)
        if key not in self.helps:
            self.helps[key] = self.run(*verb, "--help")
        return option in self.helps[key]

    def precision(self, verb, wanted):
        """The arguments that choose a precision, or none if this build and backend leave no choice."""
        return ["--precision", wanted] if self.backend != "rapier" and self.knows(verb, "--precision") else []

    def version(self):
        return self.run("--version").strip()


class Policy:
    """A policy that `flipside export policy` wrote: tanh layers over normalised observations. It acts by its mean."""

    def __init__(self, path):
        from safetensors import safe_open
        with safe_open(str(path), framework="numpy") as file:
            about = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if about.get("format") != "1" or about.get("activation") != "tanh":
            sys.exit(f"{path} is not a policy of the format known here (1, tanh)")
        self.task, self.env_steps = about["task"], int(about["env_steps"])
        self.clip = float(about["obs_clip"])
        self.mean = arrays["obs_mean"].astype(np.float64)
        self.scale = 1.0 / np.sqrt(arrays["obs_var"].astype(np.float64) + float(about["obs_epsilon"]))
        count = sum(name.startswith("actor.") and name.endswith(".weight") for name in arrays)
        self.layers = [(arrays[f"actor.{n}.weight"], arrays[f"actor.{n}.bias"]) for n in range(count)]

    def act(self, obs, space):
        """The mean action for one observation, clipped to `space`.

        As in Flipside, the observation is normalised in double precision and the network runs in single precision.
        """
        h = np.clip((np.asarray(obs, np.float32) - self.mean) * self.scale, -self.clip, self.clip).astype(np.float32)
        for weight, bias in self.layers[:-1]:
            h = np.tanh(weight @ h + bias)
        weight, bias = self.layers[-1]
        return np.clip(weight @ h + bias, space.low, space.high)


def machine():
    """The machine and its load. A figure means nothing without them."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 0.5:
        print(f"note: the machine is busy (load {busy:.1f}); figures may be low on both sides", file=sys.stderr)
    return {"cpu": model, "cores": cores, "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), "load": busy}


def versions(*packages):
    import importlib.metadata
    return {name: importlib.metadata.version(name) for name in packages}


def machine_line(about, version):
    parts = [f"{about['cpu']}, {about['cores']} cores", *(f"{name} {number}" for name, number in version.items())]
    return "; ".join(parts)


def quiet_gymnasium():
    """Gymnasium without its logger's messages and without MuJoCo's log file in the working folder."""
    import gymnasium
    import mujoco
    mujoco.set_mju_user_warning(lambda _: None)
    gymnasium.logger.min_level = 40
    return gymnasium


def table(head, rows):
    """A Markdown table. The first column is aligned left, the others right."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] + ["---:"] * (len(head) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def rate(x):
    """A rate, rounded to three significant figures."""
    if x is None:
        return "–"
    digits = max(0, len(str(int(x))) - 3)
    return f"{int(round(x / 10**digits) * 10**digits):,}"


def small(x):
    return "–" if x is None else f"{x:.1e}"


def times(x):
    return "–" if x is None else f"{x:.1f}×" if x < 100 else f"{x:.0f}×"


def median(numbers):
    return statistics.median(numbers) if numbers else None


def write_json(path, value):
    if path:
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
