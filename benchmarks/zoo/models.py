"""The models: how each is built (random weights, fixed seed) and what it runs on. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

SEED = 0
Inputs = torch.Tensor | dict[str, torch.Tensor]


@dataclass(frozen=True)
class Entry:
    """One model of the zoo. `classes` is the width of its outputs, so that their layers can be told from the rest."""

    library: str
    model: str
    build: Callable[[], nn.Module]
    sizes: Mapping[str, tuple[int, ...]]  # shape of each input by argument name; "" for one positional image
    classes: int

    @property
    def name(self) -> str:
        return f"{self.library}/{self.model}"

    @property
    def input_size(self) -> str:
        return "; ".join(f"{name} {'x'.join(map(str, shape))}".strip() for name, shape in self.sizes.items())

    def make(self) -> tuple[nn.Module, Inputs]:
        """The model in eval mode with random weights and norms, and an example of batch one."""
        torch.manual_seed(SEED)
        model = self.build().eval()
        generator = torch.Generator().manual_seed(SEED)
        randomise(model, generator)
        named = {name: self._input(name, size, generator) for name, size in self.sizes.items()}
        inputs = named.get("", named)
        settle(model, inputs)
        return model, inputs

    def _input(self, name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        if name.endswith("_ids"):
            return torch.randint(
                3, VOCABULARY, size, generator=generator
            )  # the first few ids mean padding and the like
        if name.startswith("bool_"):
            return torch.rand(size, generator=generator) < 0.5
        return torch.randn(size, generator=generator)


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Fills what initialisation leaves constant, so that a wrong scale, shift or branch changes the output.

    Every tensor of a normalisation (statistics included) and every constant parameter, such as a layer scale of 1e-6,
    becomes uniform in 0.5 .. 1.5, constant biases elsewhere uniform in -0.5 .. 0.5.
    """
    for module in model.modules():
        norm = "Norm" in type(module).__name__
        buffers = module.named_buffers(recurse=False) if norm else ()
        for name, tensor in [*module.named_parameters(recurse=False), *buffers]:
            if tensor.is_floating_point() and (norm or (tensor == tensor.flatten()[0]).all()):
                low = -0.5 if name == "bias" and not norm else 0.5
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)


