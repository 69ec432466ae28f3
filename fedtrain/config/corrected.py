"""What SCAFFOLD and FedNova need of the rest of a config."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


def verify_corrected(config: "Config") -> None:
    """Refuse a config whose local steps are not what the strategy's correction assumes.

    Raises:
        ValueError: See above.
    """
    training, federation = config.training, config.federation
    strategy = federation.strategy
    if training.optimiser != "sgd" or training.momentum:
        raise ValueError(
            f"federation.strategy = '{strategy}' reads local gradients off the update, which"
            f" optimiser = '{training.optimiser}' with momentum = {training.momentum:g} does not"
            " allow; set training.optimiser = 'sgd' and momentum = 0"
        )
    if strategy == "SCAFFOLD":
        _verify_scaffold(config)
    elif config.privacy.unit != "none":
        raise ValueError(
            f"federation.strategy = 'FedNova' sends each site's number of steps, under"
            f" privacy.unit = '{config.privacy.unit}' it is the same everywhere and nothing is left"
            " to correct; choose FedAvg"
        )


def _verify_scaffold(config: "Config") -> None:
    training, federation = config.training, config.federation
    if training.local_epochs is not None or (
        training.local_steps is None and training.sampling == "shuffle"
    ):
        raise ValueError(
            "federation.strategy = 'SCAFFOLD' needs the same number of steps at every site,"
            " local_epochs gives it to none; set training.local_steps, e.g. local_steps = 20"
        )
    if training.schedule is not None or training.warmup_rounds is not None:
        raise ValueError(
            "federation.strategy = 'SCAFFOLD' reads gradients off the update by one learning rate;"
            " remove training.schedule and warmup_rounds, or set federation.schedule"
        )
    if federation.weighting == "examples":
        raise ValueError(
            "federation.weighting = 'examples' does not fit federation.strategy = 'SCAFFOLD', whose"
            " control variate is a plain mean over sites; set weighting = 'equal'"
        )
