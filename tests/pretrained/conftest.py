"""Small checkpoints of transformers, made once; without the package, tests of this folder are skipped."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from small_checkpoints import saved

WORDS = ("the", "a", "cat", "dog", "sees", "runs", "to", "on", "house", "tree", "old", "red", "small", "one", "two")


@pytest.fixture(scope="session", autouse=True)
def installed():
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed: pip install 'autoprune[llm]'")


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of random sentences."""
    drawn = random.Random(0)
    sentences = [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 9))) for _ in range(600)]
    path = tmp_path_factory.mktemp("story") / "story.txt"
    path.write_text(".\n".join(sentences))
    return path


@pytest.fixture(scope="session")
def tokenizer(story):
    """A tokenizer of whole words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<unk>", "<s>", "<pad>", ".", *WORDS]
    words = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", pad_token="<pad>"
    )


@pytest.fixture(scope="session")
def llama(tokenizer, tmp_path_factory) -> Path:
    """The folder of a Llama of two layers with its tokenizer."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=2,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return saved(transformers.LlamaForCausalLM(config), tokenizer, tmp_path_factory.mktemp("llama"))
