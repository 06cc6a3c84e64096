"""Writes gguf/tiny.gguf beside this file, a Llama with random weights in the number types of whole models, and what transformers and
tokenizers make of it (expected.json). blocks.json has random blocks of every quantised number type and their numbers. The other files
have a tokenizer of each kind and next to no weights; words.json has what the tokenizers that they were made of answer.

    python tests/golden/text/make_gguf.py

Needs torch, transformers, tokenizers and gguf.
"""

import json
import pathlib

import gguf
import numpy as np
import torch
import transformers as tf
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from make import CORPUS, LLAMA3, STRINGS

HERE = pathlib.Path(__file__).parent / "gguf"
D, INNER, HEADS, KV, BLOCKS = 32, 64, 4, 2, 2
TYPES = {"attn_q": "Q8_0", "attn_k": "Q4_1", "attn_v": "F16", "attn_output": "BF16", "ffn_gate": "Q4_0", "ffn_up": "Q4_1", "ffn_down": "Q8_0", "token_embd": "Q8_0"}


def tokenizer():
    """SmolLM's kind: single digits, byte-level."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=288, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator(CORPUS, trainer)
    return t, specials


def blocks():
    """Two random blocks of each quantised type, with scales that are usual ones."""
    rng = np.random.default_rng(1)
    # Where the f16 numbers of a block are.
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
              "Q5_K": [0, 2], "Q6_K": [208]}
    found = {}
    for name, places in halves.items():
        kind = gguf.GGMLQuantizationType[name]
        raw = rng.integers(0, 256, (2, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
        for place in places:
            raw[:, place:place + 2] = rng.uniform(-0.1, 0.1, 2).astype(np.float16)[:, None].view(np.uint8)
        numbers = gguf.quants.dequantize(raw, kind)
        found[kind.value] = {"bytes": raw.ravel().tolist(), "numbers": numbers.ravel().tolist()}
    (HERE / "blocks.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# What tells the kinds apart: numbers, capitals behind an apostrophe, marks.
TELLING = ["In 2026, 365 and 1234567 of 2026", "DON'T WE'LL don't", "नमस्ते दुनिया, नमस्ते", "x\u0301y\u0323z"]
# By the file's name: the architecture, `tokenizer.ggml.pre`, the expression, whether texts begin with the first token, normaliser.
BYTE_LEVEL = {
    "llama-bpe": ("llama", "llama-bpe", LLAMA3, True, None),
    "smollm3": ("smollm3", "smaug-bpe", LLAMA3, False, None),
    "qwen2": ("qwen2", "qwen2", QWEN2, False, normalizers.NFC()),
    "qwen35": ("qwen3", "qwen35", QWEN35, False, normalizers.NFC()),
}


def byte_level(expression, begins, normalizer):
    """A tokenizer as the models of this kind have it in their tokenizer.json."""
    t = Tokenizer(models.BPE(ignore_merges=expression == LLAMA3))
    if normalizer:
        t.normalizer = normalizer
    split = pre_tokenizers.Split(Regex(expression), "isolated", invert=False)
    t.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    # Merges that one kind of words allows and another does not.
    free = Tokenizer(models.BPE())
    free.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=alphabet, show_progress=False)
    words = [word for text in TELLING + ["1 12 123 20 26", "'T 'LL", "न म स् ते"] for word in text.split()]
    free.train_from_iterator(words * 5, trainer)
    state, learned = json.loads(t.to_str()), json.loads(free.to_str())
    for key in ["vocab", "merges"]:
        state["model"][key] = learned["model"][key]
    state["added_tokens"] = learned["added_tokens"]
    t = Tokenizer.from_str(json.dumps(state))
    if begins:
        t.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return t


def vocabulary_file(name, architecture, tokens, add):
    """A GGUF file with a tokenizer and embeddings of two numbers."""
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", architecture)
    w.add_context_length(64)
    w.add_embedding_length(2)
    w.add_block_count(0)
    w.add_feed_forward_length(2)
    w.add_head_count(1)
    w.add_token_list(tokens)
    add(w)
    w.add_tensor("token_embd.weight", np.zeros((len(tokens), 2), np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def words():
    """The tokenizers of each kind. That each kind is told apart by its answers is checked here."""
    found, texts = {}, STRINGS + TELLING
    for name, (architecture, pre, expression, begins, normalizer) in BYTE_LEVEL.items():
        t = byte_level(expression, begins, normalizer)
        state = json.loads(t.to_str())["model"]
        tokens = sorted(state["vocab"], key=state["vocab"].get)

        def add(w):
            w.add_tokenizer_model("gpt2")
            w.add_tokenizer_pre(pre)
            w.add_token_types([3 if token in ("<|begin|>", "<|end|>") else 1 for token in tokens])
            w.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in state["merges"]])
            w.add_bos_token_id(0)
            w.add_eos_token_id(1)

        vocabulary_file(name, architecture, tokens, add)
        found[name] = {"plain": [t.encode(text, add_special_tokens=False).ids for text in texts], "special": [t.encode(text).ids for text in texts]}
        others = [byte_level(other, begins, normalizer) for _, _, other, _, _ in BYTE_LEVEL.values() if other != expression]
        assert all([o.encode(text).ids for text in texts] != found[name]["special"] for o in others), name
    # SentencePiece: the scores of its tokens are the order of its merges.
    golden = json.loads((HERE.parent / "tokenizers.json").read_text())["tokenizers"]["llama2"]["json"]
    t, state = Tokenizer.from_str(golden), json.loads(golden)["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    ranks = {"".join(merge if isinstance(merge, list) else merge.split(" ")): -float(i + 1) for i, merge in reversed(list(enumerate(state["merges"])))}
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}

    def add_pieces(w):
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_types([kinds.get(token, 6 if token.startswith("<0x") else 1) for token in tokens])
        w.add_token_scores([0.0 if token in kinds or token.startswith("<0x") else ranks.get(token, -1e4) for token in tokens])
        w.add_unk_token_id(0)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_add_bos_token(True)

    vocabulary_file("llama", "llama", tokens, add_pieces)
    found["llama"] = {"plain": [t.encode(text, add_special_tokens=False).ids for text in texts], "special": [t.encode(text).ids for text in texts]}
    (HERE / "words.json").write_text(json.dumps({"texts": texts, "tokens": found}, separators=(",", ":"), ensure_ascii=False) + "\n")


def main():
    HERE.mkdir(exist_ok=True)
    t, specials = tokenizer()
    state = json.loads(t.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    rng = np.random.default_rng(0)
    file = HERE / "tiny.gguf"
    w = gguf.GGUFWriter(file, "llama")
    w.add_context_length(64)
    w.add_embedding_length(D)
    w.add_block_count(BLOCKS)
    w.add_feed_forward_length(INNER)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(100.0)
    w.add_rope_dimension_count(D // HEADS)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([3 if token in specials else 1 for token in tokens])
    w.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in state["merges"]])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_pad_token_id(2)
    w.add_add_bos_token(False)
    w.add_chat_template("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}")

    def add(name, *shape):
        values = (rng.standard_normal(shape) * 0.3 + (1.0 if len(shape) == 1 else 0.0)).astype(np.float32)
        kind = gguf.GGMLQuantizationType[TYPES.get(name.split(".")[-2], "F32") if len(shape) > 1 else "F32"]
        w.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), D)
    for i in range(BLOCKS):
        for name, shape in [("attn_norm", (D,)), ("attn_q", (D, D)), ("attn_k", (D * KV // HEADS, D)), ("attn_v", (D * KV // HEADS, D)), ("attn_output", (D, D)),
                            ("ffn_norm", (D,)), ("ffn_gate", (INNER, D)), ("ffn_up", (INNER, D)), ("ffn_down", (D, INNER))]:
            add(f"blk.{i}.{name}.weight", *shape)
    add("output_norm.weight", D)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    model = tf.AutoModelForCausalLM.from_pretrained(HERE, gguf_file="tiny.gguf", dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(0, len(tokens), (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids).logits[0]
    expected = {"transformers": tf.__version__, "gguf": "0.19.0", "ids": ids[0].tolist(), "logits": [[round(x, 5) for x in row] for row in logits.tolist()],
                "texts": STRINGS, "tokens": [t.encode(text).ids for text in STRINGS]}
    (HERE / "expected.json").write_text(json.dumps(expected, separators=(",", ":"), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
    blocks()
    words()
