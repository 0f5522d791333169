#!/usr/bin/env python3
"""Records Q, K and V of attention layers of a local transformers model into a safetensors file.

    capture_qkv.py --model PATH --text FILE --layers 0,2,5 --tokens 256 --out FILE
    capture_qkv.py --describe FILE        # a Markdown table: how sharp the captured attention is

The model runs once over the text. Its attention function is replaced by one that notes what
arrives (after rotation, where the model rotates; before K and V are repeated for grouped heads) and
then calls torch's own attention. Tensors are f16, named layer.<n>.q, .k, .v, of shape [batch, seq,
heads, head_dim]; the file's metadata says where they come from and how they are to be attended.

Needs torch, transformers and safetensors; reaches for no network.
"""

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

F16_MAX = 65504.0
# Extras of an attention call that change its result in ways the file could not say.
REFUSED = ("position_bias", "softcap", "s_aux", "sliding_window", "cu_seq_lens_q")


class Recorder:
    """Attention calls in the order in which the model makes them: call n is layer n."""

    def __init__(self, layers):
        self.layers = layers
        self.calls = 0
        self.tensors = {}
        self.scales = set()
        self.causal = set()

    def __call__(self, module, query, key, value, attention_mask, scaling=None, dropout=0.0, is_causal=None, **kwargs):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        layer = self.calls
        self.calls += 1
        if layer in self.layers:
            for extra in REFUSED:
                if kwargs.get(extra) is not None:
                    sys.exit(f"layer {layer}: its attention uses {extra}, which a captured file cannot express")
            causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
            check_mask(layer, attention_mask, causal)
            self.causal.add(bool(causal))
            self.scales.add(float(query.shape[-1] ** -0.5 if scaling is None else scaling))
            for name, tensor in (("q", query), ("k", key), ("v", value)):
                self.tensors[f"layer.{layer}.{name}"] = to_f16(f"layer.{layer}.{name}", tensor)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )


def check_mask(layer, mask, causal):
    """A mask may only say what `causal` says already."""
    if mask is None:
        return
    import torch

    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    expected = torch.ones(seen.shape[-2:], dtype=torch.bool)
    if causal:
        expected = expected.tril()
    if not bool((seen.cpu() == expected).all()):
        sys.exit(f"layer {layer}: its mask is neither full nor plainly causal, which a captured file cannot express")


def to_f16(name, tensor):
    import torch

    largest = tensor.abs().max().item()
    if not largest <= F16_MAX:
        sys.exit(f"{name}: largest value {largest} does not fit in f16")
    return tensor.detach().to(torch.float16).transpose(1, 2).contiguous()  # [b, h, s, d] -> [b, s, h, d]


def capture(options):
    import torch
    from safetensors.torch import save_file
    from transformers import AttentionInterface, AutoModel, AutoTokenizer
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    layers = [int(word) for word in options.layers.split(",")]
    recorder = Recorder(set(layers))
    AttentionInterface.register("headwise_capture", recorder)
    AttentionMaskInterface.register("headwise_capture", sdpa_mask)

    with open(options.text, encoding="utf-8") as file:
        text = file.read()
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=options.tokens)
    count = tokens["input_ids"].shape[1]
    if count < options.tokens:
        sys.exit(f"{options.text}: {count} tokens, --tokens {options.tokens} asks for more: give a longer text")
    model = AutoModel.from_pretrained(
        options.model, local_files_only=True, attn_implementation="headwise_capture", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        model(input_ids=tokens["input_ids"])

    missing = [layer for layer in layers if layer >= recorder.calls]
    if missing:
        sys.exit(f"--layers {options.layers}: the model made {recorder.calls} attention calls, so no layer {missing[0]}")
    if len(recorder.scales) != 1 or len(recorder.causal) != 1:
        sys.exit(f"--layers {options.layers}: scale or causality differ between them: capture them to files of their own")
    metadata = {
        "format": "headwise.captured.1",
        "model": options.name or os.path.basename(os.path.normpath(options.model)),
        "licence": options.licence,
        "text": os.path.basename(options.text),
        "tokens": str(count),
        "softmax_scale": repr(recorder.scales.pop()),
        "causal": "1" if recorder.causal.pop() else "0",
    }
    save_file(recorder.tensors, options.out, metadata=metadata)
    print(f"{options.out}: {os.path.getsize(options.out)} bytes, layers {options.layers}, {metadata}")


def describe(path):
    """Entropy (nats) and logits of the attention that the file stands for, by layer."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = sorted({int(key.split(".")[1]) for key in file.keys()})
        scale, causal = float(metadata["softmax_scale"]), metadata["causal"] == "1"
        print("| layer | mean entropy (nats) | sharpest head | flattest head | largest scaled logit | largest value in q, k, v |")
        print("| --- | --- | --- | --- | --- | --- |")
        for layer in names:
            q, k, v = (file.get_tensor(f"layer.{layer}.{x}").double().transpose(1, 2) for x in "qkv")
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
            scores = q @ k.transpose(2, 3) * scale
            if causal:
                hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
                scores = scores.masked_fill(hidden, float("-inf"))
            entropy = torch.special.entr(torch.softmax(scores, dim=-1)).sum(dim=-1).mean(dim=(0, 2))
            largest = ", ".join(f"{x.abs().max().item():.2f}" for x in (q, k, v))
            print(
                f"| {layer} | {entropy.mean().item():.2f} | {entropy.min().item():.2f} | {entropy.max().item():.2f} "
                f"| {scores.max().item():.1f} | {largest} |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a transformers model with its tokenizer")
    parser.add_argument("--text", help="UTF-8 text; its first tokens are used")
    parser.add_argument("--layers", default="0", help="attention layers, counted from 0 in the order they run: 0,2,5")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--out", help="safetensors file to write")
    parser.add_argument("--name", default="", help="the model's name in the metadata; default: its folder's")
    parser.add_argument("--licence", default="unknown", help="of the model, for the metadata")
    parser.add_argument("--describe", metavar="FILE", help="print a table about a captured file and stop")
    options = parser.parse_args()
    if options.describe:
        describe(options.describe)
        return
    for needed in ("model", "text", "out"):
        if not getattr(options, needed):
            parser.error(f"--{needed} is needed")
    capture(options)


if __name__ == "__main__":
    main()
