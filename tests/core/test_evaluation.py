"""What the evaluations of a search say together."""

from autoprune.core.evaluation import Evaluation, partial_scores
from autoprune.core.space import Candidate


def test_a_search_says_how_many_networks_were_scored_in_part_and_what_that_saved():
    shares = [((0,), 1.0), ((1,), 0.25), ((2,), 0.25), ((2,), 0.5), ((3,), 0.125), ((3,), 1.0)]
    told = [Evaluation(Candidate(levels, share), {"kl": 1.0}) for levels, share in shares]
    failed = Evaluation(Candidate((4,), 0.25), status="failed")
    said = partial_scores([*told, failed])  # 0.75 and 0.5 saved of four
    assert said == "2 of 4 networks were scored in part only, which saved 31% of what full scores of all take"
    assert partial_scores([told[0], told[5]]) == partial_scores([]) == ""
