#!/usr/bin/env python3
"""Cases in which language-model libraries go wrong by public reports, judged by transformers, peft and their tokenizers.

    tests/peers/run cases [--flipside FILE] [--only WORD …] [--tokenizers DIR]

README.md beside this file says what is checked.
"""
import argparse
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import peft
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/text"
CHATS = json.loads((GOLDEN / "chat.json").read_text())["chats"]
TOKENIZERS = {name: of["json"] for name, of in json.loads((GOLDEN / "tokenizers.json").read_text())["tokenizers"].items()}
TOLERANCE = 1e-4
END = {"eos_token": "<|end|>"}
LLAMA2 = {"bos_token": "<s>", "eos_token": "</s>"}
CASES = []


def case(title):
    """Enters a function as a case. It raises an AssertionError if Flipside is wrong."""
    def enter(function):
        CASES.append((title, function))
        return function
    return enter


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


class Judge:
    """Flipside and transformers in one folder."""

    def __init__(self, flipside, folder, tokenizers):
        self.flipside, self.folder, self.tokenizers, self.made = flipside, folder, tokenizers, 0

    def new(self, name=""):
        self.made += 1
        return self.folder / f"{self.made:03}{name}"

    def run(self, *arguments):
        """Runs `flipside text`. A trace of a panic or of libtorch is always wrong."""
        command = [self.flipside, "text", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        said = done.stdout + done.stderr
        assert not any(trace in said for trace in ("panicked", "frame #", "c10::")), f"a trace: {said[-300:]}"
        return done

    def works(self, *arguments):
        done = self.run(*arguments)
        assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-300:]}"
        return done

    def json(self, *arguments):
        return json.loads(self.works(*arguments, "--json").stdout.strip().splitlines()[-1])

    def refuses(self, words, *arguments):
        """It must refuse in one line that has these words."""
        done = self.run(*arguments)
        errors = [line for line in done.stderr.splitlines() if line.startswith("flipside: ")]
        assert done.returncode != 0 and len(errors) == 1, f"exit {done.returncode}: {done.stderr[-300:]}"
        missing = [word for word in words if word not in errors[0]]
        assert not missing, f"{missing} not in: {errors[0]}"

    def model(self, base="gpt2", config=None, *, rows=None, positions=128, score=False, tokenizer=None, llama=False, **more):
        """A folder with a small random model and this tokenizer."""
        folder = self.new()
        folder.mkdir()
        (folder / "tokenizer.json").write_text(tokenizer or TOKENIZERS[base])
        if config is not None:
            config = {**config, "tokenizer_class": "PreTrainedTokenizerFast"}
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
        rows = rows or len(self.tokens(folder))
        ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 1 if score else None, **more}
        torch.manual_seed(self.made)
        if llama:
            small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
            model = tf.LlamaForCausalLM(tf.LlamaConfig(vocab_size=rows, max_position_embeddings=positions, **small, **ids))
        else:
            settings = tf.GPT2Config(vocab_size=rows, n_positions=positions, n_embd=32, n_layer=2, n_head=4, num_labels=1, **ids)
            model = (tf.GPT2ForSequenceClassification if score else tf.GPT2LMHeadModel)(settings)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(3)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        return folder

    @staticmethod
    def chat(name):
        """The tokenizer and the configuration of one of the golden templates."""
        chat = CHATS[name]
        return chat["tokenizer"], {**chat["config"], "chat_template": chat["template"]}

    @staticmethod
    def tokens(folder):
        return tf.AutoTokenizer.from_pretrained(folder)

    @staticmethod
    def causal(folder):
        return tf.AutoModelForCausalLM.from_pretrained(folder).eval()

    def data(self, *lines):
        path = self.new(".jsonl")
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def scores(self, model, data, *more):
        """What `text eval --logprobs` writes."""
        path = self.new(".npz")
        self.works("eval", "--model", model, "--data", data, "--logprobs", path, *more)
        return np.load(path)

    def greedy(self, folder, prompt, count, **more):
        """transformers' greedy tokens after a prompt."""
        ids = self.tokens(folder)(prompt, return_tensors="pt").input_ids
        found = self.causal(folder).generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=1, **more)
        return found[0, ids.shape[1]:].tolist()

    @staticmethod
    def reward(folder, ids, **more):
        """transformers' score of these tokens."""
        model = tf.AutoModelForSequenceClassification.from_pretrained(folder, **more).eval()
        with torch.no_grad():
            return model(torch.tensor([ids])).logits.item()


