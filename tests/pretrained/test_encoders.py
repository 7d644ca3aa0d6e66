"""Encoders and classifiers of transformers, on padded batches; their padding counts nowhere."""

from __future__ import annotations

import pytest
import torch
from small_checkpoints import saved
from torch.nn import functional

import autoprune
from autoprune import Data
from autoprune.data import sentences
from autoprune.errors import DataError
from autoprune.measure.fitness import classification, embedding
from autoprune.pretrained import classifier, encoder

COUNTS = {"length": 12, "calibrate": 60, "select": 40, "report": 40, "batch_size": 20}
QUICK = {"evaluations": 3, "front_size": 2, "progress": False, "compensation": "none"}


@pytest.fixture(scope="module")
def bert(tokenizer, tmp_path_factory):
    """The folder of a classifier into three classes."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16, num_labels=3, pad_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    return saved(transformers.BertForSequenceClassification(config), tokenizer, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def rows(story, tmp_path_factory):
    """A data set on disk, with one split, and labels that follow from the first word."""
    datasets = pytest.importorskip("datasets")
    lines = story.read_text().splitlines()
    table = {"sentence": lines, "kind": [len(line.split()[0]) % 3 for line in lines]}
    folder = tmp_path_factory.mktemp("rows") / "rows"
    datasets.DatasetDict({"all": datasets.Dataset.from_dict(table)}).save_to_disk(str(folder))
    return folder


def test_the_embeddings_of_an_encoder_are_kept_by_the_search(bert, story):
    model = encoder(bert)
    front = autoprune.search(
        model, sentences(story, bert, **COUNTS), objectives=("cosine", "macs"), fitness=embedding, **QUICK
    )
    assert front[-1]["cosine"] == pytest.approx(1, abs=1e-6)
    assert front[0]["macs_ratio"] < 1
    assert front[0]["cosine"] < 1


def test_a_classifier_is_searched_on_a_data_set_on_disk(bert, rows):
    model = classifier(bert)
    data = sentences(rows, bert, column="sentence", label="kind", split="all", **COUNTS)
    front = autoprune.search(model, data, objectives=("kl", "macs"), fitness=classification, **QUICK)
    with torch.no_grad():
        hits = [model(*batch.inputs).logits.argmax(dim=1) == batch.target for batch in data.report]
    assert front[-1]["accuracy"] == pytest.approx(float(torch.cat(hits).float().mean()))
    assert front[-1]["kl"] == 0


@pytest.mark.slow
def test_padding_changes_no_network_of_the_front(bert, story):
    """The same sentences with more padding give the same statistics, scores and weights."""
    data = sentences(story, bert, **COUNTS)

    def padded(batch):
        ids, mask = (functional.pad(x, (0, 4), value=value) for x, value in zip(batch.inputs, (2, 0), strict=True))
        return {"input_ids": ids, "attention_mask": mask}

    further = Data.from_loaders(*(map(padded, batches) for batches in (data.calibrate, data.select, data.report)))
    settings = {**QUICK, "objectives": ("cosine", "macs"), "fitness": embedding, "compensation": "sequential"}
    fronts = [autoprune.search(encoder(bert), each, **settings) for each in (data, further)]
    assert [m.candidate for m in fronts[0]] == [m.candidate for m in fronts[1]]
    for one, two in zip(*fronts, strict=True):
        assert one["cosine"] == pytest.approx(two["cosine"], abs=1e-5)


def test_a_column_a_split_or_a_folder_that_is_not_there_is_named(bert, rows, story):
    wrong = {
        "expected a column 'sentences' .did you mean 'sentence'.*, got sentence, kind": {
            "column": "sentences",
            "split": "all",
        },
        "one of its splits, got split 'train' of the splits all": {"column": "sentence", "split": "train"},
    }
    for message, options in wrong.items():
        with pytest.raises(DataError, match=message):
            sentences(rows, bert, **options)
    with pytest.raises(DataError, match="a data set on disk for the labels in column 'kind'"):
        sentences(story, bert, label="kind")
