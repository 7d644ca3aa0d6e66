"""How much of the KL the most likely classes and the rest as one class show, by the number of classes kept.

    python benchmarks/top_classes.py

The dense network's logits of 32 tokens over 128,256 classes are those of a Zipf distribution with the given exponent,
in a random order for each token; larger exponents are more certain tokens. The other network's logits are these plus
normal noise. `share` is the mean divergence over the kept classes and the rest, as a share of that over all classes.
"""

from __future__ import annotations

import torch
from tables import write_table
from torch.nn import functional

from autoprune.measure.top_classes import TopClasses

CLASSES, TOKENS = 128_256, 32


def rows(exponent: float, noise: float) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    zipf = -exponent * torch.arange(1, CLASSES + 1).log()
    p = torch.stack([zipf[torch.randperm(CLASSES, generator=generator)] for _ in range(TOKENS)])
    q = p + noise * torch.randn(p.shape, generator=generator)
    log_p, log_q = p.log_softmax(1), q.log_softmax(1)
    whole = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    found = []
    for kept in (64, 256, 1024, 4096):
        share = TopClasses.of(p, kept).divergence(q).mean() / whole
        found.append(
            {"exponent": exponent, "perplexity": round(entropy.exp().item(), 1), "noise": noise}
            | {"kl": round(whole.item(), 4), "kept": kept, "share": round(share.item(), 3)}
        )
    return found


def main() -> None:
    found = [row for exponent in (1.0, 1.2, 1.5, 2.0) for noise in (0.1, 0.5, 1.0) for row in rows(exponent, noise)]
    write_table("top_classes.csv", "python benchmarks/top_classes.py", found)
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
