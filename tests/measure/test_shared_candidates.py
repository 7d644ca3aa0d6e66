"""Candidates share what does not change with the dense network, whose bytes stay what they were whatever is done."""

from __future__ import annotations

import pytest
import torch
from small_network import SPACE, A, B, Network
from torch import nn

from autoprune.core.cost import Polynomial
from autoprune.core.sparse import SparseWeight
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import classification
from autoprune.measure.scorer import Scorer, with_dense_outputs
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.bank.weights import make_weight_bank
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.modules.copying import model_digest, named_tensors
from autoprune.prune.structure.trace import trace
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.trainer import Trainer


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(10, 2, 5, 5, generator=generator),) for _ in range(3)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = Network()
    recalibrate(network, batches(5))
    return network.eval()


def scorer_of(model, fitness=classification):
    bank = make_bank(model, trace(model, batches(0)[0]), SPACE.units, obs, batches(1))
    select = with_dense_outputs(model, [Batch(inputs, torch.arange(10) % 3) for inputs in batches(2)])
    return Scorer(bank, SPACE, batches(1), select, fitness, objective="quality")


def shared(network, model):
    own = named_tensors(model)
    return {n for n, t in named_tensors(network).items() if n in own and t.data_ptr() == own[n].data_ptr()}


def test_scored_networks_share_the_parameters_that_did_not_change(model):
    scorer = scorer_of(model)
    before = model_digest(model)
    subnet = scorer.bank.subnet({SPACE.units[-1]: 1})
    with scorer.stage.on(subnet) as network:
        sliced = {*scorer.bank.tensors(subnet)}
        assert shared(network, model) == {name for name, _ in model.named_parameters()} - sliced
        assert shared(network, model)
    assert model_digest(model) == before


def test_sharing_changes_no_value(model):
    def measured(network, batches):  # a user's own function, so that networks are not shared
        return classification(network, batches)

    for candidate in (A, B, SPACE.smallest):
        assert scorer_of(model).score(candidate).values == scorer_of(model, measured).score(candidate).values


def test_a_users_fitness_gets_a_network_of_its_own(model):
    def destructive(network, batches):
        assert not shared(network, model)
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.zero_()
        return 0.0

    before = model_digest(model)
    assert scorer_of(model, destructive).score(A).ok
    assert model_digest(model) == before


def test_networks_that_are_deployed_trained_or_written_to_share_nothing(model):
    scorer = scorer_of(model)
    before = model_digest(model)
    network = scorer.network(A)
    assert not shared(network, model)
    trainer = Trainer(FineTune(steps=2), TrainingSet.of(scorer.select), 0)
    trainer.learner(scorer.bank.build(scorer.subnet(A))).train(2)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.add_(1)
    assert model_digest(model) == before


def test_zeros_in_weights_are_written_to_copies_of_these_weights_alone(model):
    scorer = scorer_of(model)
    name, weight = next((n, p) for n, p in model.named_parameters() if p.dim() == 4)
    sparse = {name: SparseWeight(name, weight.numel(), Polynomial.constant(weight.numel()), Polynomial.constant(2), 25)}
    bank = scorer.bank.with_weights(make_weight_bank(model, scorer.bank.structure, sparse, "magnitude", batches(1)))
    before = model_digest(model)
    network = bank.build(bank.subnet({name: weight.numel() // 2}), share=True)
    assert int((named_tensors(network)[name] == 0).sum()) > 0
    assert model_digest(model) == before
    unshared = {n for n, _ in model.named_parameters()} - shared(network, model)
    assert name in unshared
    assert unshared <= {name, name.replace("weight", "bias")}
    assert weight.data_ptr() != named_tensors(network)[name].data_ptr()


class Renormed(nn.Module):
    """Its forward writes to a parameter."""

    def __init__(self):
        super().__init__()
        self.tokens, self.a, self.b = nn.Embedding(9, 6, max_norm=0.5), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.b(self.a(self.tokens(ids)).relu()).mean(1)


def test_a_network_whose_forward_writes_to_its_parameters_is_not_shared():
    torch.manual_seed(0)
    model, ids = Renormed().eval(), torch.arange(8).view(2, 4)
    structure = trace(model, ids)
    bank = make_bank(model, structure, [], obs, [(ids,)])
    scorer = Scorer(bank, SPACE, [(ids,)], [Batch((ids,), torch.tensor([0, 1]))], classification)
    before = model_digest(model)
    with scorer.stage.on(bank.subnet({})) as network, torch.no_grad():
        assert not shared(network, model)
        network(ids)
    assert model_digest(model) == before
