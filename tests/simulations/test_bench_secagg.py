"""`fedtrain bench secagg`: it runs whole rounds and prints a table; no time is asserted."""

import json

import pytest

from fedtrain.cli import main
from fedtrain.errors import RunFailedError
from simulations.bench import secagg_round
from simulations.bench.secagg import measure_secagg
from simulations.bench.secagg_floor import count_coordinator_masks, measure_floor
from simulations.bench.secagg_rival import has_rival, measure_encoding, measure_mask

TINY = ("bench", "secagg", "--sizes", "50", "--sites", "4", "10")


def test_bench_secagg_prints_a_line_for_each_case(capsys):
    assert main([*TINY, "--threads", "2"]) == 0
    text = capsys.readouterr().out
    assert "every sum is exact" in text
    assert [line.split()[:3] for line in text.splitlines() if line[:3] == " 50"] == [
        ["50", "4", "0"],
        ["50", "4", "1"],
        ["50", "10", "0"],
        ["50", "10", "1"],
    ]


def test_bench_secagg_prints_one_json_object(capsys):
    assert main([*TINY, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(row["site_ratio"] > 0 and row["unmask_ratio"] > 0 for row in rows)
    assert rows[0]["flower_site"] > 0


def test_bench_secagg_bytes_up_are_the_vector_and_little_more():
    (plain, _) = measure_secagg([10_000], [4], threads=1)
    assert 1 <= plain.up_ratio <= 1.02


def test_bench_secagg_leaves_out_what_would_take_minutes():
    assert list(measure_secagg([10_000], [4], threads=1, most_work=159_999)) == []


@pytest.mark.parametrize("sites", ["3", "201"])
def test_bench_secagg_refuses_a_cohort_out_of_range(sites, capsys):
    assert main(["bench", "secagg", "--sites", sites]) == 2
    assert f"{sites} is not between 4 and 200" in capsys.readouterr().err


def test_round_fails_on_a_sum_that_is_not_exact():
    bench = secagg_round._Round(10, 4, 1)
    plain = bench.encode()
    deliveries = bench.share_keys()
    for name, delivery in deliveries.items():
        bench.mask(name, plain.copy(), delivery)
    bench.costs.others_up = 0
    bench.open(bench.context.cohort)
    with pytest.raises(RunFailedError, match="not the plain sum"):
        bench.finish(plain, 1)


def test_coordinator_masks_are_own_and_cut_pairs():
    assert count_coordinator_masks(100, 10) == 90 + 10 * 90


def test_floor_is_a_rate_of_gigabytes():
    floor = measure_floor(1)
    assert 1e-12 < floor.cpu < 1e-7


def test_rival_is_timed_where_flower_has_it():
    assert has_rival()
    assert measure_mask(10) > 0
    assert measure_encoding(10) > 0
