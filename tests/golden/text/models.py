"""Tiny language models of every supported family with random weights, and what transformers computes from them.

    python tests/golden/text/models.py

writes models/FAMILY/{config.json, model.safetensors, expected.json} beside this file. Needs torch, transformers and safetensors; expected.json
names the versions. Every row of `ids` is padded on the left where `mask` is 0, and the logits of padding are left out (zeros)."""

import json
import pathlib
import shutil

import torch
import transformers as tf

HERE = pathlib.Path(__file__).parent / "models"
LLAMA = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
MODELS = {
    "gpt2": tf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=1),
    "llama": tf.LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True, bos_token_id=0, eos_token_id=1),
    "llama3": tf.LlamaConfig(**LLAMA, rope_theta=500.0, rope_scaling=LLAMA3, tie_word_embeddings=True, bos_token_id=0, eos_token_id=[1, 2]),
    "mistral": tf.MistralConfig(**LLAMA, sliding_window=4, bos_token_id=0, eos_token_id=1),
    "qwen2": tf.Qwen2Config(**LLAMA, bos_token_id=0, eos_token_id=1),
    "qwen3": tf.Qwen3Config(**LLAMA, head_dim=8, bos_token_id=0, eos_token_id=1),
    "llama_score": tf.LlamaConfig(**LLAMA, num_labels=1, pad_token_id=39, bos_token_id=0, eos_token_id=1),
}


def main():
    torch.manual_seed(0)
    for name, config in MODELS.items():
        config._attn_implementation = "eager"
        kind = tf.AutoModelForSequenceClassification if name.endswith("score") else tf.AutoModelForCausalLM
        model = kind.from_config(config).eval()
        with torch.no_grad():
            # Larger than a family starts with, so that every part of the model shows in the logits.
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if parameter.dim() == 1 else 0.0))
        ids = torch.randint(0, 38, (3, 11))
        mask = torch.ones_like(ids)
        mask[1, :4], mask[2, :9] = 0, 0
        positions = (mask.cumsum(1) - mask).clamp(min=0)
        ids = torch.where(mask == 1, ids, config.pad_token_id or 0)
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        out = out if out.dim() == 2 else torch.where(mask.bool().unsqueeze(-1), out, 0.0)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        expected = {"versions": {"torch": torch.__version__.split("+")[0], "transformers": tf.__version__}, "ids": ids.tolist(), "mask": mask.tolist(),
                    "logits": [[round(x, 6) for x in row] for row in out.reshape(-1, out.shape[-1]).tolist()]}
        (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
