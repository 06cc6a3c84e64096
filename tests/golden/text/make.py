"""Writes what Hugging Face's tokenizers (0.23) answers, for src/text/tokenizer/tests.rs to compare with.

    python -m venv v && v/bin/pip install tokenizers && v/bin/python tests/golden/text/make.py
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent

CORPUS = [
    "The kettle's lid closes with a soft click; the spout doesn't drip.",
    "I've had 3 kettles in 12 years, and they'd all leaked by the 365th day!",
    "Der Kessel pfeift, wenn das Wasser kocht: schön, größer, außen.",
    "La théière est très belle, mais le bec goutte. C'est l'été.",
    "ケトルの蓋は静かに閉まります。お茶がおいしい。",
    "Чайник кипит быстро, крышка закрывается плотно.",
    "def pour(cup):\n    while cup.level < 0.9:\n        cup.level += 0.1\n\treturn cup\n",
    "the kettle the kettle the kettle the lid the lid the spout",
] * 3

STRINGS = [
    "",
    " ",
    "The kettle's lid doesn't close.",
    "  two  spaces\tand a tab\nand\n\n\nlines   ",
    "1234567 in 2026, 3.14159",
    "schöner Kessel, größte Théière, été",
    "ケトルの蓋 お茶",
    "Чайник кипит",
    "naïve e\u0301 \u00a0 \u200b \ufeff \u2028",
    "emoji 🫖🍵 family 👩‍👩‍👧‍👦 flag 🇩🇪",
    "I'LL we'Ve don'T 's 'S",
    "<|end|>half<|pad|> <s>x</s> <|im_start|>user\n",
    "if x:\n        y = x\n\n\n    z",
    "a" * 40 + " " + "ab" * 20,
    "\u0000\u0001\u007f",
]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(tokenizer, specials, size, alphabet):
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt2():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    return train(t, ["<|end|>", "<|pad|>"], 480, pre_tokenizers.ByteLevel.alphabet())


def llama3():
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    t.decoder = decoders.ByteLevel()
    train(t, ["<|begin_of_text|>", "<|end_of_text|>"], 450, pre_tokenizers.ByteLevel.alphabet())
    t.add_special_tokens([AddedToken("<|im_start|>", special=True, normalized=False)])
    begin = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    return t


def llama2():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    train(t, ["<unk>", "<s>", "</s>"] + bytes_, 520, [])
    # Bytes are tokens of the vocabulary and no special ones.
    state = json.loads(t.to_str())
    state["added_tokens"] = [a for a in state["added_tokens"] if a["content"] in ("<unk>", "<s>", "</s>")]
    t = Tokenizer.from_str(json.dumps(state))
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])
    return t


def main():
    golden = {"corpus": CORPUS, "tokenizers": {}}
    for name, make in [("gpt2", gpt2), ("llama3", llama3), ("llama2", llama2)]:
        t = make()
        cases = []
        for text in STRINGS:
            plain, special = t.encode(text, add_special_tokens=False).ids, t.encode(text).ids
            cases.append(
                {
                    "text": text,
                    "plain": plain,
                    "special": special,
                    "decoded": t.decode(special),
                    "decoded_with_special": t.decode(special, skip_special_tokens=False),
                }
            )
        golden["tokenizers"][name] = {"json": t.to_str(pretty=False), "cases": cases}
    (HERE / "tokenizers.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
