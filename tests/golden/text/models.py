"""Tiny language models of every supported family with random weights, and what transformers computes from them.

    python tests/golden/text/models.py [NAME …]

writes models/NAME/{config.json, model.safetensors, expected.json} and, with peft, adapters/NAME/{adapter_config.json,
adapter_model.safetensors, expected.json} beside this file: all of them, or those that are named. Needs torch, transformers, peft and
safetensors; expected.json names the versions. Every row of `ids` is padded on the left where `mask` is 0, and the logits of padding are left out (zeros)."""

import json
import pathlib
import shutil
import sys

import peft
import torch
import transformers as tf

HERE = pathlib.Path(__file__).parent / "models"
ADAPTERS = pathlib.Path(__file__).parent / "adapters"
ENDS = dict(bos_token_id=0, eos_token_id=1)
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
    "gpt2_exact": tf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=64, activation_function="gelu", scale_attn_by_inverse_layer_idx=True, **ENDS),
    "gemma": tf.GemmaConfig(**LLAMA, head_dim=8, pad_token_id=None, **ENDS),
    "gemma2": tf.Gemma2Config(**LLAMA, head_dim=8, query_pre_attn_scalar=6, sliding_window=4, attn_logit_softcapping=5.0, final_logit_softcapping=3.0, pad_token_id=None, **ENDS),
    "gemma3": tf.Gemma3TextConfig(**LLAMA | dict(num_hidden_layers=3), head_dim=8, query_pre_attn_scalar=8, sliding_window=4, pad_token_id=None, **ENDS,
                                  layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                  rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}),
    "phi3": tf.Phi3Config(**LLAMA, sliding_window=4, pad_token_id=None, **ENDS),
    "phi3_long": tf.Phi3Config(**LLAMA | dict(hidden_size=32), original_max_position_embeddings=8, pad_token_id=None, **ENDS,
                               rope_parameters={"rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": 0.5, "short_factor": [1.0, 1.5], "long_factor": [2.0, 5.0]}),
    "gpt_neox": tf.GPTNeoXConfig(vocab_size=40, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
                                 rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}, **ENDS),
    "gpt_neox_serial": tf.GPTNeoXConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
                                        use_parallel_residual=False, **ENDS),
    "opt": tf.OPTConfig(vocab_size=40, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=16, dropout=0.0, pad_token_id=3, **ENDS),
    "smollm3": tf.SmolLM3Config(**LLAMA, no_rope_layers=[1, 0], pad_token_id=None, **ENDS),
    "olmo2": tf.Olmo2Config(**LLAMA, pad_token_id=None, **ENDS),
    "qwen3_window": tf.Qwen3Config(**LLAMA, head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=1, **ENDS),
    "llama_linear": tf.LlamaConfig(**LLAMA, rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 100.0}, **ENDS),
    "llama_dynamic": tf.LlamaConfig(**LLAMA | dict(max_position_embeddings=8), rope_parameters={"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0}, **ENDS),
    "llama_yarn": tf.LlamaConfig(**LLAMA | dict(hidden_size=32), rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 100.0, "original_max_position_embeddings": 16, "beta_fast": 4.0}, **ENDS),
    "gpt_neox_score": tf.GPTNeoXConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64, num_labels=1, bos_token_id=0,
                                       eos_token_id=1, pad_token_id=1),
}

