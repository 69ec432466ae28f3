"""The coordinator's Flower ServerApp: `fedtrain.server.app:app`.

On a SuperLink or the Ray engine the run config names a scenario; the simulate command makes the
app around a run directory that it opened itself.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedtrain.config import Config, to_tree
from fedtrain.data.preparation import Preparation
from fedtrain.data.shards import Shards
from fedtrain.errors import ConfigError
from fedtrain.models.registry import describe_architecture
from fedtrain.models.saved import save_model
from fedtrain.params import ModelState, Vector
from fedtrain.plan import compute_draws_seed, find_accountants
from fedtrain.runs import RunDirectory
from fedtrain.secagg.files import load_root_key, load_roster
from fedtrain.secagg.roster import PinnedRoster
from fedtrain.secagg.simulated import describe_roster

from .draws import Draws
from .engine import run_on_engine
from .question import run_question
from .rounds import Observer, Rounds
from .setup import Setting, set_up

log = logging.getLogger("fedtrain.server")

# In a run directory whose preparation rests on a secure sum.
PREPARATION_FILE: Final = "preparation.json"


def make_app(run: RunDirectory | None = None, observer: Observer | None = None) -> ServerApp:
    """Return a ServerApp.

    Args:
        run: The run directory to work in; by default Flower's run config asks for one.
        observer: Is told how a run in that directory goes.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        torch.set_num_threads(1)  # the same sums whatever the machine's number of cores
        if run is not None:
            run_federation(grid, run, observer)
        else:
            roster = load_pinned_roster(context.run_config)
            run_on_engine(
                context.run_config,
                lambda opened: run_federation(
                    grid, opened, draws=Draws.from_system(), roster=roster
                ),
            )

    return app


def run_federation(
    grid: Grid,
    run: RunDirectory,
    observer: Observer | None = None,
    *,
    draws: Draws | None = None,
    roster: PinnedRoster | None = None,
) -> None:
    """Run a federation from a run directory's last commit to its end, and write its results.

    Args:
        grid: Where the sites are.
        run: The run directory.
        observer: Is told how it goes.
        draws: Where the coordinator's draws come from; by default a simulation's, from the seed.
        roster: Of real sites, signed by their federation's root.

    Raises:
        FedtrainError: The run cannot go on; `state.json` says why, and what was committed stays.
    """
    config = run.config
    if config.statistics is not None:
        run_question(grid, run, observer, draws=draws, roster=roster)
        return
    draws = draws or Draws.from_seed(compute_draws_seed(config))
    kept = _read_preparation(run.path)
    setting = set_up(grid, config, run_id=run.state.run_id, draws=draws, roster=roster, kept=kept)
    if setting.summed and kept is None:
        run.write_json(PREPARATION_FILE, setting.preparation.to_json())
    first, second = find_accountants(config)
    run.write_setting(sites=len(setting.members), accountant=first, site_accountant=second)
    central_test = None
    if config.data.central_test:
        central_test = Shards.open(config).load_central_test(setting.preparation)
    if setting.roster is not None:
        run.write_json("roster.json", describe_roster(setting.roster))
    Rounds(grid, run, setting, central_test=central_test, observer=observer).run()
    write_results(run, setting)
    run.finish("finished")


def _read_preparation(folder: Path) -> Preparation | None:
    """Return what a secure sum of an earlier sitting fitted: no site gives it twice."""
    path = folder / PREPARATION_FILE
    if not path.exists():
        return None
    return Preparation.from_json(json.loads(path.read_text(encoding="utf-8")))


def load_pinned_roster(options: Mapping[str, object]) -> PinnedRoster | None:
    """Return the roster that a run config names (`roster` and `root`, files), or None.

    Raises:
        ConfigError: Only one of the two is named.
        SiteError: A file cannot be read, or the root did not sign the roster.
    """
    roster, root = str(options.get("roster", "")), str(options.get("root", ""))
    if not roster and not root:
        return None
    if not roster or not root:
        raise ConfigError("the run config needs both roster and root, or neither; add the other")
    key = load_root_key(Path(root))
    return PinnedRoster(load_roster(Path(roster), key), key, simulated=False)


def write_results(run: RunDirectory, setting: Setting) -> None:
    """Write the chosen model, the last one beside it where it is another, and the pictures."""
    last = run.load_checkpoint()["parameters"]
    best = run.load_best()
    state = run.state
    notes = {"last_round": state.round, "best_round": state.best_round}
    _save(run.path, last if best is None else best, run.config, setting, notes=notes)
    if best is not None and state.best_round != state.round:
        (run.path / "last").mkdir(exist_ok=True)
        _save(run.path / "last", last, run.config, setting, notes=notes)
    # Matplotlib takes half a second to import: only at the end.
    from fedtrain.report.curves import draw_curves, draw_privacy

    metrics, config = run.read_metrics(), to_tree(run.config)
    with run.writing():
        draw_curves(metrics, run.path / "curves.png", best_round=state.best_round, config=config)
        draw_privacy(metrics, run.path / "privacy.png", config=config)


def _save(
    path: Path, vector: Vector, config: Config, setting: Setting, *, notes: dict[str, int | None]
) -> None:
    preparation, model = setting.preparation, setting.model
    ModelState(model).write(vector)
    save_model(
        path,
        model.state_dict(),
        architecture=describe_architecture(
            config.model,
            input_shape=preparation.input_shape,
            classes=preparation.outputs,
            input_dtype=torch.int64 if preparation.is_discrete else torch.float32,
        ),
        preparation=preparation.to_json(),
        label_names=preparation.label_names,
        notes=notes,
    )


app = make_app()
