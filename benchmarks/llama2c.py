"""Converts a checkpoint of llama2.c (Karpathy, MIT), such as stories260K, to a checkpoint folder of transformers.

python benchmarks/llama2c.py MODEL.bin TOKENIZER.bin FOLDER

Formats: https://github.com/karpathy/llama2.c, export.py (version 0) and tokenizer.py. The tokens of a text may differ
from those of llama2.c: they do in 2 of 207 stories.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, processors

SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = 256

Take = Callable[..., torch.Tensor]


def network(path: Path) -> transformers.LlamaForCausalLM:
    """The network of a .bin file of version 0: seven sizes and float32 values."""
    raw = path.read_bytes()
    width, inner, layers, heads, groups, vocabulary, length = struct.unpack("7i", raw[:28])
    config = transformers.LlamaConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, vocab_size=abs(vocabulary), max_position_embeddings=length,
        tie_word_embeddings=vocabulary > 0, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(state(config, taking(np.frombuffer(raw[28:], dtype=np.float32))), strict=False)
    return model.eval()


def taking(values: np.ndarray) -> Take:
    """A function that returns the next values in a shape."""
    at = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        at += (count := int(np.prod(shape)))
        return torch.tensor(values[at - count : at].reshape(shape).copy())

    return take


def state(config: transformers.LlamaConfig, take: Take) -> dict[str, torch.Tensor]:
    """The tensors by their names in transformers, in the order of the file."""
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    keys = config.num_key_value_heads * config.head_dim
    embedding = take(config.vocab_size, width)
    stacked = {
        "input_layernorm": take(layers, width),
        "self_attn.q_proj": rotated(take(layers, width, width), config.head_dim),
        "self_attn.k_proj": rotated(take(layers, keys, width), config.head_dim),
        "self_attn.v_proj": take(layers, keys, width),
        "self_attn.o_proj": take(layers, width, width),
        "post_attention_layernorm": take(layers, width),
        "mlp.gate_proj": take(layers, inner, width),
        "mlp.down_proj": take(layers, width, inner),
        "mlp.up_proj": take(layers, inner, width),
    }
    tensors = {f"model.layers.{i}.{name}.weight": rows[i] for name, rows in stacked.items() for i in range(layers)}
    return tensors | {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding,
        "model.norm.weight": take(width),
    }


def rotated(weight: torch.Tensor, size: int) -> torch.Tensor:
    """Rows whose rotary pairs are half a head apart, as in transformers; in the file they are side by side."""
    layers, rows, width = weight.shape
    return weight.view(layers, rows // size, size // 2, 2, width).transpose(2, 3).reshape(layers, rows, width)


def tokenizer(path: Path, size: int) -> transformers.PreTrainedTokenizerFast:
    """The byte-pair tokenizer of a .bin file: for each piece a score, a length and its bytes."""
    raw, at, pieces, scores = path.read_bytes(), 4, [], []
    for _ in range(size):
        score, length = struct.unpack("fi", raw[at : at + 8])
        pieces.append(raw[at + 8 : at + 8 + length])
        scores.append(score)
        at += 8 + length
    first = len(SPECIAL) + BYTES
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(BYTES))]
    names += [piece.decode().replace(" ", "▁") for piece in pieces[first:]]
    number = {name: index for index, name in enumerate(names)}
    merges = [
        (-scores[index], number[name[:at]], number[name[at:]], (name[:at], name[at:]))
        for index, name in enumerate(names)
        if index >= first
        for at in range(1, len(name))
        if name[:at] in number and name[at:] in number
    ]
    pairs = [pair for *_, pair in sorted(merges)]
    coder = Tokenizer(models.BPE(vocab=number, merges=pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    coder.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces = decoders.Replace("▁", " ")
    coder.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    coder.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=coder, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def main() -> None:
    model_file, tokenizer_file, folder = map(Path, sys.argv[1:])
    model = network(model_file)
    model.save_pretrained(folder)
    tokenizer(tokenizer_file, model.config.vocab_size).save_pretrained(folder)


if __name__ == "__main__":
    main()