# Each adapter with the model that it is for.
LORA = dict(task_type="CAUSAL_LM", r=2, lora_alpha=6)
GPT2 = dict(LORA, fan_in_fan_out=True)
CONFIGS = {
    "gpt2_ends": ("gpt2", dict(GPT2, target_modules=["wte", "c_attn", "lm_head"])),
    "gpt2_dora": ("gpt2", dict(GPT2, target_modules=["c_attn", "c_fc"], use_dora=True)),
    "gpt2_bias": ("gpt2", dict(GPT2, target_modules=["c_proj"], bias="all")),
    "gpt2_lora_bias": ("gpt2", dict(GPT2, target_modules=["c_fc"], lora_bias=True, bias="lora_only")),
    "gpt2_pissa": ("gpt2", dict(GPT2, target_modules=["c_attn"], init_lora_weights="pissa")),
    "llama_pattern": ("llama", dict(LORA, target_modules=r".*\.1\.(?!.*up_)(self_attn\.[qv]_proj|mlp\.\w+_proj)", rank_pattern={"q_proj": 3, r"layers\.1\.mlp\..*": 1}, alpha_pattern={"v_proj": 5.0},
                                    use_rslora=True)),
    "llama_layers": ("llama", dict(LORA, target_modules=["q_proj", "down_proj"], layers_to_transform=[1], layers_pattern="layers")),
    "llama_exclude": ("llama", dict(LORA, target_modules="all-linear", exclude_modules=["0.self_attn.q_proj", "up_proj"])),
    "llama_saved": ("llama", dict(LORA, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "llama_tokens": ("llama", dict(LORA, target_modules=["q_proj"], trainable_token_indices=[3, 7])),
    "llama_olora": ("llama", dict(LORA, target_modules=["q_proj", "up_proj"], init_lora_weights="olora")),
    "llama_dora_ends": ("llama", dict(LORA, target_modules=["embed_tokens", "lm_head", "o_proj"], use_dora=True)),
    "llama3_ends": ("llama3", dict(LORA, target_modules=["embed_tokens", "lm_head", "v_proj"])),
    "llama3_saved": ("llama3", dict(LORA, target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "llama3_tokens": ("llama3", dict(LORA, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 7]})),
}


def expected(model, name, ids, mask):
    """The file of what `model` computes. `ids` and `mask` are left out where the file of `name` has them."""
    positions = (mask.cumsum(1) - mask).clamp(min=0)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    out = out if out.dim() == 2 else torch.where(mask.bool().unsqueeze(-1), out, 0.0)
    about = {"versions": {"torch": torch.__version__.split("+")[0], "transformers": tf.__version__}}
    about |= {"model": name} if name else {"ids": ids.tolist(), "mask": mask.tolist()}
    about["logits"] = [[round(x, 6) for x in row] for row in out.reshape(-1, out.shape[-1]).tolist()]
    return json.dumps(about, separators=(",", ":")) + "\n"


def write_adapter(name):
    base, settings = CONFIGS[name]
    torch.manual_seed(sum(map(ord, name)))
    folder = HERE / base
    model = peft.get_peft_model(tf.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager"), peft.LoraConfig(**settings))
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.2)
    target = ADAPTERS / name
    shutil.rmtree(target, ignore_errors=True)
    model.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)
    file = target / "adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": f"../models/{base}"}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    # What counts is what peft makes of the files.
    fresh = tf.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model = peft.PeftModel.from_pretrained(fresh, target).eval()
    golden = json.loads((folder / "expected.json").read_text())
    (target / "expected.json").write_text(expected(model, base, torch.tensor(golden["ids"]), torch.tensor(golden["mask"])))


def write_model(name):
    config = MODELS[name]
    torch.manual_seed(sum(map(ord, name)))
    config._attn_implementation = "eager"
    kind = tf.AutoModelForSequenceClassification if name.endswith("score") else tf.AutoModelForCausalLM
    model = kind.from_config(config).eval()
    usual = 0.0 if name.startswith("gemma") else 1.0
    with torch.no_grad():
        # Larger than a family starts with, so that every part of the model shows in the logits.
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (usual if parameter.dim() == 1 else 0.0))
    ids = torch.randint(0, 38, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, :4], mask[2, :9] = 0, 0
    ids = torch.where(mask == 1, ids, config.pad_token_id or 0)
    if name == "gpt_neox_score":
        # Padding is the end here, and a text has one: the score is read before it.
        ids[:, -1] = config.pad_token_id
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "expected.json").write_text(expected(model, None, ids, mask))


def main():
    names = sys.argv[1:] or [*MODELS, *CONFIGS]
    for name in names:
        write_model(name) if name in MODELS else write_adapter(name)


if __name__ == "__main__":
    main()
