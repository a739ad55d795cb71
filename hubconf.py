"""Entry points of torch.hub: the network DeepMask and proposal methods, from a clone of this repository.

`torch.hub.load(FOLDER, "proposals", source="local")(image)`.  How good the released weights are, and on what, says
results/weights/README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepmask.model import DeepMask as _DeepMask
    from deepmask.proposals import ProposalMethod as _ProposalMethod

dependencies = ["torch", "numpy", "safetensors", "yaml", "pandas", "matplotlib", "PIL", "pycocotools", "tqdm"]


def deepmask(pretrained: bool = True, device: str = "cpu", profile: str | None = None) -> _DeepMask:
    """The network of section 3, a torch.nn.Module in evaluation mode: two heads on one trunk.

    `net(patches, "mask")`: uint8 (N, 3, P, P) -> mask logits (N, m, m); `net(patches, "score")` -> logits (N,).
    `pretrained`: with the released weights, trained on drawn scenes; their average recall stands in
    results/weights/README.md.  Otherwise random weights at the size that `profile` of params.yaml has (coco: the
    paper's).  Raises WeightsError if nothing has been released, ConfigError on an unknown profile.
    """
    from deepmask import config, released
    from deepmask.model import DeepMask
    from deepmask.paths import REPOSITORY
    from deepmask.weights import load_model

    if pretrained:
        return load_model(released.path(), device)
    settings = config.load(REPOSITORY / "params.yaml", profile)
    return DeepMask(settings.geometry, settings.model).to(device).eval()


def proposals(method: str = "deepmask", count: int = 1000, **options: str) -> _ProposalMethod:
    """A proposal method: a callable (H, W, 3) uint8 RGB -> up to `count` proposals, best first.

    `method`: deepmask, deepmaskzoom, selectivesearch, edgeboxes, mcg, ...; `options`: study and profile, as
    `deepmask.load` takes them.  DeepMask's average recall stands in results/weights/README.md.
    """
    from deepmask import hub

    return hub.load(method, count=count, **options)
