from __future__ import annotations

import pytest

from autoprune.core.unit import block_of, blocks_of


@pytest.mark.parametrize(
    ("branch", "block"),
    [
        ("model.layers.0.self_attn/branch", "model.layers.0"),
        ("transformer.h.11.mlp/branch", "transformer.h.11"),
        ("encoder.layers.encoder_layer_3.mlp.3/branch", "encoder.layers.encoder_layer_3"),
        ("layers.1.blocks.0.attn.proj/branch", "layers.1.blocks.0"),
        ("layer2.0.conv2/branch", "layer2.0"),
        ("head/branch", "head"),
    ],
)
def test_a_block_is_the_module_up_to_the_last_number(branch, block):
    assert block_of(branch) == block


def test_blocks_come_in_the_order_of_their_numbers():
    names = [f"h.{block}.{part}/branch" for block in (10, 9, 2) for part in ("mlp", "attn")]
    assert list(blocks_of(names)) == ["h.2", "h.9", "h.10"]
    assert blocks_of(names)["h.9"] == ["h.9.mlp/branch", "h.9.attn/branch"]
