#!/usr/bin/env python3
"""Does `flipside text look` see what TransformerLens sees?

    tests/peers/run look [--flipside FILE] [--only WORD] [--keep DIR] [--speed]

Random GPT-2 and Llama models, nothing folded (`no_processing`): activations by name, attention patterns, logit lens,
direct attribution and patching. README.md beside this file says what is checked. --speed also measures the logit lens
and residual patching on a model of GPT-2's size.
"""
import argparse
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ["TQDM_DISABLE"] = "1"

import interop
import numpy as np
import torch
import transformer_lens as tl
import transformers as tf
from interop import GPT2, LLAMA, Interop, Refused, ids_of, make, save
from transformer_lens import patching
from transformer_lens.loading_from_pretrained import convert_gpt2_weights, convert_llama_weights

CACHE_TOLERANCE = 1e-5
# Long enough for patching by position to be cut into several batches.
PROMPT = "the kettle the kettle the kettle the lid the lid the spout doesn't drip the kettle the lid"
OTHER = "the spout the kettle the kettle the lid the lid the spout doesn't drip the kettle the lid"


def hooked(model, config):
    """The model in TransformerLens, with its weights as they are."""
    llama = isinstance(config, tf.LlamaConfig)
    common = dict(d_vocab=config.vocab_size, device="cpu", dtype=torch.float32, model_name="random", attention_dir="causal", use_attn_scale=True)
    if llama:
        cfg = tl.HookedTransformerConfig(
            n_layers=config.num_hidden_layers, d_model=config.hidden_size, n_heads=config.num_attention_heads,
            d_head=config.hidden_size // config.num_attention_heads, d_mlp=config.intermediate_size, n_ctx=config.max_position_embeddings,
            n_key_value_heads=config.num_key_value_heads, act_fn="silu", gated_mlp=True, normalization_type="RMS", final_rms=True,
            eps=config.rms_norm_eps, positional_embedding_type="rotary", rotary_adjacent_pairs=False,
            rotary_dim=config.hidden_size // config.num_attention_heads, rotary_base=config.rope_parameters["rope_theta"],
            original_architecture="LlamaForCausalLM", **common)
    else:
        cfg = tl.HookedTransformerConfig(
            n_layers=config.n_layer, d_model=config.n_embd, n_heads=config.n_head, d_head=config.n_embd // config.n_head, d_mlp=4 * config.n_embd,
            n_ctx=config.n_positions, act_fn="gelu_new", normalization_type="LN", eps=config.layer_norm_epsilon,
            positional_embedding_type="standard", original_architecture="GPT2LMHeadModel", **common)
    lens = tl.HookedTransformer(cfg)
    weights = (convert_llama_weights if llama else convert_gpt2_weights)(model, cfg)
    lens.load_and_process_state_dict(weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False,
                                     refactor_factored_attn_matrices=False)
    return lens.eval()


