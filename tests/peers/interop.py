#!/usr/bin/env python3
"""Do Flipside and Hugging Face's libraries read each other's files, and compute the same from them?

    tests/peers/run [--flipside FILE] [--only WORD] [--keep DIR]

README.md beside this file says what is checked.
"""
import argparse
import contextlib
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import peft
import tokenizers
import torch
import transformers as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4
EOS, PAD, VOCABULARY = 0, 1, 320
TEXTS = [
    "The kettle's lid closes with a soft click; the spout doesn't drip.",
    "I've had 3 kettles in 12 years, and they'd all leaked by the 365th day!",
    "Der Kessel pfeift, wenn das Wasser kocht: schön und größer.",
    "tea",
    "def pour(cup):\n    while cup.level < 0.9:\n        cup.level += 0.1\n    return cup\n",
    "the kettle the kettle the kettle the lid the lid the spout",
]
COMPLETIONS = [
    {"prompt": "The kettle", "completion": " closes with a soft click."},
    {"prompt": "I've had 3 kettles in", "completion": " 12 years"},
    {"prompt": "tea", "completion": " the lid the spout"},
]
PAIRS = [
    {"prompt": "The kettle's lid", "chosen": " closes with a soft click.", "rejected": " doesn't drip"},
    {"prompt": "tea", "chosen": " the lid", "rejected": " the kettle the kettle the kettle pfeift, wenn das Wasser kocht"},
    {"prompt": "I've had 3 kettles in 12 years,", "chosen": " and they'd all leaked", "rejected": " 365"},
]
PROMPTS = [{"prompt": text} for text in ("tea", "The kettle's lid closes with", "I've had 3 kettles in 12 years, and", "Der Kessel")]

SPECIAL = dict(bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD)
LLAMA = dict(vocab_size=VOCABULARY, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, **SPECIAL)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
NEOX = dict(vocab_size=VOCABULARY, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256, **SPECIAL)
GPT2 = dict(vocab_size=VOCABULARY, n_embd=48, n_layer=3, n_head=4, n_positions=256, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **SPECIAL)


def configs(**more):
    """A configuration of every family, by name."""
    return {
        "gpt2": tf.GPT2Config(**GPT2, **more),
        "llama2": tf.LlamaConfig(**LLAMA, **more),
        "llama3": tf.LlamaConfig(**LLAMA, rope_parameters=LLAMA3, tie_word_embeddings=True, **more),
        "mistral": tf.MistralConfig(**LLAMA, sliding_window=6, **more),
        "qwen2": tf.Qwen2Config(**LLAMA, **more),
        "qwen3": tf.Qwen3Config(**LLAMA, head_dim=16, **more),
        "gpt2-exact": tf.GPT2Config(**GPT2, activation_function="gelu", scale_attn_by_inverse_layer_idx=True, **more),
        "gemma": tf.GemmaConfig(**LLAMA, head_dim=16, **more),
        "gemma2": tf.Gemma2Config(**LLAMA, head_dim=16, query_pre_attn_scalar=12, sliding_window=6, attn_logit_softcapping=8.0, final_logit_softcapping=6.0, **more),
        "gemma3": tf.Gemma3TextConfig(**LLAMA, head_dim=16, query_pre_attn_scalar=16, sliding_window=6, layer_types=["sliding_attention", "full_attention", "sliding_attention"], **more),
        "phi3": tf.Phi3Config(**LLAMA, sliding_window=6, **more),
        "pythia": tf.GPTNeoXConfig(**NEOX, rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}, **more),
        "opt": tf.OPTConfig(vocab_size=VOCABULARY, hidden_size=48, ffn_dim=80, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256, word_embed_proj_dim=48,
                            dropout=0.0, **SPECIAL, **more),
        "smollm3": tf.SmolLM3Config(**LLAMA, no_rope_layers=[1, 0, 1], **more),
        "olmo2": tf.Olmo2Config(**LLAMA, **more),
        "llama-linear": tf.LlamaConfig(**LLAMA, rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}, **more),
        "llama-yarn": tf.LlamaConfig(**LLAMA, rope_parameters={"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0}, **more),
    }


TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"], "gpt2-exact": ["c_attn", "c_proj", "c_fc"], "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
           "pythia": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], "opt": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]}
LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Refused(Exception):
    """A program or library failed, or did something else than it was asked to."""


def make_tokenizer():
    """A byte-level tokenizer of VOCABULARY tokens, of which EOS and padding are the first."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|end|>", "<|pad|>"], show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        sys.exit(f"the tokenizer has {tokenizer.get_vocab_size()} tokens")
    return tokenizer


TOKENIZER = make_tokenizer()


def ids_of(text):
    return TOKENIZER.encode(text).ids


def save(model, folder, dtype=torch.float32, shard="1GB"):
    """Writes a model folder as users have it, tokenizer included. The model itself stays in float32."""
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    model.to(torch.float32)
    TOKENIZER.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|pad|>", "model_max_length": 256}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def make(config, kind=tf.AutoModelForCausalLM):
    """A model with weights large enough for every part of it to affect the logits."""
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.12 + (1.0 if parameter.dim() == 1 else 0.0))
    return model


def jitter(adapter):
    """Fills an adapter's matrices with random numbers, because peft initialises half of them to zero."""
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return adapter.eval()


@contextlib.contextmanager
def no_warnings():
    """Refuses every warning of a library, from `logging` or from `warnings`."""
    said = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("transformers", "peft", "accelerate", "safetensors", None)]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        # Notices of future or deprecated names are not about the files.
        said += [str(warning.message) for warning in caught if not issubclass(warning.category, (FutureWarning, DeprecationWarning))]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    if said:
        raise Refused(f"it warns: {' | '.join(' '.join(text.split()) for text in dict.fromkeys(said))[:600]}")


def load(folder, kind=tf.AutoModelForCausalLM):
    """Loads what Flipside wrote; refuses any warning and any missing or unexpected key."""
    with no_warnings():
        model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    wrong = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if wrong:
        raise Refused(f"loading reports {wrong}")
    if tokenizer(TEXTS[0])["input_ids"] != ids_of(TEXTS[0]) or tokenizer.eos_token_id != EOS or tokenizer.pad_token_id != PAD:
        raise Refused("its tokenizer is not the one that it was trained with")
    return model.eval()


def logits_of(model, rows):
    with torch.no_grad():
        return [model(input_ids=torch.tensor([row])).logits[0].float() for row in rows]


def worst(ours, theirs):
    """The largest difference of two lists of arrays of the same shapes."""
    return max(float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()) for a, b in zip(ours, theirs, strict=True))


def whole_rows():
    return [ids_of(text) + [EOS] for text in TEXTS]


