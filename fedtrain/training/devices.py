"""Where a model is computed: on the CPU, or a GPU that is there."""

import torch

from fedtrain.config import Config
from fedtrain.errors import ConfigError

CPU = torch.device("cpu")


def find_device(config: Config) -> torch.device:
    """Return where to train and evaluate.

    `auto` is a GPU where there is one and no record is protected. Workers of a simulation share
    it. The noise of DP-SGD is drawn and added on the CPU, which therefore computes all of it.

    Raises:
        ConfigError: The device is not there, or records are protected.
    """
    wanted = config.simulation.device or "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if wanted == "auto":
        found = [name for name in ("cuda", "mps") if there[name]]
        return torch.device(found[0] if found and not config.privacy.covers_records else "cpu")
    if not there[wanted]:
        raise ConfigError(f"simulation.device = '{wanted}' is not on this machine; set 'auto'")
    if wanted != "cpu" and config.privacy.covers_records:
        raise ConfigError(
            f"simulation.device = '{wanted}' has no DP-SGD, whose noise is drawn on the CPU, under"
            f" privacy.unit = '{config.privacy.unit}'; set 'cpu'"
        )
    return torch.device(wanted)
