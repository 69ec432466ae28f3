"""What a simulation's rounds cost: its sites' work is timed, and written beside the run."""

import time
from typing import TYPE_CHECKING, Any, Self

from flwr.app import Message, RecordDict

from fedtrain.costs import CostMeter, RoundCost, SiteCost, append_cost, count_payload
from fedtrain.energy import EnergyCounter
from fedtrain.protocol import DESCRIPTION, SITE_NAME
from fedtrain.runs import RunDirectory
from fedtrain.training.devices import read_gpu_seconds

if TYPE_CHECKING:
    from .simulate import Display


class WorkClock:
    """Times the work of one site in this process.

    Attributes:
        spent: Processor and GPU seconds, once the work is done.
    """

    def __init__(self) -> None:
        self.spent = SiteCost()

    def __enter__(self) -> Self:
        self._cpu, self._gpu = time.process_time(), read_gpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        cpu, gpu = time.process_time() - self._cpu, read_gpu_seconds() - self._gpu
        self.spent = SiteCost(cpu, gpu)


class GridMeter:
    """Knows what each node of a grid cost.

    Attributes:
        here: Processor seconds of sites' work in this process; the rest is the coordinator's.
    """

    def __init__(self) -> None:
        self._costs = CostMeter()
        self._names: dict[int, str] = {}
        self._sent: tuple[RecordDict | None, int] = (None, 0)
        self.here = 0.0

    def note_sent(self, message: Message) -> None:
        """Count what a node is sent."""
        if message.content is not self._sent[0]:  # a stage's messages mostly share one
            self._sent = message.content, count_payload(message.content)
        self._add(message.metadata.dst_node_id, SiteCost(bytes_down=self._sent[1]))

    def note_reply(self, reply: Message) -> None:
        """Count what a node sends, and learn its name."""
        node = reply.metadata.src_node_id
        if reply.has_error():
            return
        description = reply.content.get(DESCRIPTION)
        if description is not None and SITE_NAME in description:
            self._names[node] = str(description[SITE_NAME])
        self._add(node, SiteCost(bytes_up=count_payload(reply.content)))

    def note_work(self, node: int, spent: SiteCost, *, here: bool) -> None:
        """Count a node's work, in this process or in another."""
        self._add(node, spent)
        self.here += spent.cpu_seconds if here else 0.0

    def take(self) -> dict[str, SiteCost]:
        """Return what each site cost since this was last called."""
        taken = self._costs.take()
        named = {self._names.get(int(node), f"node {node}"): one for node, one in taken.items()}
        return dict(sorted(named.items()))

    def _add(self, node: int, cost: SiteCost) -> None:
        self._costs.add(str(node), cost)


class CostKeeper:
    """A display that writes down what each round cost, and shows it to another.

    Args:
        run: Whose folder the figures go to.
        meter: The grid's.
        display: Is told all that this one is told.
    """

    def __init__(self, run: RunDirectory, meter: GridMeter, display: "Display") -> None:
        self._run = run
        self._meter = meter
        self._display = display
        self._energy = EnergyCounter()
        self._cpu = time.process_time()

    def on_start(self, *, rounds: int, done: int, sites: int) -> None:
        """The rounds begin: what came before them counts as round 0.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        self._write(0)
        self._display.on_start(rounds=rounds, done=done, sites=sites)

    def on_round(self, metrics: dict[str, Any]) -> None:
        """A round is committed.

        Raises:
            RunDirectoryError: Its cost cannot be written.
        """
        self._write(int(metrics["round"]))
        self._display.on_round(metrics)

    def close(self) -> None:
        """The run has ended."""
        self._display.close()

    def _write(self, number: int) -> None:
        cpu, here = time.process_time(), self._meter.here
        own = max(cpu - self._cpu - here, 0.0)
        self._cpu, self._meter.here = cpu, 0.0
        cost = RoundCost(number, self._meter.take(), own, self._energy.take())
        with self._run.writing():
            append_cost(self._run.path, cost)
