"""What rounds cost: added up, written, read again after kills, and turned into energy."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedtrain.costs import (
    COSTS,
    CostMeter,
    RoundCost,
    SiteCost,
    append_cost,
    count_payload,
    load_costs,
)
from fedtrain.energy import EnergyCounter, Power, compute_joules, compute_share
from fedtrain.errors import ConfigError
from fedtrain.seal import list_files

ROUND = RoundCost(1, {"a": SiteCost(3.0, 1.0, 20, 10), "b": SiteCost(1.0)}, 2.0, joules=60.0)


def test_meter_adds_until_it_is_taken() -> None:
    meter = CostMeter()
    meter.add("a", SiteCost(1.0, 0.5, bytes_up=3))
    meter.add("a", SiteCost(2.0, 0.0, bytes_down=4))
    assert meter.take() == {"a": SiteCost(3.0, 0.5, 3, 4)}
    assert meter.take() == {}


def test_payload_is_vectors_and_the_protocols_messages() -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"parameters": Array(np.zeros((2, 5), np.float32))}),
            "config": ConfigRecord({"text": "long text", "round": 3, "message": b"12345"}),
        }
    )
    assert count_payload(content) == 2 * 5 * 4 + 5


def test_written_costs_are_read(tmp_path: Path) -> None:
    append_cost(tmp_path, ROUND)
    assert load_costs(tmp_path) == [ROUND]


def test_round_that_was_run_again_counts_once_and_a_torn_line_not(tmp_path: Path) -> None:
    for cost in (RoundCost(0, {"a": SiteCost(1.0)}, 1.0), RoundCost(1, {}, 9.0), ROUND):
        append_cost(tmp_path, cost)
    with (tmp_path / COSTS).open("a") as file:
        file.write('{"round": 2, "sites": {"a"\n')
    append_cost(tmp_path, RoundCost(0, {"a": SiteCost(2.0)}, 0.5))
    assert load_costs(tmp_path) == [RoundCost(0, {"a": SiteCost(3.0)}, 1.5), ROUND]


def test_costs_are_not_part_of_what_is_sealed(tmp_path: Path) -> None:
    append_cost(tmp_path, ROUND)
    (tmp_path / "model.json").touch()
    assert list_files(tmp_path) == ["model.json"]


def test_run_without_costs_has_none(tmp_path: Path) -> None:
    assert load_costs(tmp_path) == []


def test_counted_energy_is_shared_out_by_processor_seconds() -> None:
    parts = [*ROUND.sites.values(), SiteCost(ROUND.coordinator_seconds or 0)]
    assert [compute_share(ROUND, part) for part in parts] == [30, 10, 20]
    assert compute_joules(ROUND) == 60


def test_assumed_power_takes_the_place_of_what_was_counted() -> None:
    power = Power(10.0, gpu_watts=100.0)
    assert compute_joules(ROUND, power) == 10 * 6 + 100
    assert compute_share(ROUND, ROUND.sites["a"], power) == 130


def test_sites_that_nobody_timed_have_no_energy() -> None:
    deployed = RoundCost(1, {"a": SiteCost(bytes_up=5)})
    assert compute_joules(deployed, Power(10.0)) is None
    assert compute_share(deployed, deployed.sites["a"], Power(10.0)) is None


@pytest.mark.parametrize("watts", [0.0, -1.0, float("nan"), float("inf")])
def test_power_that_no_machine_takes_is_refused(watts: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        Power(watts)


def write_counter(folder: Path, name: str, value: int) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{value}\n")
    (folder / name / "max_energy_range_uj").write_text("10000000\n")


def test_energy_of_all_packages_is_counted_through_a_wrap(tmp_path: Path) -> None:
    for name, value in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 9_000_000)):
        write_counter(tmp_path, name, value)
    write_counter(tmp_path, "intel-rapl:0:0", 5)  # a part of the first
    counter = EnergyCounter(tmp_path)
    write_counter(tmp_path, "intel-rapl:0", 3_000_000)
    write_counter(tmp_path, "intel-rapl:1", 500_000)
    assert counter.take() == pytest.approx(2.0 + 1.5)
    assert counter.take() == 0


def test_machine_without_a_counter_counts_nothing(tmp_path: Path) -> None:
    assert EnergyCounter(tmp_path).take() is None