@torch.no_grad()
def settle(model: nn.Module, inputs: Inputs) -> None:
    """Scales the statistics of every batch norm by what reaches it, in one forward pass.

    Otherwise activations grow (to 1e16 in some) and the shifts of later layers vanish in rounding, errors with them.
    """

    def scale(norm: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        spread = arguments[0].std(correction=0).clamp_min(1e-3)
        norm.running_mean *= spread
        norm.running_var *= spread**2

    norms = [module for module in model.modules() if getattr(module, "running_var", None) is not None]
    hooks = [norm.register_forward_pre_hook(scale) for norm in norms]
    run(model, inputs)
    for hook in hooks:
        hook.remove()


def run(model: nn.Module, inputs: Inputs) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def zoo() -> list[Entry]:
    return [*_torchvision(), *_timm(), *_transformers()]


# --- torchvision ---

TORCHVISION = """
alexnet vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn resnet18 resnet34 resnet50 resnet101 resnet152
resnext50_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2 wide_resnet101_2 densenet121 densenet169
densenet201 squeezenet1_0 squeezenet1_1 googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large
mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5
efficientnet_b6 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l regnet_x_400mf regnet_x_800mf regnet_x_1_6gf
regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf
regnet_y_8gf regnet_y_16gf convnext_tiny convnext_small convnext_base vit_b_16 vit_b_32 vit_l_16 vit_l_32 swin_t
swin_s swin_b swin_v2_t swin_v2_s swin_v2_b maxvit_t fcn_resnet50 fcn_resnet101 deeplabv3_resnet50
deeplabv3_resnet101 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large
"""
TORCHVISION_IMAGE = {"inception_v3": 96, "maxvit_t": 224}
# auxiliary classifiers run in training only: an example in eval mode says nothing about them
TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    **{name: {"image_size": 64} for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")},
}
SEGMENTATION = ("fcn_", "deeplabv3_", "lraspp_")


def _torchvision() -> list[Entry]:
    return [_torchvision_entry(name) for name in TORCHVISION.split()]


def _torchvision_entry(name: str) -> Entry:
    segmentation = name.startswith(SEGMENTATION)
    options = dict(TORCHVISION_OPTIONS.get(name, {}), weights=None)
    if segmentation:
        options["weights_backbone"] = None

    def build() -> nn.Module:
        declare_torchvision_operators()
        from torchvision.models import get_model

        return get_model(name, **options)

    return Entry("torchvision", name, build, _image(TORCHVISION_IMAGE.get(name, 64)), 21 if segmentation else 1000)


def declare_torchvision_operators() -> None:
    """Lets torchvision be imported where its compiled operators do not load, as beside a torch built for CPU only.

    No model here uses them, but importing torchvision registers something for these two.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
    except OSError:
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


def _image(size: int) -> dict[str, tuple[int, ...]]:
    return {"": (1, 3, size, size)}


# --- timm ---

TIMM = """
resnet26d resnet50_gn seresnet18 ecaresnet26t resnetv2_50x1_bit skresnet18 res2net50_26w_4s resnest14d
gcresnext26ts regnetx_002 regnetz_b16 tf_efficientnetv2_b0 mixnet_s mobilenetv3_small_050
mobilenetv4_hybrid_medium fbnetv3_b hardcorenas_a ghostnet_050 cspresnet50 cspdarknet53 dla34 vovnet39a
hrnet_w18_small rdnet_tiny nfnet_l0 eca_nfnet_l0 nf_resnet26 repvgg_a0 mobileone_s0 gernet_s repvit_m0_9
rexnet_100 selecsls42 tresnet_m xception41 dpn68 hgnet_tiny edgenext_xx_small starnet_s050 fasternet_t0
mambaout_femto convmixer_768_32 convnext_atto convnextv2_atto convformer_s18 caformer_s18 poolformer_s12
mobilevit_xxs efficientvit_b0 fastvit_t8 nextvit_small xcit_nano_12_p16_224 tiny_vit_5m_224 crossvit_9_240
twins_svt_small pvt_v2_b0 mvitv2_tiny davit_tiny focalnet_tiny_srf sequencer2d_s
"""
TIMM_RESIZED = """
vit_tiny_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 cait_xxs24_224 eva02_tiny_patch14_224
volo_d1_224 convit_tiny pit_ti_224 nest_tiny tnt_s_patch16_224 visformer_tiny hiera_tiny_224 levit_128s
vitamin_small_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 coatnet_pico_rw_224 coat_lite_tiny
mixer_s32_224 resmlp_12_224 gmlp_ti16_224 botnet26t_256
"""
TIMM_IMAGE = {
    "inception_v4": 96,
    "efficientformer_l1": 224,
    "halonet26t": 256,
}


def _timm() -> list[Entry]:
    return [
        *[_timm_entry(name, 64) for name in TIMM.split()],
        *[_timm_entry(name, 64, img_size=64) for name in TIMM_RESIZED.split()],
        *[_timm_entry(name, size) for name, size in TIMM_IMAGE.items()],
    ]


def _timm_entry(name: str, size: int, **options: Any) -> Entry:
    def build() -> nn.Module:
        declare_torchvision_operators()
        import timm

        return timm.create_model(name, num_classes=1000, **options)

    return Entry("timm", name, build, _image(size), 1000)


# --- transformers: tiny configurations of each architecture ---

VOCABULARY = 131
LABELS = 7
TOKENS = {"input_ids": (1, 11)}
PAIR = {"input_ids": (1, 11), "decoder_input_ids": (1, 9)}
PIXELS = {"pixel_values": (1, 3, 32, 32)}
ENCODER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
DECODER = {**ENCODER, "num_key_value_heads": 2, "max_position_embeddings": 32}
EXPERTS = {**DECODER, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
SEQ2SEQ = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
}
VISION = {**ENCODER, "image_size": 32, "patch_size": 8}


@dataclass(frozen=True)
class Recipe:
    """A transformers architecture: the stem of its class names, the head, its sizes and inputs."""

    stem: str
    head: str
    options: Mapping[str, Any]
    sizes: Mapping[str, tuple[int, ...]]

    def build(self) -> nn.Module:
        declare_torchvision_operators()
        import transformers

        options: dict[str, Any] = {**self.options, "num_labels": LABELS}
        if "pixel_values" not in self.sizes:
            options |= {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config = getattr(transformers, f"{self.stem}Config")(**options)
        config.use_cache = False
        return getattr(transformers, f"{self.stem}{self.head}")(config)


CAUSAL, MASKED, LABELLED = "ForCausalLM", "ForMaskedLM", "ForSequenceClassification"
IMAGES, GENERATES = "ForImageClassification", "ForConditionalGeneration"
TRANSFORMERS = {
    "bert": Recipe("Bert", LABELLED, ENCODER, TOKENS),
    "bert_masked_lm": Recipe("Bert", MASKED, ENCODER, TOKENS),
    "roberta": Recipe("Roberta", LABELLED, ENCODER, TOKENS),
    "electra": Recipe("Electra", LABELLED, {**ENCODER, "embedding_size": 48}, TOKENS),
    "distilbert": Recipe("DistilBert", LABELLED, {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}, TOKENS),
    "albert": Recipe("Albert", LABELLED, {**ENCODER, "embedding_size": 48}, TOKENS),
    "deberta_v2": Recipe(
        "DebertaV2",
        LABELLED,
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16},
        TOKENS,
    ),
    "modernbert": Recipe("ModernBert", LABELLED, ENCODER, TOKENS),
    "gpt2": Recipe("GPT2", "LMHeadModel", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}, TOKENS),
    "gpt_neox": Recipe("GPTNeoX", CAUSAL, ENCODER, TOKENS),
    "opt": Recipe(
        "OPT", CAUSAL, {**ENCODER, "ffn_dim": 96, "word_embed_proj_dim": 64, "max_position_embeddings": 32}, TOKENS
    ),
    "bloom": Recipe("Bloom", CAUSAL, {"hidden_size": 64, "n_layer": 2, "n_head": 4}, TOKENS),
    "falcon": Recipe("Falcon", CAUSAL, ENCODER, TOKENS),
    "llama": Recipe("Llama", CAUSAL, DECODER, TOKENS),
    "mistral": Recipe("Mistral", CAUSAL, DECODER, TOKENS),
    "qwen2": Recipe("Qwen2", CAUSAL, DECODER, TOKENS),
    "qwen3": Recipe("Qwen3", CAUSAL, {**DECODER, "head_dim": 16}, TOKENS),
    "gemma2": Recipe("Gemma2", CAUSAL, {**DECODER, "head_dim": 16}, TOKENS),
    "phi3": Recipe("Phi3", CAUSAL, DECODER, TOKENS),
    "mixtral": Recipe("Mixtral", CAUSAL, {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}, TOKENS),
    "qwen3_moe": Recipe("Qwen3Moe", CAUSAL, {**EXPERTS, "head_dim": 16}, TOKENS),
    "olmoe": Recipe("Olmoe", CAUSAL, {**DECODER, "num_experts": 4, "num_experts_per_tok": 2}, TOKENS),
    "mamba": Recipe("Mamba", CAUSAL, {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}, TOKENS),
    "t5": Recipe(
        "T5",
        GENERATES,
        {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
        PAIR,
    ),
    "bart": Recipe("Bart", GENERATES, {**SEQ2SEQ, "max_position_embeddings": 32}, PAIR),
    "whisper": Recipe(
        "Whisper",
        GENERATES,
        {**SEQ2SEQ, "num_mel_bins": 20, "max_source_positions": 16, "max_target_positions": 32},
        {"input_features": (1, 20, 32), "decoder_input_ids": (1, 9)},
    ),
    "vit": Recipe("ViT", IMAGES, VISION, PIXELS),
    "dinov2": Recipe("Dinov2", IMAGES, VISION, PIXELS | {"bool_masked_pos": (1, 16)}),  # reads its mask token
    "swin": Recipe(
        "Swin",
        IMAGES,
        {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        PIXELS,
    ),
    "segformer": Recipe(
        "Segformer",
        IMAGES,
        {"num_encoder_blocks": 2, "depths": [1, 1], "hidden_sizes": [32, 64], "num_attention_heads": [1, 2]}
        | {"sr_ratios": [4, 2], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2]},
        PIXELS,
    ),
}


def _transformers() -> list[Entry]:
    return [
        Entry("transformers", name, recipe.build, recipe.sizes, VOCABULARY if _says_tokens(recipe) else LABELS)
        for name, recipe in TRANSFORMERS.items()
    ]


def _says_tokens(recipe: Recipe) -> bool:
    return recipe.head not in (LABELLED, IMAGES)
