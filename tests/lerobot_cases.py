"""Tiny checkpoints of lerobot's own classes with random weights, saved the way lerobot saves them."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.seeding import stream

ACTIONS, STATE, SIZE = 7, 8, 64
PLUGINS = tuple(sorted((Path(__file__).parents[1] / "plugins").glob("lerobot_*_vlamem")))
sys.path[:0] = [str(plugin) for plugin in PLUGINS]  # they are distributions of their own, installed or not
FAMILIES = ("act", "diffusion", "diffusion_ddpm", "smolvla", "pi0", "pi05", "dit_flow", "dit_diffusion")
_WORDS = (
    "<pad> <unk> <image> <fake_token_around_image> <global-img> <end_of_utterance> <bos> touch push place the red "
    "green blue block now lamp do nothing Task: State: Action:"
)


def build(
    family: str,
    folder: Path,
    cameras: tuple[str, ...] = ("agentview", "wrist"),
    seed: int = 0,
    sizes: Mapping[str, tuple[int, int]] = {},
    actions: int = ACTIONS,
) -> Path:
    """Saves a checkpoint of `family` with its processors in `folder` and returns it.

    `sizes` are height and width of a camera's pictures, where these are not SIZE.
    """
    import torch
    from lerobot.configs import FeatureType, PolicyFeature

    torch.manual_seed(seed)
    features: dict[str, Any] = {
        "input_features": {
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
            **{
                f"observation.images.{c}": PolicyFeature(FeatureType.VISUAL, (3, *sizes.get(c, (SIZE, SIZE))))
                for c in cameras
            },
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (actions,))},
        "device": "cpu",
        "push_to_hub": False,
    }
    kind = family.partition("_")[0]
    network, overrides = {
        "act": _act, "diffusion": _diffusion, "smolvla": _smolvla, "pi0": _pi, "pi05": _pi, "dit": _dit
    }[kind](family, folder, features)  # fmt: skip
    for parameter in network.parameters():  # zero-initialised outputs would make every chunk the same
        if not parameter.any():
            parameter.data.normal_(std=0.2)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    _save_processors(network.config, folder, cameras, overrides, actions)
    return folder


def loaded(folder: Path | str, family: str, options: str = "") -> Any:
    """The LeRobotPolicy in a folder; options as after a checkpoint's name."""
    from vlamem.policies.lerobot import load

    with shrunk_paligemma(family) if family.startswith("pi") else nullcontext():
        return load(f"{folder}{options}")


def lerobots_own(folder: Path) -> tuple[Any, Any, Any]:
    """Policy and processors as lerobot's own scripts load them."""
    from lerobot.configs import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(str(folder))
    with shrunk_paligemma(config.type) if config.type.startswith("pi") else nullcontext():
        policy = get_policy_class(config.type).from_pretrained(str(folder))
    policy.reset()
    return policy.eval(), *make_pre_post_processors(policy.config, pretrained_path=str(folder))


def observation(
    rows: int = 3,
    cameras: tuple[str, ...] = ("agentview", "wrist"),
    history: int = 1,
    seed: int = 7,
    sizes: Mapping[str, tuple[int, int]] = {},
) -> Observation:
    """Random pixels and states."""
    random = stream(seed, "observation")
    many = (rows,) if history == 1 else (rows, history)
    state = (rows, STATE) if history == 1 else (rows, history, STATE)
    sentences = ("touch the red block", "push the green block now", "lamp")
    return Observation(
        {c: random.integers(0, 256, (*many, *sizes.get(c, (SIZE, SIZE)), 3), dtype=np.uint8) for c in cameras},
        random.uniform(-0.9, 0.9, state).astype(np.float32),
        tuple(sentences[i % 3] for i in range(rows)),
    )


def wide_noise(policy: Any, rows: int = 3) -> np.ndarray:
    """Normal noise of the shape that a policy draws from, [rows, ...]."""
    return stream(1, "noise").standard_normal((rows, *policy.noise_shape)).astype(np.float32)


def state_and_sentences(obs: Observation) -> tuple[np.ndarray, tuple[str, ...]]:
    """What an observation has beside its pictures."""
    return obs.proprioception, obs.instruction


def raw_batch(obs: Observation, step: int | None = None) -> dict[str, Any]:
    """What lerobot makes of an environment's observation, before the preprocessor."""
    import torch

    at = (lambda x: x) if step is None else (lambda x: x[:, step])
    images = {
        f"observation.images.{name}": torch.from_numpy(at(image)).permute(0, 3, 1, 2).contiguous().float() / 255.0
        for name, image in obs.images.items()
    }
    return images | {
        "observation.state": torch.from_numpy(at(obs.proprioception).copy()),
        "task": list(obs.instruction),
    }


