"""User code that writes to what it is given: every network meets the same data, and the user hears of it once."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.measure.intact import Intact, same_bits
from autoprune.measure.scorer import with_dense_outputs
from autoprune.prune.modules.borrowed import on_copies
from autoprune.run import read_evaluations, resume, search
from autoprune.run.session.job import Executor, silent
from autoprune.run.session.session import open_session


def replace_storage(x):
    x.data = torch.zeros(3)


WRITES = {
    "an operator": lambda batch: batch.inputs[0].mul_(0.5),
    "data": lambda batch: batch.inputs[0].data.mul_(0.5),
    "a numpy view": lambda batch: batch.inputs[0].numpy().__imul__(0.5),
    "other memory": lambda batch: replace_storage(batch.inputs[0]),
    "one element": lambda batch: batch.inputs[0].view(-1)[-1:].fill_(9),
    "a zero of another sign": lambda batch: batch.inputs[0].masked_fill_(batch.inputs[0] == 0, -0.0),
}


@pytest.mark.parametrize("how", WRITES)
def test_whatever_way_a_fitness_writes_to_its_inputs_they_are_put_back(how):
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    batch, kept = Batch((x,), torch.tensor([0, 1])), Intact()
    for _ in range(2):
        with kept.lending([batch]) as (lent,):
            assert lent.inputs[0] is x  # by which a batch is known
            WRITES[how](lent)
        assert same_bits(x, torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        assert kept.remark.startswith("the fitness changes input 0 of its batches in place")


def test_targets_outputs_and_containers_are_put_back_after_an_exception_too():
    dense = {"logits": torch.ones(2, 3), "parts": [torch.zeros(2)], "names": {"a"}}
    batch, kept = Batch((torch.zeros(2),), torch.tensor([0, 1]), dense), Intact()
    with pytest.raises(RuntimeError), kept.lending([batch]) as batches:  # noqa: PT012
        batches[0].target.add_(1)
        batches[0].dense["logits"].fill_(7)
        batches[0].dense["parts"].clear()
        batches[0].dense["names"].add("b")
        batches.clear()
        raise RuntimeError
    assert batch.target.tolist() == [0, 1]
    assert torch.equal(dense["logits"], torch.ones(2, 3))
    assert (len(dense["parts"]), dense["names"]) == (1, {"a"})
    assert "changes the target, the dense output 0 of its batches" in kept.remark


def test_gradients_of_inputs_are_forgotten_and_are_no_change():
    batch, kept = Batch((torch.ones(2),)), Intact()
    with kept.lending([batch]) as (lent,):
        lent.inputs[0].requires_grad_().sum().backward()
    assert (batch.inputs[0].requires_grad, batch.inputs[0].grad, kept.remark) == (False, None, "")


def test_nan_and_every_dtype_are_compared_by_their_bits():
    nan = torch.tensor([float("nan"), 0.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(nan, torch.tensor([float("nan"), -0.0]))
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64):
        assert same_bits(torch.ones(3, dtype=dtype), torch.ones(3, dtype=dtype))
        assert not same_bits(torch.ones(3, dtype=dtype), torch.zeros(3, dtype=dtype))
    images = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert same_bits(images, images.clone())


def writing(model, batches):
    for batch in batches:
        batch.inputs[0].mul_(0.8)
    return classification(model, batches)


def test_a_fitness_that_writes_is_told_once_and_all_values_are_those_of_its_first_use(job, data, tmp_path, caplog):
    before = [batch.inputs[0].clone() for batch in data.select]
    with caplog.at_level(logging.WARNING):
        result = search(job("random", 6, fitness=writing), tmp_path / "run")
    assert caplog.text.count("the fitness changes input 0 of its batches in place") == 1
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["text"][:27] for event in events if event["event"] == "warning"] == ["the fitness changes input 0"]
    assert all(map(torch.equal, before, (batch.inputs[0] for batch in data.select)))
    for evaluation in result.evaluations[:3]:
        alone = open_session(job(fitness=writing), silent).scorer.score(evaluation.candidate)
        assert evaluation.values["accuracy"] == alone.values["accuracy"]
        assert evaluation.values["kl"] == alone.values["kl"]


def test_a_resumed_run_of_a_fitness_that_writes_has_the_same_front(job, tmp_path, caplog):
    search(job("random", 6, fitness=writing), tmp_path / "run")
    whole, journal = (tmp_path / "run" / "front.csv").read_bytes(), tmp_path / "run" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:7]))
    caplog.clear()
    resume(job("random", 6, fitness=writing), tmp_path / "run")
    assert (tmp_path / "run" / "front.csv").read_bytes() == whole
    assert caplog.text.count("the fitness changes input 0 of its batches in place") == 1


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_workers_tell_of_a_fitness_that_writes_and_agree_with_this_process(job, tmp_path, caplog):
    search(job("random", 6, fitness=writing), tmp_path / "serial")
    caplog.clear()
    search(job("random", 6, fitness=writing, executor=Executor("processes", 2), deterministic=True), tmp_path / "run")
    assert caplog.text.count("the fitness changes input 0 of its batches in place") == 1
    values = [[e.values for e in read_evaluations(tmp_path / name)] for name in ("serial", "run")]
    assert values[0] == values[1]


class Centring(nn.Module):
    """Changes its input in place."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 2)

    def forward(self, x, *, shift=None):
        x.sub_(1.0)
        return self.head(self.norm(x if shift is None else shift.add_(x)))


def test_models_that_change_their_inputs_run_on_copies():
    model, x = Centring().eval(), torch.rand(4, 3)
    before, shift = x.clone(), torch.zeros(4, 3)
    with on_copies(model):
        model(x, shift=shift)
    first, second = with_dense_outputs(model, [Batch((x,))]), with_dense_outputs(model, [Batch((x,))])
    recalibrate(model, [(x,), (x,)])
    assert torch.equal(first[0].dense, second[0].dense)
    assert torch.equal(x, before)
    assert not shift.any()
    assert torch.allclose(model.norm.running_mean, before.mean(dim=0) - 1)


def test_criteria_and_scores_that_write_to_what_they_get_change_nothing(job):
    def criterion(weights, statistics):
        scores = weights.producers[0].square().sum(dim=1)
        for consumer in statistics.consumers:
            consumer.gram.zero_()
            consumer.weight.zero_()
        for weight in (*weights.producers, *weights.consumers):
            weight.zero_()
        return scores

    def harmless(weights, statistics):
        return weights.producers[0].square().sum(dim=1)

    wrote, plain = (open_session(job(criterion=one), silent) for one in (criterion, harmless))
    candidate = plain.space.smallest
    assert wrote.scorer.score(candidate).values == plain.scorer.score(candidate).values
    assert all(map(torch.equal, wrote.model.state_dict().values(), plain.model.state_dict().values()))


def test_a_searcher_that_changes_what_it_is_told_changes_no_front(job):
    def spoiling(problem, seed):
        made = job("random").searcher(problem, seed)
        tell = made.tell

        def telling(evaluations):
            tell(evaluations)
            for evaluation in evaluations:
                evaluation.values["kl"] = 0.0

        made.tell = telling
        return made

    plain = search(job("random", 6), None)
    assert search(replace(job("random", 6), searcher=spoiling), None).members == plain.members