def farthest(ours, theirs):
    """The largest difference; where both are −∞ there is none."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise Refused(f"the shapes are {ours.shape} and {theirs.shape}")
    same = ours == theirs
    return float(np.where(same, 0.0, np.abs(np.where(same, 0.0, ours) - np.where(same, 0.0, theirs))).max(initial=0.0))


class Look(Interop):
    def look(self, verb, folder, *more):
        """The JSON and the arrays of a verb."""
        file = self.new(f"{verb}.npz")
        about = self.flipside("look", verb, "--model", folder, *more, "--output", file, "--json")
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        metadata = json.loads(bytes(found.pop("metadata")))
        if metadata["processing"] != "none" or metadata["model"] != str(folder):
            raise Refused(f"the metadata are {metadata}")
        return about, found

    def scaled(self, name, error, tolerance):
        """An error in units of the tolerance that all checks share."""
        if error > tolerance:
            print(f"      {name}: {error:.1e}, allowed {tolerance:.0e}")
        return error * interop.TOLERANCE / tolerance

    def model(self, name, config):
        folder = self.new(name)
        model = make(config)
        save(model, folder)
        lens = hooked(model, config)
        tokens, others = (torch.tensor([ids_of(text)]) for text in (PROMPT, OTHER))
        if tokens.shape != others.shape:
            sys.exit("the two prompts have different lengths")
        logits, cache = lens.run_with_cache(tokens)
        better, worse = ids_of(" the")[0], ids_of(" lid")[0]
        pair = ["--tokens", ",".join(interop.TOKENIZER.decode([token]) for token in (better, worse))]
        metric = lambda logits: logits[0, -1, better] - logits[0, -1, worse]

        def activations():
            _, ours = self.look("cache", folder, "--prompt", PROMPT)
            if ours["tokens"].tolist() != tokens.tolist():
                raise Refused("the tokens are not the same")
            error = farthest(ours.pop("logits"), logits.detach())
            ours.pop("tokens")
            # The unembedding's hooks are the last norm's output and the logits.
            names = {name for name in cache.keys() if not name.startswith("unembed.")}
            if names != set(ours):
                raise Refused(f"names differ: {sorted(names ^ set(ours))}")
            for name, x in ours.items():
                error = max(error, self.scaled(name, farthest(x, cache[name].detach()), CACHE_TOLERANCE))
            return error

        def as_cache():
            _, ours = self.look("cache", folder, "--prompt", PROMPT)
            loaded = tl.ActivationCache({name: torch.from_numpy(x) for name, x in ours.items() if "hook_" in name}, lens)
            both = [(c.decompose_resid(return_labels=False), c.stack_head_results(), c["resid_post", -1]) for c in (loaded, cache)]
            return max(farthest(a.detach(), b.detach()) for a, b in zip(*both))

        def patterns():
            about, ours = self.look("attention", folder, "--prompt", PROMPT)
            error = max(farthest(ours[f"blocks.{i}.attn.hook_pattern"], cache["pattern", i].detach()) for i in range(lens.cfg.n_layers))
            previous = torch.stack([cache["pattern", i][0].diagonal(-1, 1, 2).mean(-1) for i in range(lens.cfg.n_layers)])
            return max(error, farthest(ours["attention.previous"], previous.detach()), farthest(about["attention.previous"], previous.detach()))

        def logit_lens():
            about, ours = self.look("lens", folder, "--prompt", PROMPT, *pair, "--mid")
            error = 0.0
            final = logits[0].log_softmax(-1).detach()
            names = json.loads(json.dumps(about))["lens.kl"]
            sites = ["blocks.0.hook_resid_pre"] + [f"blocks.{i}.hook_resid_{part}" for i in range(lens.cfg.n_layers) for part in ("mid", "post")]
            if len(names) != len(sites):
                raise Refused(f"it reads {len(names)} streams, not {len(sites)}")
            for row, site in enumerate(sites):
                # The norm's statistics are those of this stream, not of the last one.
                seen = lens.unembed(lens.ln_final(cache[site]))[0].log_softmax(-1).detach()
                error = max(error, farthest(ours["lens.log_probs"][row], seen[:, [better, worse]]))
                error = max(error, farthest(ours["lens.kl"][row], (final.exp() * (final - seen)).sum(-1)))
                error = max(error, farthest(ours["lens.entropy"][row], -(seen.exp() * seen).sum(-1)))
                error = max(error, farthest(ours["lens.top_log_probs"][row], seen.topk(5).values))
                ranks = (seen[:, None, :] > seen[:, [better, worse], None]).sum(-1) + 1
                if ours["lens.rank"][row].tolist() != ranks.tolist():
                    raise Refused(f"ranks differ at {site}")
            return error

        def attribution():
            about, ours = self.look("attribution", folder, "--prompt", PROMPT, *pair)
            direction = (lens.W_U[:, better] - lens.W_U[:, worse]).detach() * lens.ln_final.w.detach()
            project = lambda stack: (cache.apply_ln_to_stack(stack, layer=-1) * direction).sum(-1)[:, 0].detach()
            heads = project(cache.stack_head_results()).reshape(lens.cfg.n_layers, lens.cfg.n_heads, -1)
            mlps = project(torch.stack([cache["mlp_out", i] for i in range(lens.cfg.n_layers)]))
            error = max(farthest(ours["attribution.heads"], heads), farthest(ours["attribution.mlp"], mlps),
                        farthest(ours["attribution.embed"], project(cache["hook_embed"][None])[0]))
            if "hook_pos_embed" in cache.keys():
                error = max(error, farthest(ours["attribution.pos_embed"], project(cache["hook_pos_embed"][None])[0]))
                biases = project(torch.stack([lens.blocks[i].attn.b_O.expand_as(cache["resid_pre", 0]) for i in range(lens.cfg.n_layers)]))
                error = max(error, farthest(ours["attribution.attn_bias"], biases))
            difference = (logits[0, :, better] - logits[0, :, worse]).detach()
            return max(error, farthest(ours["attribution.total"], difference), abs(about["sum_base"] - float(difference[-1])))

        def patch(grid, theirs):
            _, source = lens.run_with_cache(others)
            ends = [float(metric(lens(run).detach())) for run in (tokens, others)]
            about, ours = self.look("patch", folder, "--prompt", PROMPT, "--other", OTHER, *pair, "--grids", grid)
            found = (theirs(lens, tokens, source, metric).detach() - ends[0]) / (ends[1] - ends[0])
            error = farthest(ours[f"patch.{grid}"], found)
            # The scores are shares of the difference; the tolerance is one of logits.
            return max(error * abs(ends[1] - ends[0]), abs(about["target"] - ends[0]), abs(about["source"] - ends[1]))

        def ablate():
            _, ours = self.look("ablate", folder, "--prompt", PROMPT, *pair)
            whole, rows = float(metric(logits.detach())), []
            for layer in range(lens.cfg.n_layers):
                row = []
                for head in range(lens.cfg.n_heads):
                    def zero(z, hook, head=head):
                        z[:, :, head] = 0.0
                        return z
                    with torch.no_grad():
                        row.append(float(metric(lens.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)]))) - whole)
                rows.append(row)
            return farthest(ours["ablate.heads"], rows)

        self.check(f"activations {name}", activations)
        self.check(f"ActivationCache {name}", as_cache)
        self.check(f"patterns {name}", patterns)
        self.check(f"lens {name}", logit_lens)
        self.check(f"attribution {name}", attribution)
        for grid, theirs in [("resid_pre", patching.get_act_patch_resid_pre), ("attn_out", patching.get_act_patch_attn_out), ("mlp_out", patching.get_act_patch_mlp_out),
                             ("z", patching.get_act_patch_attn_head_out_all_pos), ("q", patching.get_act_patch_attn_head_q_all_pos),
                             ("v", patching.get_act_patch_attn_head_v_all_pos), ("pattern", patching.get_act_patch_attn_head_pattern_all_pos)]:
            self.check(f"patch {grid} {name}", lambda grid=grid, theirs=theirs: patch(grid, theirs))
        self.check(f"ablate {name}", ablate)

    def speed(self):
        """Seconds of the logit lens and of residual patching, on a model of GPT-2's size and 64 tokens, on two threads."""
        torch.set_num_threads(2)
        config = tf.GPT2Config(vocab_size=50257, bos_token_id=0, eos_token_id=0, pad_token_id=1)
        folder, model = self.new("gpt2-small"), tf.AutoModelForCausalLM.from_config(config).eval()
        save(model, folder)
        lens = hooked(model, config)
        text = (PROMPT + " ") * 40
        tokens = torch.tensor([ids_of(text)[:64]])
        prompt, other = (interop.TOKENIZER.decode(row) for row in (tokens[0].tolist(), [tokens[0, 1].item()] + tokens[0, 1:].tolist()))
        print(f"{tokens.shape[1]} tokens")
        # The same two tokens as in the other checks. Without them, Flipside would look for the likeliest ones.
        pair = ["--tokens", ",".join(interop.TOKENIZER.decode([ids_of(word)[0]]) for word in (" the", " lid"))]

        def timed(work):
            begun = time.monotonic()
            work()
            return time.monotonic() - begun

        def lens_of_theirs():
            with torch.no_grad():
                logits, cache = lens.run_with_cache(tokens)
                final = logits[0].log_softmax(-1)
                for layer in range(lens.cfg.n_layers + 1):
                    x = cache["resid_pre", layer] if layer < lens.cfg.n_layers else cache["resid_post", layer - 1]
                    seen = lens.unembed(lens.ln_final(x))[0].log_softmax(-1)
                    _ = (seen.topk(5), (final.exp() * (final - seen)).sum(-1), -(seen.exp() * seen).sum(-1))

        def patching_of_theirs():
            with torch.no_grad():
                changed = tokens.clone()
                changed[0, 0] = changed[0, 1]
                _, cache = lens.run_with_cache(changed)
                patching.get_act_patch_resid_pre(lens, tokens, cache, lambda logits: logits[0, -1, 5] - logits[0, -1, 9])

        load = min(timed(lambda: self.look("cache", folder, "--prompt", "the", "--sites", "hook_embed")) for _ in range(3))
        print(f"reading the model alone takes Flipside {load:.2f} s, which is taken off")
        for name, ours, theirs in [
            ("logit lens", lambda: self.look("lens", folder, "--prompt", prompt, *pair), lens_of_theirs),
            ("residual patching", lambda: self.look("patch", folder, "--prompt", prompt, "--other", other, *pair, "--grids", "resid_pre"), patching_of_theirs),
        ]:
            theirs()
            seconds = [min(timed(ours) for _ in range(3)) - load, min(timed(theirs) for _ in range(3))]
            print(f"{name}: Flipside {seconds[0]:.2f} s, TransformerLens {seconds[1]:.2f} s, {seconds[1] / seconds[0]:.1f} times")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flipside", type=pathlib.Path, default=interop.ROOT / "target" / "release" / "flipside")
    parser.add_argument("--only", default="", help="only checks whose name contains this")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder to keep the files in")
    parser.add_argument("--speed", action="store_true", help="measure, too")
    arguments = parser.parse_args()
    if not arguments.flipside.is_file():
        sys.exit(f"{arguments.flipside} is not there: build Flipside, or name it with --flipside")
    torch.manual_seed(0)
    tf.logging.disable_progress_bar()
    print(f"TransformerLens {importlib.metadata.version('transformer-lens')}, transformers {tf.__version__}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        look = Look(arguments.flipside.absolute(), folder, arguments.only)
        look.model("gpt2", tf.GPT2Config(**GPT2))
        look.model("gpt2-untied", tf.GPT2Config(**GPT2, tie_word_embeddings=False))
        look.model("llama", tf.LlamaConfig(**LLAMA))
        look.model("llama-tied", tf.LlamaConfig(**LLAMA, tie_word_embeddings=True))
        if arguments.speed:
            look.speed()
    failed = [name for name, _, good in look.results if not good]
    print(f"{len(look.results) - len(failed)} of {len(look.results)} checks pass")
    sys.exit(1 if failed or not look.results else 0)


if __name__ == "__main__":
    main()