class Interop:
    def __init__(self, program, folder, only):
        self.program, self.folder, self.only, self.results, self.count = program, folder, only, [], 0
        self.data = {}
        for name, lines in {"texts": [{"text": t} for t in TEXTS], "completions": COMPLETIONS, "pairs": PAIRS, "prompts": PROMPTS}.items():
            self.data[name] = folder / f"{name}.jsonl"
            self.data[name].write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    # ---- Running ---------------------------------------------------------------------------------------------------------

    def new(self, what):
        self.count += 1
        return self.folder / f"{self.count:03}-{what}"

    def flipside(self, *words):
        """The lines that `flipside text …` prints; with --json, the last line parsed."""
        done = subprocess.run([str(self.program), "text", *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
            raise Refused(f"flipside text {words[0]}: " + next((line for line in said if line.lower().startswith("error")), said[-1]).strip()[:400])
        lines = done.stdout.strip().splitlines()
        return json.loads(lines[-1]) if "--json" in words else lines

    def check(self, name, work):
        """Runs `work`, which returns the worst error, and prints the result."""
        if self.only and self.only not in name:
            return
        begun = time.monotonic()
        try:
            error, why = work(), ""
        except Refused as refused:
            error, why = None, str(refused)
        except Exception as failed:  # An error of the other library fails this check only.
            error, why = None, f"{type(failed).__name__}: {' '.join(str(failed).split())[:400]}"
        good = error is not None and error <= TOLERANCE
        self.results.append((name, error, good))
        print(f"{'pass' if good else 'FAIL'}  {name:44} {'–' if error is None else f'{error:.1e}':>8}  {time.monotonic() - begun:5.1f} s  {why}", flush=True)

    def our_logprobs(self, model, data, *more):
        """The log-probabilities that `flipside text eval` gives each example's tokens, and the tokens."""
        file = self.new("logprobs.npz")
        about = self.flipside("eval", "--model", model, *more, "--data", self.data[data], "--precision", "f32", "--json", "--logprobs", file)
        with np.load(file, allow_pickle=False) as arrays:
            flat, tokens, offsets = (arrays[key] for key in ("logprobs", "tokens", "offsets"))
        if abs(about["nll"] + float(flat.astype(np.float64).mean())) > 1e-5 * max(1, abs(about["nll"])):
            raise Refused(f"its nll is {about['nll']}, the mean of its log-probabilities {flat.mean()}")
        if about["tokens"] != len(flat) or abs(np.log(about["perplexity"]) - about["nll"]) > 1e-4:
            raise Refused(f"tokens or perplexity do not follow from its log-probabilities: {about}")
        cut = lambda array: [array[a:b] for a, b in zip(offsets[:-1], offsets[1:])]
        return cut(flat), cut(tokens)

    def agree(self, folder, model, data="texts", *more):
        """The worst difference of log-probabilities between Flipside's reading of `folder` and transformers' `model`."""
        if data == "texts":
            rows = [(row[:1], row[1:]) for row in whole_rows()]
        else:
            rows = [(ids_of(line["prompt"]), ids_of(line["completion"]) + [EOS]) for line in COMPLETIONS]
        ours, tokens = self.our_logprobs(folder, data, *more)
        if [list(map(int, part)) for part in tokens] != [row[1] for row in rows]:
            raise Refused(f"it predicts other tokens: {[len(part) for part in tokens]} where {[len(row[1]) for row in rows]} are expected, or not the same ones")
        logits = logits_of(model, [given + rest for given, rest in rows])
        theirs = [out.log_softmax(-1)[len(given) - 1:-1].gather(1, torch.tensor(rest)[:, None])[:, 0].numpy() for out, (given, rest) in zip(logits, rows)]
        return worst(ours, theirs)

    # ---- Checks ----------------------------------------------------------------------------------------------------------

    def causal(self, name, config, dtype=torch.float32, shard="1GB"):
        folder = self.new(name)
        save(make(config), folder, dtype, shard)
        if shard != "1GB" and not (folder / "model.safetensors.index.json").is_file():
            sys.exit(f"{folder} was not sharded")
        theirs = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.check(f"eval {name}", lambda: self.agree(folder, theirs))
        self.check(f"eval {name}, completions", lambda: self.agree(folder, theirs, "completions"))

        def export():
            out = self.new("export")
            more = ["--shard", 60_000] if "shard" in name else []
            self.flipside("export", "--model", folder, "--output", out, "--precision", "bf16" if dtype == torch.bfloat16 else "f32", *more)
            if more and not (out / "model.safetensors.index.json").is_file():
                raise Refused("it was not sharded")
            return worst(logits_of(load(out), whole_rows()), logits_of(theirs, whole_rows()))
        self.check(f"export {name}", export)

        def greedy():
            rows = [ids_of(line["prompt"]) for line in PROMPTS]
            width = max(map(len, rows))
            ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
            with torch.no_grad():
                out = theirs.generate(input_ids=ids, attention_mask=(ids != PAD).long(), max_new_tokens=24, do_sample=False, pad_token_id=PAD)
            until = lambda tokens: tokens[:tokens.index(EOS)] if EOS in tokens else tokens
            expected = [until(row) for row in out[:, width:].tolist()]
            said = self.flipside("generate", "--model", folder, "--data", self.data["prompts"], "--max-new-tokens", 24, "--temperature", 0, "--json")
            for ours, theirs_, line in zip(said["completions"], expected, PROMPTS, strict=True):
                if ours["prompt"] != line["prompt"] or until(ours["tokens"]) != theirs_:
                    raise Refused(f"after {line['prompt']!r} it writes {until(ours['tokens'])}, transformers {theirs_}")
            return 0.0
        self.check(f"greedy {name}", greedy)
        return folder

    def trained(self, name, base):
        def sft():
            out = self.new("sft")
            self.flipside("sft", "--model", base, "--data", self.data["texts"], "--steps", 3, "--output", out, "--session", self.new("session"), "--json")
            model = load(out)
            if worst(logits_of(model, whole_rows()), logits_of(tf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval(), whole_rows())) == 0:
                raise Refused("training changed nothing")
            return self.agree(out, model)
        self.check(f"sft {name}", sft)

    def base(self):
        def base():
            out = self.new("base")
            self.flipside("base", "--data", self.data["texts"], "--steps", 3, "--output", out, "--session", self.new("session"), "--json")
            with no_warnings():
                model, info = tf.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
                tokenizer = tf.AutoTokenizer.from_pretrained(out)
            if any(info.values()):
                raise Refused(f"loading reports {info}")
            rows = [tokenizer(text)["input_ids"] + ([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]) for text in TEXTS]
            ours, tokens = self.our_logprobs(out, "texts")
            if [list(map(int, part)) for part in tokens] != [row[1:] for row in rows]:
                raise Refused("it predicts other tokens than transformers' tokenizer makes")
            return worst(ours, [out.log_softmax(-1)[:-1].gather(1, torch.tensor(row[1:])[:, None])[:, 0].numpy()
                                for out, row in zip(logits_of(model.eval(), rows), rows)])
        self.check("base", base)

    def rewards(self, folder, model):
        """The worst difference of rewards. Also checks the accuracy and loss that Flipside reports."""
        file = self.new("rewards.npz")
        about = self.flipside("eval", "--model", folder, "--data", self.data["pairs"], "--precision", "f32", "--json", "--logprobs", file)
        with np.load(file, allow_pickle=False) as arrays:
            ours = [arrays["chosen"], arrays["rejected"]]
        rows = [[ids_of(pair["prompt"]) + ids_of(pair[side]) + [EOS] for pair in PAIRS] for side in ("chosen", "rejected")]
        theirs = []
        for side in rows:
            width = max(map(len, side))
            pad = model.config.pad_token_id
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in side])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in side])
            with torch.no_grad():
                theirs.append(model(input_ids=ids, attention_mask=mask).logits[:, 0].numpy())
        margin = torch.tensor(theirs[0] - theirs[1]).double()
        loss, accuracy = float(-torch.nn.functional.logsigmoid(margin).mean()), float((margin > 0).double().mean())
        if about["pairs"] != len(PAIRS) or abs(about["accuracy"] - accuracy) > 1e-6 or abs(about["loss"] - loss) > TOLERANCE:
            raise Refused(f"it says {about} where accuracy is {accuracy} and the loss {loss}; worst reward {worst(ours, theirs):.1e}")
        return worst(ours, theirs)

    def reward(self, name, config, base):
        folder = self.new(f"reward-{name}")
        save(make(config, tf.AutoModelForSequenceClassification), folder)
        kind = tf.AutoModelForSequenceClassification
        self.check(f"reward {name}: theirs here", lambda: self.rewards(folder, kind.from_pretrained(folder, dtype=torch.float32).eval()))

        def export():
            out = self.new("export-reward")
            self.flipside("export", "--model", folder, "--output", out)
            return self.rewards(folder, load(out, kind))
        self.check(f"reward {name}: export", export)

        def ours():
            out = self.new("our-reward")
            self.flipside("reward", "--model", base, "--data", self.data["pairs"], "--steps", 3, "--output", out, "--session", self.new("session"), "--json")
            return self.rewards(out, load(out, kind))
        self.check(f"reward {name}: ours there", ours)

    def reward_with_end_as_padding(self):
        """Reward models whose padding token is the end: the score is read before the end, in both directions."""
        kind = tf.AutoModelForSequenceClassification
        config = tf.GPT2Config(**GPT2 | dict(pad_token_id=EOS), num_labels=1)
        folder = self.new("reward-end")
        save(make(config, kind), folder)
        about = json.loads((folder / "tokenizer_config.json").read_text()) | {"pad_token": "<|end|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
        self.check("reward, end as padding: theirs here", lambda: self.rewards(folder, kind.from_pretrained(folder, dtype=torch.float32).eval()))
        base = self.new("base-end")
        save(make(tf.GPT2Config(**GPT2 | dict(pad_token_id=EOS))), base)

        def ours():
            out = self.new("our-reward-end")
            self.flipside("reward", "--model", base, "--data", self.data["pairs"], "--steps", 3, "--output", out, "--session", self.new("session"), "--json")
            return self.rewards(out, load(out, kind))
        self.check("reward, end as padding: ours there", ours)

    def adapters(self, name, base):
        fresh = lambda: tf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        targets = TARGETS.get(name, LLAMA_TARGETS)

        def of(settings):
            adapter = jitter(peft.get_peft_model(fresh(), settings))
            folder = self.new("their-adapter")
            adapter.save_pretrained(folder)
            return adapter, folder
        settings = dict(task_type="CAUSAL_LM", r=4, lora_alpha=12, lora_dropout=0.1, fan_in_fan_out=name.startswith("gpt2"))
        adapter, folder = of(peft.LoraConfig(target_modules=targets, **settings))
        self.check(f"adapter {name}: theirs here", lambda: self.agree(base, adapter, "texts", "--adapter", folder))
        few, few_folder = of(peft.LoraConfig(target_modules=targets[:1], use_rslora=False, **settings))
        self.check(f"adapter {name}: theirs here, one target", lambda: self.agree(base, few, "completions", "--adapter", few_folder))

        def merge():
            out = self.new("merged")
            self.flipside("merge", "--model", base, "--adapter", folder, "--output", out)
            merged = peft.PeftModel.from_pretrained(fresh(), folder).merge_and_unload().eval()
            return worst(logits_of(load(out), whole_rows()), logits_of(merged, whole_rows()))
        self.check(f"merge {name}", merge)

        def export():
            out = self.new("merged-export")
            self.flipside("export", "--model", base, "--adapter", folder, "--output", out, "--precision", "f32")
            return worst(logits_of(load(out), whole_rows()), logits_of(adapter, whole_rows()))
        self.check(f"export {name} with an adapter", export)

        def ours():
            out = self.new("our-adapter")
            self.flipside("sft", "--model", base, "--data", self.data["texts"], "--steps", 3, "--lora", "r=4,targets=all", "--output", out,
                          "--session", self.new("session"), "--json")
            plain = fresh().eval()
            before = logits_of(plain, whole_rows())
            with no_warnings():
                model = peft.PeftModel.from_pretrained(plain, out).eval()
            if worst(logits_of(model, whole_rows()), before) == 0:
                raise Refused("the adapter changes nothing there")
            return self.agree(base, model, "texts", "--adapter", out)
        self.check(f"adapter {name}: ours there", ours)

    def kinds_of_adapters(self, bases):
        """Adapters that peft makes and that are only read here: each kind on a GPT-2, a Llama and a Llama with tied embeddings."""
        kinds = {
            "ends": lambda first, ends: dict(target_modules=[first, *ends]),
            "saved ends": lambda first, ends: dict(target_modules=[first], modules_to_save=ends),
            "pattern": lambda first, ends: dict(target_modules=rf".*\.[12]\..*{first}$", rank_pattern={rf"1\..*{first}": 2}, alpha_pattern={first: 5}),
            "DoRA": lambda first, ends: dict(target_modules=[first, ends[1]], use_dora=True),
            "layers": lambda first, ends: dict(target_modules=[first], layers_to_transform=[0, 2]),
            "excluded": lambda first, ends: dict(target_modules="all-linear", exclude_modules=[first]),
            "all biases": lambda first, ends: dict(target_modules=[first], bias="all"),
            "tokens": lambda first, ends: dict(target_modules=[first], trainable_token_indices={ends[0]: [3, 40, 41]}),
            "PiSSA": lambda first, ends: dict(target_modules=[first], init_lora_weights="pissa"),
        }
        for name, first, ends in [("gpt2", "c_attn", ["wte", "lm_head"]), ("llama2", "q_proj", ["embed_tokens", "lm_head"]), ("llama3", "q_proj", ["embed_tokens", "lm_head"])]:
            for kind, settings in kinds.items():
                def work():
                    fresh = lambda: tf.AutoModelForCausalLM.from_pretrained(bases[name], dtype=torch.float32)
                    adapter = peft.get_peft_model(fresh(), peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=12, fan_in_fan_out=name == "gpt2", **settings(first, ends)))
                    with torch.no_grad():
                        for parameter in (p for p in adapter.parameters() if p.requires_grad):
                            parameter.add_(torch.randn_like(parameter) * 0.1)
                    folder = self.new("their-adapter")
                    adapter.save_pretrained(folder)
                    theirs = peft.PeftModel.from_pretrained(fresh(), folder).eval()
                    found = self.agree(bases[name], theirs, "texts", "--adapter", folder)
                    out = self.new("merged")
                    self.flipside("merge", "--model", bases[name], "--adapter", folder, "--output", out)
                    return max(found, worst(logits_of(load(out), whole_rows()), logits_of(theirs, whole_rows())))
                self.check(f"adapter {name}, {kind}: theirs here", work)

    def run(self):
        torch.manual_seed(0)
        bases = {name: self.causal(name, config) for name, config in configs().items()}
        self.causal("gpt2 untied", tf.GPT2Config(**GPT2, tie_word_embeddings=False))
        self.causal("qwen2 tied", tf.Qwen2Config(**LLAMA, tie_word_embeddings=True))
        self.causal("gpt2 sharded", configs()["gpt2"], shard="60KB")
        self.causal("llama2 sharded, bfloat16", configs()["llama2"], torch.bfloat16, "60KB")
        self.causal("gpt2 bfloat16", configs()["gpt2"], torch.bfloat16)
        self.causal("llama3 bfloat16", configs()["llama3"], torch.bfloat16)
        self.base()
        for name, base in bases.items():
            self.trained(name, base)
        for name, config in configs(num_labels=1).items():
            self.reward(name, config, bases[name])
        self.reward_with_end_as_padding()
        for name, base in bases.items():
            self.adapters(name, base)
        self.kinds_of_adapters(bases)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flipside", type=pathlib.Path, default=ROOT / "target/release/flipside", metavar="FILE",
                        help="the program (default: this tree's target/release/flipside)")
    parser.add_argument("--only", metavar="WORD", help="only the checks whose name contains this")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="keep the files in this new folder")
    arguments = parser.parse_args()
    if not arguments.flipside.is_file():
        sys.exit(f"there is no {arguments.flipside}: build it with `cargo xtask build`, or name it with --flipside")
    tf.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    print(f"transformers {tf.__version__}, peft {peft.__version__}, torch {torch.__version__}, tokenizers {tokenizers.__version__}; tolerance {TOLERANCE:g}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        interop = Interop(arguments.flipside.absolute(), folder.absolute(), arguments.only)
        interop.run()
    groups = {}
    for name, error, good in interop.results:
        groups.setdefault(name.split()[0], []).append((error, good))
    print("\n| check | passed | worst error |\n| --- | ---: | ---: |")
    for group, all_ in groups.items():
        errors = [error for error, _ in all_ if error is not None]
        print(f"| {group} | {sum(good for _, good in all_)} of {len(all_)} | {f'{max(errors):.1e}' if errors else '–'} |")
    failed = sum(not good for *_, good in interop.results)
    print(f"\n{len(interop.results) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not interop.results else 0)


if __name__ == "__main__":
    main()