def near(found, expected):
    worst = float(np.abs(np.asarray(found) - np.asarray(expected)).max())
    assert worst < TOLERANCE, f"{worst:.2g} off"


@case("1 a conversation ends as its template ends it")
def ends_once(judge):
    for name in CHATS:
        folder = judge.model(*judge.chat(name), positions=200)
        tokens = judge.tokens(folder)
        talk = [user("Hi"), assistant("Yes.")]
        ids = tokens(tokens.apply_chat_template(talk, tokenize=False), add_special_tokens=False).input_ids
        whole = judge.scores(folder, judge.data({"messages": talk}))
        assert whole["tokens"].tolist() == ids[1:], f"{name}: other tokens"
        with torch.no_grad():
            expected = judge.causal(folder)(torch.tensor([ids])).logits.log_softmax(-1)[0, :-1]
        near(whole["logprobs"], expected.gather(1, torch.tensor(ids[1:])[:, None])[:, 0])
        answer = judge.scores(folder, judge.data({"prompt": talk[:1], "completion": talk[1:]}))["tokens"].tolist()
        assert answer == ids[-len(answer):], f"{name}: other tokens of the answer"


@case("2 prompt and completion have the tokens of the whole text")
def whole_text(judge):
    folders = [judge.model("llama2", LLAMA2), judge.model("llama2", LLAMA2, llama=True), judge.model("gpt2", END)]
    if judge.tokenizers:
        for name in ("llama2", "llama3_1", "qwen3", "deepseek_v3"):
            [tokenizer] = (judge.tokenizers / name).glob("**/tokenizer.json")
            folder = judge.model(tokenizer=tokenizer.read_text(), config={}, llama=True)
            shutil.copy(tokenizer.parent / "tokenizer_config.json", folder)
            folders.append(folder)
    for folder in folders:
        tokens = judge.tokens(folder)
        for prompt, completion in [("Q: how far?\nA:", " two streets"), ("Now", "\nYes"), ("I keep boo", "ts"), ("größ", "er 🫖")]:
            found = judge.scores(folder, judge.data({"prompt": prompt, "completion": completion}))["tokens"].tolist()
            ids = tokens(prompt + completion).input_ids + [tokens.eos_token_id]
            assert found == ids[-len(found):] and len(found) < len(ids), f"{prompt + completion!r}: {found}, not of {ids}"


@case("3 policy and reward model with different tokenizers or contexts")
def other_judge(judge):
    policy, prompts = judge.model("gpt2", END), judge.data({"prompt": "The kettle"}, {"prompt": "Der Kessel pfeift"})
    ppo = ["ppo", "--model", policy, "--data", prompts, "--steps", 2, "--batch", 4, "--session"]
    for base, config in [("llama3", {"eos_token": "<|end_of_text|>"}), ("llama2", LLAMA2)]:
        reward = judge.model(base, config, score=True)
        judge.works(*ppo, judge.new(), "--reward", reward, "--max-new-tokens", 8)
    short = judge.model("gpt2", END, score=True, positions=16)
    judge.refuses(["16 positions", "24 tokens"], *ppo, judge.new(), "--reward", short, "--max-new-tokens", 24)
    judge.works(*ppo, judge.new(), "--reward", short, "--max-new-tokens", 12)


@case("4 reward models whose padding token is the end")
def pad_is_end(judge):
    folder = judge.model("gpt2", {**END, "pad_token": "<|end|>"}, eos_token_id=0, pad_token_id=0)
    output, tokens = judge.new(), judge.tokens(folder)
    pairs = judge.data(*[{"prompt": "The", "chosen": f" kettle{i}", "rejected": f" lid {i}"} for i in range(8)])
    judge.works("reward", "--model", folder, "--data", pairs, "--steps", 4, "--session", judge.new(), "--output", output)
    found = judge.scores(output, pairs)
    bias = json.loads((output / "config.json").read_text()).get("flipside_score_bias", 0.0)
    for side, word in [("chosen", " kettle"), ("rejected", " lid ")]:
        expected = [judge.reward(output, tokens(f"The{word}{i}").input_ids + [0]) + bias for i in range(8)]
        near(found[side], expected)


