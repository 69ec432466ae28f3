"""Starts coordinators and agents as processes of their own, quickly: a program, not a module.

It loads what they load once, and forks a child for each, which runs what `fedtrain server start`
and `fedtrain client start` run. It reads a line of JSON for each order and answers with one:

    {"start": "coordinator", "folder": ..., "log": ..., "marks": ...}   {"pid": 4711}
    {"reap": 4711}                                                     {"code": 0}

With `marks`, a child kills itself once at each place of its work that no process named before it in
that file, see `killing.py`.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from fedtrain.errors import FedtrainError
from fedtrain.link.suites import restrict_suites

restrict_suites()  # before grpc is loaded

import fedtrain.clients.app  # noqa: E402 - torch, once for all
import fedtrain.server.coordinator  # noqa: E402, F401
from fedtrain.clients import running, work  # noqa: E402
from fedtrain.clients.agent import Agent  # noqa: E402
from fedtrain.clients.backoff import Backoff  # noqa: E402
from fedtrain.server.coordinator import Coordinator  # noqa: E402
from fedtrain.server.folder import hold_lock  # noqa: E402
from fedtrain.server.serving import serve  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))
import killing  # noqa: E402
import rogues  # noqa: E402


def start_coordinator(folder: Path, options: dict) -> None:
    """Serve until a signal; with marks, until a place of its work that is not among them."""
    if "marks" not in options:
        serve(folder)
        return
    knife = make_knife(folder, killing.find_round(folder), options)
    with hold_lock(folder):
        coordinator = Coordinator(folder, on_step=knife.on_step)
        knife.watch_files()
        coordinator.serve()
        signal.pause()


def make_knife(folder: Path, find_position: Callable[[], str], options: dict) -> killing.Knife:
    """Return what kills this process."""
    places = options.get("places", "")
    return killing.Knife(Path(options["marks"]), folder, find_position, places=places)


def start_agent(folder: Path, options: dict) -> None:
    """Run an agent that comes back soon; with a rogue's name, one that answers wrongly."""

    class Eager(Agent):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs, backoff=Backoff(first=0.1, longest=0.5))

    running.Agent = Eager
    if "rogue" in options:
        running.Work = rogues.corrupt(work.Work, options["rogue"])
    if "marks" in options:
        make_knife(folder, killing.find_task(folder), options).watch_files()
    running.run_agent(folder)


def start(order: dict) -> int:
    """Fork a child; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        folder = Path(order["folder"])
        if order["start"] == "coordinator":
            start_coordinator(folder, order)
        else:
            start_agent(folder, order)
        code = 0
    except FedtrainError as error:
        print(f"fedtrain: {error}", flush=True)
        code = error.exit_code
    except BaseException:  # noqa: BLE001 - the child ends with it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def load_all() -> None:
    """Import what a process imports only when it needs it: dp-accounting, opacus, polars, scipy."""
    for package in ("server", "clients", "data", "ledger", "models", "privacy", "training"):
        module = importlib.import_module(f"fedtrain.{package}")
        for found in pkgutil.iter_modules(module.__path__):
            importlib.import_module(f"fedtrain.{package}.{found.name}")
    for name in ("dp_accounting", "dp_accounting.pld", "dp_accounting.rdp", "polars", "opacus"):
        importlib.import_module(name)


def main() -> None:
    """Take orders until the input ends."""
    import torch

    torch.set_num_threads(1)
    load_all()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = {"pid": start(order)}
        else:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is to be wound up that only its children used
