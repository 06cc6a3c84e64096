#!/usr/bin/env python3
"""Measures language models: transformers with PyTorch, and `flipside bench text`, on all cores of this machine.

    benches/peers/run text_speed [--repeats 3] [--precision f32|bf16|f32,bf16] [--json FILE]

The model is GPT-2's smallest (124M parameters, random weights, one folder for both sides). 16 prompts of 64 tokens
are continued by 24 tokens each.

* generate: `model.generate`, sampling at temperature 1 from all tokens, with its key-value cache. Completion tokens
  a second.
* PPO step: one gradient step on those 16 episodes, as in trl's PPOTrainer: the policy's log-probabilities at
  temperature + 1e-7, values from a head, clipped objective and clipped value loss, backward, and AdamW. Prompt and
  completion tokens a second, of the step alone. trl has had no PPO since PPO left its experimental folder, so the
  step is written out here on transformers, twice. One critic is a model of its own, the only form that trl's
  PPOTrainer has. The other is a head on the policy's model, as trl's value head was before and as Flipside's is.
  The second is half the work.

In bf16, transformers generates with bf16 weights. Its PPO step with a shared critic is tried in two ways: all in
bf16 (master weights and Adam's moments too), and as in trl (autocast over float32 weights). A processor for which
PyTorch has no fast bf16 (on x86, one without AVX-512) multiplies in bf16 many times slower than in f32, on both
sides alike. There bf16 is left out unless it is asked for. Each side has one warm-up before every measurement, and
the sides take turns. A figure is the median of the repeats, with the range. A ratio is the median of the paired
ratios.
"""
import argparse
import json
import pathlib
import tempfile
import time

import common

BATCH, PROMPT, COMPLETION, VOCABULARY = 16, 64, 24, 50257
# The keys of `flipside bench text` for each kind: in an object of its own, or beside the rest.
KINDS = {"generate": ("generated_per_s", "generate_tokens_per_s"), "PPO step": ("passed_per_s", "ppo_tokens_per_s")}