def installed_plugins(root: Path) -> Path:
    """Metadata in `root` by which lerobot finds the three plugins, whether they are installed or not; returns it."""
    for plugin in PLUGINS:
        folder = root / f"{plugin.name}-0.1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin.name}\nVersion: 0.1.0\n")
    return root


def run_program(
    program: str, installed: Path, *words: str, policy: str = "--policy.type=vlamem"
) -> subprocess.CompletedProcess[str]:
    """One of lerobot's programs in a process of its own, with the plugins as installed distributions.

    `policy` says which one, by its type or its folder. Nobody answers the program's questions, no hub can be reached,
    and its home folder is empty.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(installed), *map(str, PLUGINS)]),
        "HF_HUB_OFFLINE": "1",
        "HF_LEROBOT_HOME": str(installed),
        "HOME": str(installed),
    }
    environment.pop("LIBERO_CONFIG_PATH", None)
    command = [str(Path(sys.executable).with_name(program)), policy, "--policy.device=cpu", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=1500, stdin=subprocess.DEVNULL
    )


def _save_processors(
    config: Any, folder: Path, cameras: tuple[str, ...], overrides: dict[str, str], actions: int
) -> None:
    import torch
    from lerobot.policies.factory import make_pre_post_processors

    def statistics(size: int) -> dict[str, Any]:
        low, high = -torch.linspace(1, 2, size), torch.linspace(1, 3, size)
        return {
            "mean": torch.linspace(-0.3, 0.3, size), "std": torch.linspace(0.5, 1.5, size),
            "min": low, "max": high, "q01": low, "q99": high,
        }  # fmt: skip

    stats: dict[str, Any] = {"observation.state": statistics(STATE), "action": statistics(actions)}
    for camera in cameras:
        stats[f"observation.images.{camera}"] = {
            "mean": torch.full((3, 1, 1), 0.4), "std": torch.full((3, 1, 1), 0.2),
            "min": torch.zeros(3, 1, 1), "max": torch.ones(3, 1, 1),
        }  # fmt: skip
    from unittest import mock

    from lerobot.processor import tokenizer_processor

    original = tokenizer_processor.AutoTokenizer.from_pretrained
    with mock.patch.object(
        tokenizer_processor.AutoTokenizer, "from_pretrained", lambda name: original(overrides.get(name, name))
    ):
        pre, post = make_pre_post_processors(config, dataset_stats=stats)
    for step in pre.steps:
        if getattr(step, "tokenizer_name", None) in overrides:
            step.tokenizer_name = overrides[step.tokenizer_name]
    pre.save_pretrained(folder)
    post.save_pretrained(folder)


def _tokenizer(folder: Path, numbers: bool = False, ends: bool = False) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = _WORDS.split() + ([str(i) for i in range(-1, 257)] if numbers else [])
    table = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:  # CLIP reads its sentence at the last token
        table.post_processor = processors.TemplateProcessing(single="$A <bos>", special_tokens=[("<bos>", 6)])
    special = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    fast = PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=special
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return fast


def _act(family: str, folder: Path, features: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    config = ACTConfig(
        **features, pretrained_backbone_weights=None, chunk_size=8, n_action_steps=4, dim_model=32, n_heads=2,
        dim_feedforward=32, n_encoder_layers=1, n_decoder_layers=1, n_vae_encoder_layers=1, latent_dim=4,
    )  # fmt: skip
    return ACTPolicy(config), {}


def _diffusion(family: str, folder: Path, features: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    config = DiffusionConfig(
        **features, pretrained_backbone_weights=None, horizon=8, n_obs_steps=2, n_action_steps=4, down_dims=(16, 32),
        n_groups=4, diffusion_step_embed_dim=8, spatial_softmax_num_keypoints=4, use_group_norm=True,
        noise_scheduler_type="DDPM" if family.endswith("ddpm") else "DDIM", num_train_timesteps=20,
        num_inference_steps=10, drop_n_last_frames=3,
    )  # fmt: skip
    return DiffusionPolicy(config), {}


def vlm(folder: Path) -> Path:
    """A SmolVLM's configuration, tokenizer and image processor in a folder, without weights."""
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    tokenizer = _tokenizer(folder)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor()).save_pretrained(folder)
    text = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": len(tokenizer),
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIZE, "patch_size": 16,
    }  # fmt: skip
    SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=2, image_token_id=2, pad_token_id=0
    ).save_pretrained(folder)
    return folder


