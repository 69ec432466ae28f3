"""The names that `import fedtrain` offers."""

import subprocess
import sys

import pytest

import fedtrain


def test_public_names_are_these():
    assert fedtrain.__all__ == [
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


@pytest.mark.parametrize("name", fedtrain.__all__)
def test_public_name_is_the_one_of_its_module(name):
    thing = getattr(fedtrain, name)
    assert thing.__name__ == name
    assert getattr(sys.modules[thing.__module__], name) is thing


def test_other_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'compute_costs'"):
        fedtrain.compute_costs  # noqa: B018


def test_import_loads_nothing_heavy():
    code = "import sys, fedtrain; print(sorted({'torch', 'numpy', 'flwr'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
