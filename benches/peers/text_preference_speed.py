#!/usr/bin/env python3
"""Compares gradient steps of DPO, GRPO and RLOO: trl's trainers, and Flipside, on all cores of this machine.

    benches/peers/run text_preference_speed [--methods dpo,grpo,rloo] [--rows 16] [--steps 4] [--repeats 3] [--json FILE]

Both sides train GPT-2's smallest (124M parameters, random weights, one folder) on the same batch: prompts of 64 tokens
and completions of 24. DPO has half as many pairs as there are rows. GRPO has groups of 8 and RLOO groups of 2, with the
same scores on both sides: trl's trainers are given the completions in place of writing them. Flipside's side is `flipside
bench text-steps`. Every step takes the whole batch, so the order does not matter. GRPO's and RLOO's later steps are further iterations on the
same completions (trl's `num_iterations`), so their ratios are no longer 1. AdamW without decay, ε 1e-8, a constant
step size, clipping at 1, float32, no gradient checkpointing, the reference's log-probabilities computed once.

The losses of every step are compared. The first is ln 2 for DPO and about 0 for the others; each later one says whether
gradients and steps agree, too. Seconds are those of a step after the first, which warms up. The sides take turns. A
figure is the median over the steps and repeats, with the range.
"""
import argparse
import collections
import json
import pathlib
import random
import tempfile
import time

import common
import text_speed

PROMPT, COMPLETION = text_speed.PROMPT, text_speed.COMPLETION
# So small that the ratios of GRPO and RLOO stay within the clip range, where there is a gradient: the weights are random.
LEARNING_RATE = {"dpo": 1e-5, "grpo": 3e-7, "rloo": 2e-8}
# Completions of a prompt, β of the KL penalty, and trl's names.
GROUP = {"grpo": 8, "rloo": 2}
BETA = {"dpo": 0.1, "grpo": 0.04, "rloo": 0.05}


def make_pairs(path, count, folder):
    """Writes the tokens of pairs of random letters, and returns the letters. The tokenizer has one token for each."""
    import transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rng = random.Random(0)
    word = lambda length: "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))
    lines = [{"prompt": word(PROMPT), "chosen": word(COMPLETION - 1), "rejected": word(COMPLETION - 1)} for _ in range(count)]
    # trl ends each completion with the tokenizer's end.
    tokens = lambda name, text: tokenizer(text).input_ids + ([] if name == "prompt" else [tokenizer.eos_token_id])
    path.write_text("".join(json.dumps({name: tokens(name, text) for name, text in line.items()}) + "\n" for line in lines))
    return lines