def make_model(folder):
    """Writes GPT-2 with random weights, and a byte tokenizer that uses the first tokens of its vocabulary."""
    import tokenizers
    import torch
    import transformers
    torch.manual_seed(0)
    config = transformers.GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0, pad_token_id=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([], tokenizers.trainers.BpeTrainer(special_tokens=["<|end|>", "<|pad|>"], initial_alphabet=alphabet, show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|pad|>", "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


class Generate:
    """transformers' generate."""

    tokens = BATCH * COMPLETION

    def __init__(self, folder, precision):
        import torch
        import transformers
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.prompts = torch.randint(2, VOCABULARY, (BATCH, PROMPT))

    def once(self):
        import torch
        with torch.no_grad():
            out = self.model.generate(input_ids=self.prompts, attention_mask=torch.ones_like(self.prompts), max_new_tokens=COMPLETION,
                                      min_new_tokens=COMPLETION, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, use_cache=True, pad_token_id=1)
        assert out.shape == (BATCH, PROMPT + COMPLETION)


class PpoStep:
    """One gradient step on one minibatch, as in trl's PPOTrainer."""

    tokens = BATCH * (PROMPT + COMPLETION)

    def __init__(self, folder, precision, autocast=False, own_critic=False):
        import torch
        import transformers
        dtype = torch.bfloat16 if precision == "bf16" and not autocast else torch.float32
        self.autocast = autocast
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).train()
        self.critic = transformers.AutoModel.from_pretrained(folder, dtype=dtype).train() if own_critic else None
        self.head = torch.nn.Linear(self.model.config.n_embd, 1).to(dtype)
        trained = [self.model, self.head] + ([self.critic] if own_critic else [])
        self.parameters = [parameter for module in trained for parameter in module.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=3e-6, eps=1e-5, weight_decay=0.0)
        self.rows = torch.randint(2, VOCABULARY, (BATCH, PROMPT + COMPLETION))
        self.advantages, self.returns = torch.randn(BATCH, COMPLETION), torch.randn(BATCH, COMPLETION)
        with torch.no_grad():
            log_probs, values = self.forward()
        self.old_log_probs, self.old_values = log_probs.float(), values.float()

    def forward(self):
        import torch
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            mask = torch.ones_like(self.rows)
            rows = dict(input_ids=self.rows, attention_mask=mask, position_ids=mask.cumsum(1) - mask, output_hidden_states=True, use_cache=False)
            out = self.model(**rows)
            logits = out.logits[:, PROMPT - 1:-1] / (1.0 + 1e-7)
            log_probs = torch.gather(logits.log_softmax(-1), 2, self.rows[:, PROMPT:, None])[..., 0]
            hidden = (self.critic(**rows) if self.critic else out).hidden_states[-1]
            return log_probs, self.head(hidden[:, PROMPT - 1:-1])[..., 0]

    def once(self):
        import torch
        self.optimiser.zero_grad()
        log_probs, values = self.forward()
        held = torch.clamp(values, self.old_values - 0.2, self.old_values + 0.2)
        value_loss = 0.5 * torch.max((values - self.returns) ** 2, (held - self.returns) ** 2).mean()
        ratio = torch.exp(log_probs - self.old_log_probs)
        policy_loss = torch.max(-self.advantages * ratio, -self.advantages * ratio.clamp(0.8, 1.2)).mean()
        (policy_loss + 0.1 * value_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()


def rate_of(side, seconds):
    """Tokens a second over whole rounds that take at least `seconds` together. The first round is not counted."""
    side.once()
    started, rounds = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or rounds == 0:
        side.once()
        rounds += 1
    return rounds * side.tokens / passed


def measure(precision, folder, flipside, arguments):
    sides = {
        ("generate", "transformers"): Generate(folder, precision),
        ("PPO step", "trl's, critic of its own"): PpoStep(folder, precision, autocast=precision == "bf16", own_critic=True),
        ("PPO step", "transformers, shared critic"): PpoStep(folder, precision),
    }
    if precision == "bf16":
        sides["PPO step", "transformers, shared critic, autocast"] = PpoStep(folder, precision, autocast=True)
    rates, ours, refused = {key: [] for key in sides}, {kind: [] for kind in KINDS}, None

    def flipside_once():
        nonlocal refused
        if refused or flipside is None:
            return
        try:
            # A build without the option for a folder makes the same model itself.
            model = ["--model", folder] if flipside.knows(["bench", "text"], "--model") else []
            once = ["--repeats", 1] if flipside.knows(["bench", "text"], "--repeats") else []
            result = flipside.json("bench", "text", *model, *once, "--precision", precision)
            result |= result.get("text", {})
            found = {kind: next((result[key] for key in keys if key in result), None) for kind, keys in KINDS.items()}
        except common.Refused as why:
            refused = str(why)
            return
        if None in found.values():
            refused = f"bench text --json has none of {KINDS}"
            return
        for kind, value in found.items():
            ours[kind].append(value)

    for i in range(arguments.repeats):
        if i % 2:
            flipside_once()
        for key, side in sides.items():
            rates[key].append(rate_of(side, arguments.seconds))
        if not i % 2:
            flipside_once()
    return [{"precision": precision, "kind": kind, "peer": peer, "theirs": theirs, "ours": [] if refused else ours[kind], "refused": refused}
            for (kind, peer), theirs in rates.items()]


def bf16_is_slow():
    """Whether a matrix product takes longer in bf16 than in f32 on this machine."""
    import torch
    took = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - started)
        took[dtype] = min(times)
    return took[torch.bfloat16] > took[torch.float32]


def spread(numbers):
    return f"{common.rate(common.median(numbers))} ({common.rate(min(numbers))}–{common.rate(max(numbers))})" if numbers else "–"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_common(parser, tasks=None)
    parser.add_argument("--precision", type=lambda text: text.split(","), metavar="A,B",
                        help="f32, bf16 or both (default: both where bf16 is worth while)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="least length of a measurement of transformers (default: 5)")
    parser.add_argument("--without-flipside", action="store_true", help="measure the peers alone")
    arguments = parser.parse_args()
    if not set(arguments.precision or []) <= {"f32", "bf16"} or arguments.repeats < 1:
        parser.error("precisions are f32 and bf16, repeats at least 1")

    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    about = common.machine()
    torch.set_num_threads(about["cores"])
    slow = not arguments.precision and bf16_is_slow()
    precisions = arguments.precision or (["f32"] if slow else ["f32", "bf16"])
    flipside = None if arguments.without_flipside else common.Flipside(arguments.flipside, arguments.backend)
    version = common.versions("transformers", "torch") | ({"flipside": flipside.version().split()[-1]} if flipside else {})
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "gpt2"
        make_model(folder)
        rows = [row for precision in precisions for row in measure(precision, folder, flipside, arguments)]

    print(f"\nTokens a second, GPT-2 124M, {BATCH} × ({PROMPT} + {COMPLETION}) tokens. {common.machine_line(about, version)}; "
          f"{torch.get_num_threads()} PyTorch threads\n")
    body = []
    for row in rows:
        ratios = [a / b for a, b in zip(row["ours"], row["theirs"])]
        row["ratio"] = {"median": common.median(ratios), "range": [min(ratios), max(ratios)]} if ratios else None
        body.append([f"{row['kind']}, {row['precision']}", row["peer"], spread(row["theirs"]), spread(row["ours"]),
                     f"{common.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"])
    print(common.table(["what", "peer", "its tokens/s (range)", "flipside's (range)", "ratio (range)"], body))
    if slow:
        print("\nbf16 is left out: on this processor PyTorch multiplies in bf16 slower than in f32 (--precision bf16 measures it all the same)")
    for why in dict.fromkeys(row["refused"] for row in rows if row["refused"]):
        print(f"\nflipside did not run: {why}")
    common.write_json(arguments.json, {"machine": about, "versions": version, "batch": BATCH, "prompt": PROMPT, "completion": COMPLETION, "rows": rows})


if __name__ == "__main__":
    main()