@case("5, 6 forms of data, and text that would not be used")
def forms(judge):
    folder = judge.model(*judge.chat("chatml"), positions=200, score=True)
    tokens = judge.tokens(folder)
    asked, good, bad = user("How far?"), assistant("Two."), assistant("Far.")
    share_gpt = {"conversations": [{"from": "human", "value": "How far?"}], "chosen": {"from": "gpt", "value": "Two."},
                 "rejected": {"from": "gpt", "value": "Far."}}
    parts = {"role": "user", "content": [{"type": "text", "text": "How far?"}]}
    lines = [
        {"prompt": "How far?", "chosen": [asked, good], "rejected": [asked, bad]},
        {"prompt": [asked], "chosen": [good], "rejected": [bad]},
        {"question": "How far?", "chosen": "Two.", "rejected": "Far."},
        {"question": "How far?", "response_j": "Two.", "response_k": "Far."},
        {"history": "How far?", "human_ref_A": "Far.", "human_ref_B": "Two.", "labels": 0},
        {"chosen": [parts, good], "rejected": [parts, bad]},
        share_gpt,
    ]
    for line in lines:
        found = judge.scores(folder, judge.data(line))
        for side, answer in [("chosen", good), ("rejected", bad)]:
            text = tokens.apply_chat_template([asked, answer], tokenize=False)
            near(found[side], judge.reward(folder, tokens(text, add_special_tokens=False).input_ids))
    odd = judge.data({"prompt": "How far?", "chosen": "Two.", "rejected": "Far.", "context": "It is two streets away."})
    judge.refuses(['"context"', "--ignore-fields"], "eval", "--model", folder, "--data", odd)
    judge.works("eval", "--model", folder, "--data", odd, "--ignore-fields")


@case("7 a finished session with other settings")
def other_settings(judge):
    one, two, session = judge.model("gpt2", END), judge.model("gpt2", END), judge.new()
    data = judge.data(*[{"prompt": "The kettle", "completion": " is far."}] * 6)
    judge.works("sft", "--model", one, "--data", data, "--steps", 4, "--session", session)
    judge.refuses(["text.model"], "sft", "--model", two, "--data", data, "--steps", 4, "--session", session)


@case("8 up to and past the model's context")
def context(judge):
    for llama in (False, True):
        folder = judge.model("gpt2", END, llama=llama)
        length = len(judge.tokens(folder)("The kettle").input_ids)
        write = ["generate", "--model", folder, "--prompt", "The kettle", "--temperature", 0, "--max-new-tokens"]
        for count in (130 - length, 128, 129, 1000):
            judge.refuses(["128 positions"], *write, count)
            judge.refuses(["128 positions"], *write, count, "--json")
        judge.works(*write, 129 - length)
        found = judge.json(*write, 129 - length)["completions"][0]["tokens"]
        expected = judge.greedy(folder, "The kettle", 128 - length, eos_token_id=0)
        assert found[:len(expected)] == expected, "other tokens"
        long = judge.data({"prompt": "a " * 200})
        judge.refuses(["128 positions"], "generate", "--model", folder, "--data", long)


