#!/usr/bin/env python3
"""Compares gradient steps of DPO: trl's DPOTrainer, and `flipside text preference`, on all cores of this machine.

    benches/peers/run text_preference_speed [--pairs 8] [--steps 4] [--repeats 3] [--json FILE]

Both sides train GPT-2's smallest (124M parameters, random weights, one folder) on the same batch: pairs of a prompt of
64 tokens and two completions of 24 with their end. Every step takes the whole batch, so the order does not matter.
AdamW without decay, ε 1e-8, a constant step size, clipping at 1, float32, no gradient checkpointing, the reference's
log-probabilities computed once. The losses of every step are compared: the first is ln 2, and each later one says
whether gradients and steps agree, too. Seconds are those between the ends of two steps; the first step warms up. The
sides take turns. A figure is the median over the steps and repeats, with the range.
"""
import argparse
import json
import pathlib
import random
import sqlite3
import tempfile
import time

import common
import text_speed

PROMPT, COMPLETION = text_speed.PROMPT, text_speed.COMPLETION
LEARNING_RATE = 1e-5


def make_pairs(path, count):
    """Writes pairs of random letters. The tokenizer has one token for each letter."""
    rng = random.Random(0)
    word = lambda length: "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))
    lines = [{"prompt": word(PROMPT), "chosen": word(COMPLETION - 1), "rejected": word(COMPLETION - 1)} for _ in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def trl_steps(folder, lines, steps):
    """The loss of every step, and the seconds of all but the first."""
    import datasets
    import transformers
    import trl
    ends = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        settings = trl.DPOConfig(
            output_dir=output, per_device_train_batch_size=len(lines), max_steps=steps, logging_steps=1, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", adam_epsilon=1e-8, max_grad_norm=1.0, weight_decay=0.0, beta=0.1, precompute_ref_log_probs=True,
            gradient_checkpointing=False, bf16=False, fp16=False, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True, seed=0)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        trainer = trl.DPOTrainer(model=model, args=settings, train_dataset=datasets.Dataset.from_list(lines), processing_class=tokenizer,
                                 callbacks=[Clock()])
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, [b - a for a, b in zip(ends, ends[1:])]


def flipside_steps(flipside, folder, pairs, count, steps):
    """The same of Flipside, from the curve of its session."""
    with tempfile.TemporaryDirectory() as output:
        session = pathlib.Path(output) / "session"
        optimiser = "text.preference.optimiser"
        settings = f"{optimiser}.final_learning_rate=1; {optimiser}.adam_eps=1e-8; {optimiser}.tensorflow_eps=false; {optimiser}.max_grad_norm=1"
        flipside.json("text", "preference", "--model", folder, "--data", pairs, "--batch", count, "--steps", steps, "--learning-rate", LEARNING_RATE,
                      "--max-new-tokens", COMPLETION, "--set", settings, "--session", session)
        with sqlite3.connect(session / "session.db") as database:
            rows = database.execute("SELECT value, at_ms FROM metrics WHERE name = 'preference_loss' ORDER BY entry").fetchall()
    return [value for value, _ in rows], [(b - a) / 1000 for (_, a), (_, b) in zip(rows, rows[1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_common(parser, tasks=None)
    parser.add_argument("--pairs", type=int, default=8, help="pairs in the batch (default: 8)")
    parser.add_argument("--steps", type=int, default=4, help="gradient steps, the first of which warms up (default: 4)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: 3)")
    arguments = parser.parse_args()
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    about, flipside = common.machine(), common.Flipside(arguments.flipside, arguments.backend)
    torch.set_num_threads(about["cores"])
    version = common.versions("trl", "transformers", "torch") | {"flipside": flipside.version().split()[-1]}
    losses, seconds = {"trl": [], "Flipside": []}, {"trl": [], "Flipside": []}
    with tempfile.TemporaryDirectory() as root:
        folder, pairs = pathlib.Path(root) / "model", pathlib.Path(root) / "pairs.jsonl"
        text_speed.make_model(folder)
        lines = make_pairs(pairs, arguments.pairs)
        sides = {
            "trl": lambda: trl_steps(folder, lines, arguments.steps),
            "Flipside": lambda: flipside_steps(flipside, folder, pairs, arguments.pairs, arguments.steps),
        }
        for repeat in range(arguments.repeats):
            for side in sorted(sides, reverse=repeat % 2 == 1):
                found, took = sides[side]()
                losses[side] = found
                seconds[side] += took
    worst = max(abs(a - b) for a, b in zip(losses["trl"], losses["Flipside"], strict=True))
    ratio = common.median(seconds["trl"]) / common.median(seconds["Flipside"])
    print(f"\nGradient steps of DPO, GPT-2 124M, {arguments.pairs} pairs of {PROMPT} + {COMPLETION} tokens. "
          f"{common.machine_line(about, version)}; {torch.get_num_threads()} PyTorch threads\n")
    body = [[side, " ".join(f"{loss:.6f}" for loss in losses[side]), f"{common.median(took):.2f} ({min(took):.2f}–{max(took):.2f})"]
            for side, took in seconds.items()]
    print(common.table(["side", "losses of the steps", "seconds a step (range)"], body))
    print(f"\nThe losses differ by at most {worst:.1e}. Flipside takes {ratio:.2f} times as many steps a second.")
    common.write_json(arguments.json, {"machine": about, "versions": version, "losses": losses, "seconds": seconds,
                                       "largest_difference": worst, "ratio": ratio, "pairs": arguments.pairs})
    if worst > 1e-4:
        raise SystemExit(f"the losses differ by {worst:.2e}")


if __name__ == "__main__":
    main()
