"""A language model of transformers: a checkpoint folder and a text file in, a front out.

python examples/language_model.py [EVALUATIONS] [FOLDER]

Needs `pip install 'autoprune[llm]'`. The folder gets a text of simple sentences, and a Llama that is trained on it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import autoprune
from autoprune.data import text
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm

NAMES, VERBS, THINGS = ["Ann", "Ben", "Cleo", "Dan"], ["sees", "takes", "likes"], ["ball", "tree", "book", "cup"]


def story(sentences: int, seed: int = 0) -> str:
    """Sentences in pairs, 'Ann sees a cup . so Ann takes the cup .': name and thing are the same in both."""
    drawn, lines = random.Random(seed), []
    for _ in range(sentences):
        name, verb, again, thing = (drawn.choice(words) for words in (NAMES, VERBS, VERBS, THINGS))
        lines.append(f"{name} {verb} a {thing} . so {name} {again} the {thing} .")
    return "\n".join(lines)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", *NAMES, *VERBS, *THINGS, "a", "the", "so", "."]
    coder = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    coder.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=coder, unk_token="<unk>", bos_token="<s>")


def write_checkpoint(folder: Path, steps: int = 250) -> None:
    """Trains a Llama of three layers and saves it with its tokenizer, as save_pretrained does for any model."""
    coder = tokenizer()
    config = transformers.LlamaConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=3,
        vocab_size=len(coder), max_position_embeddings=64, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.LlamaForCausalLM(config)
    ids = torch.tensor(coder(story(4000, seed=1))["input_ids"])
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(steps):
        starts = torch.randint(len(ids) - 32, (32,))
        rows = torch.stack([ids[start : start + 32] for start in starts])
        optimizer.zero_grad()
        network(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    network.eval().save_pretrained(folder)
    coder.save_pretrained(folder)


def main() -> None:
    evaluations = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    write_checkpoint(folder)
    (folder / "story.txt").write_text(story(1500))

    model = causal_lm(folder)
    data = text(folder / "story.txt", tokenizer=folder, length=32)
    front = autoprune.search(
        model, data, objectives=("perplexity", "macs"), fitness=language_model, evaluations=evaluations, seed=0
    )
    for member in front:
        low, high = member.intervals["perplexity"]
        share, perplexity = member["macs_ratio"], member["perplexity"]
        print(f"{share:.3f} of the MACs, perplexity {perplexity:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
