"""Checkpoints and tokenizers that can be read, and sentences for those that cannot."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from autoprune import Data, search
from autoprune.data import sentences, text
from autoprune.errors import ConfigError, DataError
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm, classifier, load_tokenizer, named_inputs


@pytest.fixture
def copied(llama, tmp_path):
    return shutil.copytree(llama, tmp_path / "checkpoint")


def rewritten(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_without_a_tokenizer_is_named(copied, story):
    (copied / "tokenizer.json").unlink()
    (copied / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"checkpoint: expected a tokenizer \(tokenizer.json .* data.tokenizer"):
        text(story, copied)


def test_a_tokenizer_with_more_entries_than_the_network_is_refused(copied, story):
    rewritten(copied, "config.json", vocab_size=10)
    with pytest.raises(ConfigError, match="at most the 10 tokens that config.json .* got one of 19"):
        text(story, copied)


def test_tokens_that_the_network_does_not_have_are_refused_before_anything_runs(llama):
    data = Data.from_tokens(torch.arange(19 * 60) % 60, length=19, calibrate=20, select=20, report=20)
    with pytest.raises(DataError, match="expected tokens of the 19 that LlamaForCausalLM has, got token 59"):
        search(causal_lm(llama), data, objectives=("perplexity", "macs"), fitness=language_model, progress=False)


def test_a_text_below_one_sequence_and_a_missing_file_are_refused(llama, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sees a dog")
    with pytest.raises(DataError, match="short.txt: expected a text of at least one sequence of 512 tokens, got 5"):
        text(tmp_path / "short.txt", llama)
    with pytest.raises(DataError, match="none.txt, where there is none. Check the path"):
        text(tmp_path / "none.txt", llama)


def test_the_name_of_a_checkpoint_is_not_downloaded_unless_that_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for read in (causal_lm, load_tokenizer):
        with pytest.raises(ConfigError, match="nobody/nothing: expected a .* in the cache .* set download: true"):
            read("nobody/nothing")


def test_a_path_without_a_folder_is_no_name_of_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for path in (str(tmp_path / "none"), tmp_path / "none", "./none"):
        with pytest.raises(ConfigError, match="none: expected the folder of a checkpoint, where there is none"):
            causal_lm(path)


def test_a_checkpoint_that_needs_code_says_so(copied):
    rewritten(copied, "config.json", model_type="own", architectures=["Own"], auto_map={"AutoConfig": "own.Own"})
    with pytest.raises(ConfigError, match="needs Python code of the checkpoint, .* trust_remote_code: true"):
        causal_lm(copied)


def test_a_missing_shard_is_named(llama, tokenizer, tmp_path):
    causal_lm(llama).save_pretrained(tmp_path, max_shard_size=5000)
    (shard, *_) = sorted(tmp_path.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(ConfigError, match=f"files that model.safetensors.index.json names, got no {shard.name}"):
        causal_lm(tmp_path)


def test_a_folder_that_is_no_checkpoint_and_weights_of_another_class_are_refused(llama, story):
    with pytest.raises(ConfigError, match=r"expected a checkpoint folder of transformers with config.json, got story"):
        causal_lm(story.parent)
    with pytest.raises(ConfigError, match="all weights of LlamaForSequenceClassification, got none for score.weight"):
        classifier(llama)
    with pytest.raises(ConfigError, match="expected dtype auto, .* got 'float8'"):
        causal_lm(llama, dtype="float8")


def test_examples_of_their_own_need_a_padding_token(copied, story):
    rewritten(copied, "tokenizer_config.json", pad_token=None)
    with pytest.raises(DataError, match="expected a tokenizer with a padding token, .* got none"):
        sentences(story, copied, calibrate=9, select=9, report=9)


def test_positional_inputs_reach_a_network_by_name_whatever_its_order(tokenizer):
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=None
    )
    network = named_inputs(transformers.GPT2LMHeadModel(config).eval())  # its second argument is past_key_values
    ids, mask = torch.tensor([[0, 4, 5, 6]]), torch.tensor([[0, 1, 1, 1]])
    with torch.no_grad():
        output = network(ids, mask)
        assert torch.equal(output.logits, network(input_ids=ids, attention_mask=mask).logits)
        assert not torch.equal(output.logits, network(ids).logits)
    assert output.past_key_values is None
    assert network(ids, use_cache=True).past_key_values is not None
