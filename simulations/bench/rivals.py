"""Other tools on the same workloads; each is left out where it is not installed.

Shapes: c clients, n records of a client.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .stopwatch import Stopwatch
from .workloads import WORKLOADS, Workload, build, load_clients, to_floats

ACTORS: Final = 2


def run_pfl(name: str, stopwatch: Stopwatch) -> None:
    """Run pfl's federated averaging on its simulated backend, in two processes.

    pfl's own transport between processes on one machine is torch.distributed with gloo: no horovod
    and no torchrun is needed, only the addresses in the environment. Each process trains half of
    the cohort; the sums are all-reduced. The second process runs this function too.
    """
    second = None
    if "PFL_WORKER_RANK" not in os.environ:
        port = _find_free_port()
        os.environ["PFL_WORKER_ADDRESSES"] = f"127.0.0.1:{port},127.0.0.1:{port + 1}"
        environment = os.environ | {"PFL_WORKER_RANK": "1"}
        second = subprocess.Popen([*sys.orig_argv[:-1], os.devnull], env=environment)
        os.environ["PFL_WORKER_RANK"] = "0"
    try:
        _train_with_pfl(name, stopwatch)
    finally:
        if second is not None:
            second.wait(timeout=60)


def _train_with_pfl(name: str, stopwatch: Stopwatch) -> None:
    # Imported late: pfl joins its process group on import.
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)
    workload = WORKLOADS[name]
    pixels, labels = load_clients(name)

    class Ticks(TrainingProcessCallback):  # type: ignore[misc]  # pfl has no types
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
            stopwatch.tick()
            return False, Metrics()

    def make_dataset(client: int) -> Dataset:
        order = torch.randperm(workload.records)
        return Dataset((to_floats(pixels[client][order]), labels[client][order]))

    module = _PflModule(build(name))
    data = FederatedDataset(make_dataset, get_user_sampler("random", list(range(workload.clients))))
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=stopwatch.total,
            evaluation_frequency=stopwatch.total + 1,
            train_cohort_size=workload.cohort,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()]),
        PyTorchModel(
            module,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        ),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=workload.learning_rate,
            local_batch_size=workload.batch_size,
        ),
        callbacks=[Ticks()],
    )


class _PflModule(nn.Module):
    """A model as pfl wants it: it computes its own loss and metrics."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        self.train()
        return functional.cross_entropy(self.model(features), labels)

    def metrics(self, features: Tensor, labels: Tensor) -> Mapping[str, Any]:
        from pfl.metrics import Weighted

        self.eval()
        loss = functional.cross_entropy(self.model(features), labels, reduction="sum")
        return {"loss": Weighted(loss.item(), len(labels))}


def run_flower_on_ray(name: str, stopwatch: Stopwatch) -> None:
    """Run Flower's FedAvg and a plain PyTorch ClientApp on its Ray engine, one thread an actor."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    workload = WORKLOADS[name]
    client_app, server_app = ClientApp(), ServerApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        model = build(name)
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        loss = _train_client(model, name, int(context.node_config["partition-id"]))
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"train_loss": loss, "num-examples": workload.records}),
            }
        )
        return Message(content, reply_to=message)

    class TimedFedAvg(FedAvg):
        def aggregate_train(self, *args: Any, **kwargs: Any) -> Any:
            result = super().aggregate_train(*args, **kwargs)
            stopwatch.tick()
            return result

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower's signature
        strategy = TimedFedAvg(
            fraction_train=workload.cohort / workload.clients,
            fraction_evaluate=0.0,
            min_available_nodes=workload.clients,
            min_train_nodes=workload.cohort,
        )
        strategy.start(
            grid,
            ArrayRecord(build(name).state_dict()),
            num_rounds=stopwatch.total,
            train_config=ConfigRecord({}),
        )

    run_simulation(
        server_app,
        client_app,
        num_supernodes=workload.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": ACTORS, "include_dashboard": False},
        },
    )


def _train_client(model: nn.Module, name: str, client: int) -> float:
    torch.set_num_threads(1)
    workload: Workload = WORKLOADS[name]
    pixels, labels = _load_once(name)
    features, targets = to_floats(pixels[client]), labels[client]
    optimiser = torch.optim.SGD(model.parameters(), lr=workload.learning_rate)
    losses = []
    for batch in torch.split(torch.randperm(workload.records), workload.batch_size):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(features[batch]), targets[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.detach())
    return float(np.mean([float(loss) for loss in losses]))


@lru_cache(maxsize=1)
def _load_once(name: str) -> tuple[Tensor, Tensor]:
    return load_clients(name)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