def make_completions(path, count, group):
    """Writes completions of random tokens, `group` for each prompt, with random scores."""
    rng = random.Random(1)
    tokens = lambda length: [rng.randrange(2, text_speed.VOCABULARY) for _ in range(length)]
    prompts = [tokens(PROMPT) for _ in range(count // group)]
    lines = [{"prompt": prompt, "completion": tokens(COMPLETION), "score": rng.gauss(0, 1)} for prompt in prompts for _ in range(group)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def common_settings(output, rows, steps, method):
    return dict(output_dir=output, per_device_train_batch_size=rows, max_steps=steps, logging_steps=1, learning_rate=LEARNING_RATE[method],
                lr_scheduler_type="constant", adam_epsilon=1e-8, max_grad_norm=1.0, weight_decay=0.0, beta=BETA[method],
                gradient_checkpointing=False, bf16=False, fp16=False, use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True, seed=0)


def trained(make, folder, settings, dataset):
    """The loss of every step, and the seconds of all but the first."""
    import datasets
    import transformers
    ends = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    trainer = make(model=model, args=settings, train_dataset=datasets.Dataset.from_list(dataset), processing_class=tokenizer, callbacks=[Clock()])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, [b - a for a, b in zip(ends, ends[1:])]


def trl_pairs(folder, lines, steps):
    import trl
    with tempfile.TemporaryDirectory() as output:
        settings = trl.DPOConfig(precompute_ref_log_probs=True, **common_settings(output, len(lines), steps, "dpo"))
        return trained(trl.DPOTrainer, folder, settings, lines)


def with_completions(trainer, lines):
    """The trainer, with these completions in place of those that it would write. A prompt's text is its number."""
    numbers, rows = {}, collections.defaultdict(list)
    for line in lines:
        rows[str(numbers.setdefault(tuple(line["prompt"]), len(numbers)))].append(line)

    class Given(trainer):
        def _generate(self, prompts):
            seen, chosen = collections.Counter(), []
            for prompt in prompts:
                chosen.append((f"{prompt} {seen[prompt]}", rows[prompt][seen[prompt]]))
                seen[prompt] += 1
            prompt_ids = [row["prompt"] for _, row in chosen]
            completion_ids = [row["completion"] for _, row in chosen]
            names = [name for name, _ in chosen]
            if "grpo" in trainer.__name__.lower():
                # Tool mask, log-probabilities of another sampler, further fields, and images: there are none.
                return prompt_ids, completion_ids, None, names, None, {}, None, None
            return prompt_ids, completion_ids, names

    def score(completions, **_):
        return [rows[prompt][int(place)]["score"] for prompt, place in map(str.split, completions)]

    return Given, score, [{"prompt": number} for number in rows]


def trl_completions(method, folder, lines, steps):
    import trl
    trainer, config = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}[method]
    given, score, prompts = with_completions(trainer, lines)
    own = dict(loss_type="grpo") if method == "grpo" else {}
    with tempfile.TemporaryDirectory() as output:
        settings = config(num_generations=GROUP[method], num_iterations=steps, max_completion_length=COMPLETION, **own,
                          **common_settings(output, len(lines), steps, method))
        return trained(lambda **arguments: given(reward_funcs=score, **arguments), folder, settings, prompts)


def optimiser(table):
    name = f"text.{table}.optimiser"
    return f"{name}.final_learning_rate=1; {name}.adam_eps=1e-8; {name}.tensorflow_eps=false; {name}.max_grad_norm=1"


def flipside_steps(flipside, method, folder, data, steps):
    """The same of Flipside."""
    table = "preference" if method == "dpo" else "ppo"
    own = f"text.preference.beta={BETA[method]}" if method == "dpo" else \
        f"text.ppo.max_new_tokens={COMPLETION}; text.ppo.group_size={GROUP[method]}; text.ppo.kl.beta={BETA[method]}"
    settings = f"{optimiser(table)}; text.{table}.optimiser.learning_rate={LEARNING_RATE[method]}; {own}"
    named = ("--loss", "sigmoid") if method == "dpo" else ("--preset", method)
    found = flipside.json("bench", "text-steps", "--model", folder, "--data", data, *named, "--steps", steps, "--set", settings)
    return found["losses"], found["seconds"][1:]


def sides_of(method, flipside, folder, root, arguments):
    """What both sides run."""
    data, steps = root / f"{method}.jsonl", arguments.steps
    ours = lambda: flipside_steps(flipside, method, folder, data, steps)
    if method == "dpo":
        lines = make_pairs(data, arguments.rows // 2, folder)
        return {"trl": lambda: trl_pairs(folder, lines, steps), "Flipside": ours}
    lines = make_completions(data, arguments.rows, GROUP[method])
    return {"trl": lambda: trl_completions(method, folder, lines, steps), "Flipside": ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_common(parser, tasks=None)
    parser.add_argument("--methods", default="dpo,grpo,rloo", help="methods, with commas between (default: dpo,grpo,rloo)")
    parser.add_argument("--rows", type=int, default=16, help="completions in the batch, a multiple of 8 (default: 16)")
    parser.add_argument("--steps", type=int, default=4, help="gradient steps, the first of which warms up (default: 4)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: 3)")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    if not set(methods) <= set(BETA) or arguments.rows % 8 or arguments.rows < 8 or arguments.steps < 2:
        parser.error("--methods takes dpo, grpo and rloo, --rows a multiple of 8, and --steps at least 2")
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    about, flipside = common.machine(), common.Flipside(arguments.flipside, arguments.backend)
    torch.set_num_threads(about["cores"])
    version = common.versions("trl", "transformers", "torch") | {"flipside": flipside.version().split()[-1]}
    found = {}
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        folder = root / "model"
        text_speed.make_model(folder)
        for method in methods:
            sides = sides_of(method, flipside, folder, root, arguments)
            losses, seconds = {}, {side: [] for side in sides}
            for repeat in range(arguments.repeats):
                for side in sorted(sides, reverse=repeat % 2 == 1):
                    losses[side], took = sides[side]()
                    seconds[side] += took
            worst = max(abs(a - b) for a, b in zip(losses["trl"], losses["Flipside"], strict=True))
            ratio = common.median(seconds["trl"]) / common.median(seconds["Flipside"])
            found[method] = {"losses": losses, "seconds": seconds, "largest_difference": worst, "ratio": ratio}
    print(f"\nGradient steps on {arguments.rows} completions of GPT-2 124M, {PROMPT} + {COMPLETION} tokens. "
          f"{common.machine_line(about, version)}; {torch.get_num_threads()} PyTorch threads\n")
    spread = lambda took: f"{common.median(took):.2f} ({min(took):.2f}–{max(took):.2f})"
    body = [[method.upper(), spread(of["seconds"]["trl"]), spread(of["seconds"]["Flipside"]), f"{of['ratio']:.2f}×", f"{of['largest_difference']:.1e}"]
            for method, of in found.items()]
    print(common.table(["method", "trl, seconds a step (range)", "Flipside (range)", "ratio", "losses differ by at most"], body))
    for method, of in found.items():
        for side, losses in of["losses"].items():
            print(f"\n{method.upper()}, {side}: losses of the steps " + " ".join(f"{loss:.6f}" for loss in losses))
    common.write_json(arguments.json, {"machine": about, "versions": version, "rows": arguments.rows, "methods": found})
    apart = {method: of["largest_difference"] for method, of in found.items() if of["largest_difference"] > 1e-4}
    if apart:
        raise SystemExit(f"the losses differ: {apart}")


if __name__ == "__main__":
    main()