@case("9 ends that only generation_config.json names")
def ends(judge):
    folder = judge.model("gpt2", END)
    free = judge.greedy(folder, "The kettle", 12, eos_token_id=0)
    listed = {"eos_token_id": [0, free[4]], "pad_token_id": 1, "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(listed))
    write = ["generate", "--model", folder, "--prompt", "The kettle", "--temperature", 0, "--max-new-tokens", 12]
    found = judge.json(*write)["completions"][0]
    assert found["stopped"] and found["tokens"] == free[:free.index(free[4]) + 1], found
    output = judge.new()
    judge.works("export", "--model", folder, "--output", output)
    exported = json.loads((output / "generation_config.json").read_text())
    assert {key: exported[key] for key in listed} == listed, exported


@case("10 stray arrays of other kinds")
def stray_arrays(judge):
    folder, data = judge.model("gpt2", END), judge.data({"text": "The kettle"})
    before = judge.scores(folder, data)["logprobs"]
    path = folder / "model.safetensors"
    arrays = load_file(path)
    arrays["transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    arrays["extra"] = torch.arange(3, dtype=torch.int32)
    save_file(arrays, path, metadata={"format": "pt"})
    near(judge.scores(folder, data)["logprobs"], before)


@case("11 a template that opens <think> only when it asks")
def think(judge):
    folder = judge.model(*judge.chat("deepseek_r1"), positions=200)
    lines = judge.data(*[{"prompt": [user("Hi")], "completion": [assistant("Yes.")]}] * 4)
    judge.works("sft", "--model", folder, "--data", lines, "--steps", 2, "--session", judge.new())


@case("12 pairs that part inside a word")
def inside_a_word(judge):
    folder = judge.model("gpt2", END, score=True)
    tokens, start = judge.tokens(folder), "\n\nHuman: q\n\nAssistant: I keep "
    found = judge.scores(folder, judge.data({"chosen": start + "boots", "rejected": start + "books"}))
    for side, word in [("chosen", "boots"), ("rejected", "books")]:
        near(found[side], judge.reward(folder, tokens(start + word).input_ids + [0]))


@case("13 figures are those of the end")
def figures(judge):
    folder, reward = judge.model("gpt2", END), judge.model("gpt2", END, score=True)
    data = judge.data(*[{"prompt": "The kettle", "completion": " is far."}] * 6)
    for verb in (["sft", "--steps", 12], ["ppo", "--reward", reward, "--steps", 4, "--batch", 4, "--max-new-tokens", 8]):
        command = [*verb, "--model", folder, "--data", data, "--session", judge.new()]
        first, again = judge.json(*command)["figures"], judge.json(*command)["figures"]
        assert first and first == again, f"{first} and then {again}"


@case("14 a damaged file is named")
def damaged(judge):
    files = {"tokenizer_config.json": '{"eos_token": "<|end|>",}', "special_tokens_map.json": "{", "added_tokens.json": "[]",
             "generation_config.json": "[1", "chat_template.json": "3", "tokenizer.json": TOKENIZERS["gpt2"][:-200]}
    for name, text in files.items():
        folder = judge.model("gpt2", END)
        (folder / name).write_text(text)
        judge.refuses([name], "generate", "--model", folder, "--prompt", "a")


@case("15 special_tokens_map.json alone names the end")
def map_alone(judge):
    tokenizer = json.loads(TOKENIZERS["gpt2"])
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 480, "content": "<stop>"})
    folder = judge.model(tokenizer=json.dumps(tokenizer), rows=482)
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<stop>"}')
    assert judge.tokens(folder).eos_token_id == 480
    found = judge.scores(folder, judge.data({"prompt": "The", "completion": " kettle"}))
    assert found["tokens"][-1] == 480, found["tokens"]


@case("17, 18 more tokens than rows, and a token without a row")
def rows(judge):
    data = judge.data({"prompt": "The", "completion": " kettle"})
    for config, count in [({**END, "pad_token": "[PAD]"}, 480), (END, 479)]:
        folder = judge.model("gpt2", config, rows=count)
        judge.works("generate", "--model", folder, "--prompt", "The kettle", "--max-new-tokens", 3)
        judge.scores(folder, data)
    without = judge.model("gpt2", {"eos_token": "<stop>"}, rows=480)
    judge.works("generate", "--model", without, "--prompt", "The kettle", "--max-new-tokens", 3)
    judge.refuses(["<stop>", "480 rows"], "eval", "--model", without, "--data", data)
    tokenizer = json.loads(TOKENIZERS["gpt2"])
    tokenizer["model"]["vocab"]["a"] = 600
    far = judge.model(tokenizer=json.dumps(tokenizer), config=END, rows=482)
    judge.refuses(["600", "482 rows"], "eval", "--model", far, "--data", judge.data({"text": "a"}))


@case("21 files by their bytes")
def files(judge):
    folder, line, path = judge.model("gpt2", END), '{"prompt":"The","completion":" köttle"}\n', judge.new()

    def evaluated(data):
        path.write_bytes(data)
        return ["eval", "--model", folder, "--data", path]

    plain = line.encode()
    expected = judge.json(*evaluated(plain))
    for data in (gzip.compress(plain), b"\xef\xbb\xbf" + plain, b"[" + plain + b"]"):
        assert judge.json(*evaluated(data)) == expected
    for data, word in [(line.encode("utf-16"), "UTF-16"), (line.encode("utf-16-le"), "UTF-16"), (line.encode("latin-1"), "Latin-1")]:
        judge.refuses([word], *evaluated(data))