def _smolvla(family: str, folder: Path, features: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    config = SmolVLAConfig(
        **features, vlm_model_name=str(vlm(folder / "vlm")), num_vlm_layers=2, chunk_size=8, n_action_steps=4,
        resize_imgs_with_padding=(SIZE, SIZE), max_state_dim=12, max_action_dim=10, tokenizer_max_length=8,
        expert_width_multiplier=0.5,
    )  # fmt: skip
    return SmolVLAPolicy(config), {}


class shrunk_paligemma:  # noqa: N801  # used as a context
    """Builds pi0 and pi0.5 with a tiny PaliGemma: lerobot has only full-size variants of it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        import importlib
        from unittest import mock

        module = importlib.import_module(f"lerobot.policies.{self._kind}.modeling_{self._kind}")
        vlm_class, expert_class = module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM

        def small_vlm(config: Any) -> Any:
            config.text_config.vocab_size = config.image_token_index = config._vocab_size = 300
            for name, value in {
                "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "num_attention_heads": 2,
                "patch_size": 16, "projection_dim": 32,
            }.items():  # fmt: skip
                setattr(config.vision_config, name, value)
            return vlm_class(config=config)

        def small_expert(config: Any) -> Any:
            config.vocab_size = 300
            return expert_class(config=config)

        def sizes(variant: str) -> Any:
            width = 32 if variant == "gemma_2b" else 16
            return module.GemmaConfig(width=width, depth=2, mlp_dim=32, num_heads=2, num_kv_heads=1, head_dim=16)

        self._patches = [
            mock.patch.object(module, "PaliGemmaForConditionalGenerationWithPiGemma", small_vlm),
            mock.patch.object(module, "PiGemmaForCausalLM", small_expert),
            mock.patch.object(module, "get_gemma_config", sizes),
        ]
        for patch in self._patches:
            patch.start()

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()


def _pi(family: str, folder: Path, features: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    import importlib

    module = importlib.import_module(f"lerobot.policies.{family}.modeling_{family}")
    name = family.upper()
    config = getattr(module, f"{name}Config")(
        **features, chunk_size=8, n_action_steps=4, num_inference_steps=10, max_state_dim=12, max_action_dim=10,
        image_resolution=(SIZE, SIZE), tokenizer_max_length=24,
    )  # fmt: skip
    tokenizer = folder / "tokenizer"
    _tokenizer(tokenizer, numbers=True)
    with shrunk_paligemma(family):
        network = getattr(module, f"{name}Policy")(config)
    return network, {"google/paligemma-3b-pt-224": str(tokenizer)}


def _dit(family: str, folder: Path, features: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
    from lerobot.policies.multi_task_dit.modeling_multi_task_dit import MultiTaskDiTPolicy
    from transformers import CLIPConfig, CLIPModel

    clip = folder / "clip"
    tokenizer = _tokenizer(clip, ends=True)
    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": len(tokenizer), "max_position_embeddings": 12, "eos_token_id": 6, "bos_token_id": 6,
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": SIZE, "patch_size": 16,
    }  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(clip)
    config = MultiTaskDiTConfig(
        **features, objective="flow_matching" if family == "dit_flow" else "diffusion", horizon=8, n_obs_steps=2,
        n_action_steps=4, num_integration_steps=10, num_train_timesteps=20, num_inference_steps=10, hidden_dim=32,
        num_layers=2, num_heads=2, timestep_embed_dim=16, vision_encoder_name=str(clip), text_encoder_name=str(clip),
        image_crop_shape=None, tokenizer_max_length=12, drop_n_last_frames=3, noise_scheduler_type="DDIM",
    )  # fmt: skip
    return MultiTaskDiTPolicy(config), {}


def _factory(family: str) -> Callable[[], Any]:
    def made() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return loaded(build(family, Path(folder) / family), family)

    return made


act, diffusion, smolvla, pi0, pi05, dit_flow, dit_diffusion = (_factory(f) for f in FAMILIES if f != "diffusion_ddpm")
"""Policies of your own for `--policy`, e.g. lerobot_cases:smolvla with this folder on the path."""


if __name__ == "__main__":  # python tests/lerobot_cases.py smolvla runs/smolvla-tiny
    print(build(sys.argv[1], Path(sys.argv[2])))
