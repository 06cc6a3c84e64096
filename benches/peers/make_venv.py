#!/usr/bin/env python3
"""Makes the virtual environment of Flipside's peers: MuJoCo, Gymnasium, EnvPool and Stable-Baselines3, all pinned.

    python3 benches/peers/make_venv.py [--venv DIR] [--without-learning | --text | --lens]

It lies outside the source tree, in the user's cache folder, unless --venv or the environment variable
FLIPSIDE_PEERS names another place. It is made once: while the pins stay the same, a later call only prints the path
of its Python. stdout never has anything else. The script needs Python 3.11 or later with pip. It installs nothing
into that Python.

--without-learning leaves out PyTorch and Stable-Baselines3, which only ppo_speed.py needs: 0.9 GB instead of 2 GB,
or of 6 GB where only PyTorch's CUDA build is available. --text makes another environment, whose name ends in
`-text`: PyTorch and what tests/peers/requirements.txt pins, for the peers of language models. --lens makes one whose
name ends in `-lens`: the same with TransformerLens, for tests/peers/run look.
"""
import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
TEXT_REQUIREMENTS = HERE.parents[1] / "tests" / "peers" / "requirements.txt"
LENS = "transformer-lens==3.5.1"

# The PyTorch that Flipside itself is built with, so that neither side has faster kernels. Its CPU build is on PyTorch's
# own index. Where that cannot be reached, the CUDA build of the ordinary index does the same work on the CPU.
TORCH = "torch==2.11.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LEARNING = ["stable-baselines3==2.9.2"]


def default_folder():
    """Where the environment lies by default: FLIPSIDE_PEERS, or else the user's cache folder."""
    given = os.environ.get("FLIPSIDE_PEERS")
    if given:
        return pathlib.Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    base = pathlib.Path(cache) if cache and os.path.isabs(cache) else pathlib.Path.home() / ".cache"
    return base / "flipside" / "peers"


def python_of(folder):
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(learning, text=False, lens=False):
    """A hash that changes when anything that would be installed changes."""
    if text:
        pins = [TEXT_REQUIREMENTS.read_text(), sys.version, TORCH, *([LENS] if lens else [])]
    else:
        pins = [REQUIREMENTS.read_text(), sys.version, *([TORCH, *LEARNING] if learning else [])]
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


def pip_install(python, arguments, quiet=False):
    """Installs into `python`'s environment with this Python's pip. Returns whether it worked. pip prints to stderr."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", *arguments]
    out = subprocess.DEVNULL if quiet else sys.stderr
    return subprocess.run(command, stdout=out, stderr=out).returncode == 0


def install(python, learning, text, lens):
    """Installs all pins into a fresh environment. Returns None, or a sentence that says what failed."""
    if not text and not pip_install(python, ["--quiet", "-r", str(REQUIREMENTS)]):
        return "the packages of requirements.txt could not be installed; pip says why above"
    if learning or text:
        # Tried quietly: if this index does not answer, the ordinary one is used.
        # PyTorch's own dependencies come from the ordinary index, in the second installation below.
        cpu = ["--quiet", "--retries", "1", "--timeout", "15", "--no-deps", "--index-url", TORCH_CPU_INDEX]
        if not pip_install(python, [*cpu, TORCH + "+cpu"], quiet=True):
            print("PyTorch's CPU index does not answer: taking the larger build from the ordinary index", file=sys.stderr)
        rest = ["-r", str(TEXT_REQUIREMENTS), *([LENS] if lens else [])] if text else [*LEARNING, "-r", str(REQUIREMENTS)]
        if not pip_install(python, ["--quiet", TORCH, *rest]):
            return ("PyTorch and transformers could not be installed; pip says why above" if text else
                    "PyTorch and Stable-Baselines3 could not be installed; pip says why above (--without-learning does without)")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=pathlib.Path, metavar="DIR", help="where to make it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--without-learning", action="store_true", help="leave PyTorch and Stable-Baselines3 out")
    which.add_argument("--text", action="store_true", help="the environment of the peers of language models")
    which.add_argument("--lens", action="store_true", help="the same with TransformerLens")
    arguments = parser.parse_args()

    usual = default_folder()
    text = arguments.text or arguments.lens
    ending = "-lens" if arguments.lens else "-text" if text else ""
    folder = (arguments.venv or usual.with_name(usual.name + ending)).expanduser().absolute()
    python, mark = python_of(folder), folder / "flipside-peers.txt"
    # An environment with the learners also serves --without-learning.
    wanted = {fingerprint(not text, text, arguments.lens)} | ({fingerprint(False)} if arguments.without_learning else set())
    if not (mark.is_file() and mark.read_text().strip() in wanted):
        if folder.exists() and not mark.is_file() and any(folder.iterdir()):
            sys.exit(f"{folder} is not empty and was not made by this script: name another folder with --venv")
        if subprocess.run([sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit("this Python has no pip: install it (Debian and Ubuntu: apt-get install python3-pip)")
        print(f"making the peers' environment in {folder}; this takes some minutes", file=sys.stderr)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        mark.write_text("unfinished\n")
        # Made without pip inside, because Debian's Python can do that without python3-venv. This Python's pip installs
        # into it.
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        problem = install(python, not (arguments.without_learning or text), text, arguments.lens)
        if problem:
            sys.exit(problem)
        mark.write_text(fingerprint(not arguments.without_learning, text, arguments.lens) + "\n")
    print(python)


if __name__ == "__main__":
    main()
