"""Federated, privacy-preserving training of PyTorch models.

What a script needs of the library; the rest is imported from where it is. Each name is loaded when
it is first used, so that `import fedtrain` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fedtrain.config import Config, load_config
    from fedtrain.errors import FedtrainError
    from fedtrain.ledger.site_ledger import SiteLedger
    from fedtrain.models.saved import load_saved_model
    from fedtrain.policy import Policy, load_policy
    from fedtrain.privacy.accounting import PrivacyCost, compute_cost
    from fedtrain.privacy.calibration import calibrate_noise_multiplier
    from fedtrain.privacy.events import PoissonSampledGaussian
    from fedtrain.report.verify import verify_run
    from fedtrain.resolution import resolve

__all__ = [
    "Config",
    "FedtrainError",
    "PoissonSampledGaussian",
    "Policy",
    "PrivacyCost",
    "SiteLedger",
    "calibrate_noise_multiplier",
    "compute_cost",
    "load_config",
    "load_policy",
    "load_saved_model",
    "resolve",
    "verify_run",
]
_HOMES: Final = {
    "Config": "config",
    "FedtrainError": "errors",
    "PoissonSampledGaussian": "privacy.events",
    "Policy": "policy",
    "PrivacyCost": "privacy.accounting",
    "SiteLedger": "ledger.site_ledger",
    "calibrate_noise_multiplier": "privacy.calibration",
    "compute_cost": "privacy.accounting",
    "load_config": "config",
    "load_policy": "policy",
    "load_saved_model": "models.saved",
    "resolve": "resolution",
    "verify_run": "report.verify",
}


def __getattr__(name: str) -> Any:
    """Return a name of the public surface, loaded on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedtrain' has no attribute {name!r}")
    return getattr(import_module(f"fedtrain.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names of the public surface."""
    return sorted(__all__)