@case("22 prompt and answer joined as decoded together")
def joined(judge):
    for base, config in [("llama2", LLAMA2), ("gpt2", END)]:
        folder = judge.model(base, config, llama=True)
        tokens, prompt = judge.tokens(folder), "Q: far?\nA:"
        write = ["generate", "--model", folder, "--prompt", prompt, "--temperature", 0, "--max-new-tokens", 24]
        found = judge.json(*write)["completions"][0]
        whole = tokens.decode(tokens(prompt).input_ids + found["tokens"], skip_special_tokens=True)
        assert found["prompt"] + found["text"] == whole, f"{found['text']!r} is not the end of {whole!r}"
        streamed = judge.works(*write).stdout
        assert streamed == found["text"] + "\n", f"streamed {streamed!r}, not {found['text']!r}"


@case("weights that are not numbers")
def not_numbers(judge):
    folder = judge.model("gpt2", END)
    arrays = load_file(folder / "model.safetensors")
    arrays["transformer.h.0.mlp.c_fc.weight"][0, 0] = float("nan")
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    judge.refuses(["finite"], "eval", "--model", folder, "--data", judge.data({"text": "The kettle"}), "--json")
    judge.refuses(["finite"], "generate", "--model", folder, "--prompt", "a")


@case("a reward's bias")
def bias(judge):
    folder, pairs = judge.model("gpt2", END, score=True), judge.data({"chosen": "The a", "rejected": "The b"})
    before = judge.scores(folder, pairs)["chosen"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "flipside_score_bias": 2.5}))
    near(judge.scores(folder, pairs)["chosen"], before + 2.5)


@case("answers that are all alike")
def alike(judge):
    folder, output = judge.model("gpt2", END), judge.new()
    pairs = judge.data(*[{"prompt": "The", "chosen": "x", "rejected": "y"}] * 6, {"prompt": "The", "chosen": "x", "rejected": "x"})
    judge.works("reward", "--model", folder, "--data", pairs, "--steps", 2, "--session", judge.new(), "--output", output)
    long = {"prompt": "The", "chosen": "a " * 150 + "x", "rejected": "a " * 150 + "y"}
    data = judge.data(long, {"prompt": "The", "chosen": "x", "rejected": "y"})
    done = judge.works("eval", "--model", output, "--data", data, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["pairs"] == 1 and "1 pairs are left out" in done.stderr, done.stderr


@case("an adapter's base, tokenizer and template")
def adapter(judge):
    base = judge.model("gpt2", END, score=True)
    model = tf.AutoModelForSequenceClassification.from_pretrained(base)
    settings = peft.LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["c_attn"], init_lora_weights=False)
    adapted, folder = peft.get_peft_model(model, settings).eval(), judge.new()
    adapted.save_pretrained(folder)
    prompts = judge.data({"prompt": "The kettle"}, {"prompt": "Der Kessel"})
    judge.works("ppo", "--model", judge.model("gpt2", END), "--reward", folder, "--data", prompts, "--steps", 2, "--batch", 4,
                "--max-new-tokens", 8, "--session", judge.new())
    # The end that the adapter's own tokenizer names. It is no padding here, so the score is read at it.
    shutil.copy(base / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "."}))
    ids = judge.tokens(base)("The a").input_ids + [judge.tokens(base).convert_tokens_to_ids(".")]
    with torch.no_grad():
        expected = adapted(torch.tensor([ids])).logits.item()
    pairs = judge.data({"chosen": "The a", "rejected": "The b"})
    near(judge.scores(base, pairs, "--adapter", folder)["chosen"], expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flipside", type=pathlib.Path, default=ROOT / "target/release/flipside", metavar="FILE",
                        help="the program (default: this tree's target/release/flipside)")
    parser.add_argument("--only", metavar="WORD", help="only the cases whose title contains this")
    parser.add_argument("--tokenizers", type=pathlib.Path, metavar="DIR",
                        help="real tokenizers for case 2, in the folders llama2, llama3_1, qwen3 and deepseek_v3")
    arguments = parser.parse_args()
    if not arguments.flipside.is_file():
        sys.exit(f"there is no {arguments.flipside}: build it with `cargo xtask build`, or name it with --flipside")
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    print("| case | |\n| --- | --- |")
    wrong = 0
    for title, function in CASES:
        if arguments.only and arguments.only not in title:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                function(Judge(arguments.flipside.absolute(), pathlib.Path(folder), arguments.tokenizers))
                verdict = "right"
            except Exception as why:
                words = str(why) if isinstance(why, AssertionError) else repr(why)
                verdict, wrong = f"**wrong**: {' '.join(words.split())[:300]}", wrong + 1
        print(f"| {title} | {verdict} |", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
