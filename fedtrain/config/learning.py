"""Rules between what a site does in a round and the rest of the config."""

from typing import TYPE_CHECKING

from fedtrain.config.task import check_task

if TYPE_CHECKING:
    from fedtrain.config.whole import Config


def check_learning(config: "Config") -> None:
    """Refuse losses, clips and schedules that contradict the rest of the config.

    Raises:
        ValueError: In one line, with the cure.
    """
    check_task(config)
    _check_validation(config)
    training = config.training
    if training.max_grad_norm is not None and config.privacy.covers_records:
        raise ValueError(
            f"training.max_grad_norm = {training.max_grad_norm:g} clips a batch's gradient, but"
            f" privacy.unit = '{config.privacy.unit}' clips each record's; set"
            " privacy.max_grad_norm and remove it"
        )
    if training.gradient_norms and config.privacy.unit != "none":
        raise ValueError(
            "training.gradient_norms = true would send unprotected norms under privacy.unit ="
            f" '{config.privacy.unit}'; remove it"
        )
    if training.mixed_precision and config.privacy.covers_records:
        raise ValueError(
            "training.mixed_precision = true would round the gradients that privacy.unit ="
            f" '{config.privacy.unit}' clips; remove it"
        )
    for section, name in ((training, "training"), (config.federation, "federation")):
        warmup, rounds = section.warmup_rounds, config.federation.rounds
        if warmup is not None and warmup > rounds:
            raise ValueError(
                f"{name}.warmup_rounds = {warmup} is above federation.rounds = {rounds}; lower it"
            )


def _check_validation(config: "Config") -> None:
    """Refuse what follows validation losses where there are none, or where they are private."""
    federation = config.federation
    asking = [
        (federation.patience is not None, f"federation.patience = {federation.patience}"),
        (federation.schedule == "plateau", "federation.schedule = 'plateau'"),
        (config.training.schedule == "plateau", "training.schedule = 'plateau'"),
    ]
    for asks, shown in asking:
        if not asks:
            continue
        if config.privacy.unit != "none":
            raise ValueError(
                f"{shown} would follow unprotected validation losses under privacy.unit ="
                f" '{config.privacy.unit}'; remove it, or fix the number of rounds"
            )
        if not config.data.validation_fraction:
            raise ValueError(
                f"{shown} needs validation losses, data.validation_fraction = 0 leaves none; set"
                " it to 0.1"
            )
        if not federation.evaluate_every:
            raise ValueError(
                f"{shown} needs validation losses while the run goes on, federation.evaluate_every"
                " = 0 has none; set it to 1"
            )
