"""Whether a site's data fits a federation's scenario: opened, compared with its schema, prepared.

Everything stays at the site, so that what is wrong is said in full.
"""

from pathlib import Path

from fedtrain.config import load_config
from fedtrain.data.preparation import fit_preparation
from fedtrain.data.requirements import needs_statistics
from fedtrain.data.shards import Shards
from fedtrain.plan import compute_planned_site_cost
from fedtrain.policy import check_config
from fedtrain.report.tables import format_count
from fedtrain.resolution import resolve
from fedtrain.scenarios import find_scenario

from .agent_settings import load_settings
from .custody import open_custody
from .runtime import verify_names_no_data


def open_data(site: Path, scenario: str) -> str:
    """Check a scenario against the site's policy, then its data against the scenario.

    Args:
        site: The site's folder.
        scenario: A file, or the name of a scenario that ships.

    Returns:
        What was found.

    Raises:
        ConfigError: The scenario cannot run, or needs what the data does not say.
        SiteError: It names a file here, and the site names none.
        PolicyError: The site's policy refuses it.
        DataError: The data cannot be opened, or has not the columns, classes or values that the
            scenario names.
    """
    custody, settings = open_custody(site), load_settings(site)
    config = resolve(load_config(find_scenario(scenario)))
    check_config(custody.policy, config, site_cost=compute_planned_site_cost(config, outside=False))
    if settings.data_path:
        data = config.data.model_copy(update={"path": settings.data_path})
        config = config.model_copy(update={"data": data})
    else:
        verify_names_no_data(config)
    own = custody.name if settings.data_path else None
    shards = Shards.open(config, strict=True, own=own)
    index = 0 if own else settings.partition_id
    sums = [shards.compute_statistics(index)] if needs_statistics(config, shards.public) else []
    preparation = fit_preparation(sums, config, shards.public)
    shards.load(index, preparation)
    columns = preparation.columns
    what = (
        f"an input of shape {preparation.input_shape}"
        if columns is None
        else format_count(len(columns), "column")
    )
    kinds = "classes" if preparation.task in (None, "anomaly") else "outputs"
    return (
        f"{config.run.name}: the policy allows it; the data has {what} and is of"
        f" {len(preparation.label_names)} {kinds}, as it says"
    )
