"""The commands that use a model, and those of a run that goes on from another."""

import argparse
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedtrain.errors import ConfigError

if TYPE_CHECKING:
    from fedtrain.use.run_model import RunModel

OUTSIDE: Final = """\
New records are outside the run's guarantee, which is about the records that the model was trained
on: it says nothing about what predictions and figures on other records tell of those.
"""
EVALUATE_EPILOG: Final = f"""\
Example:
  fedtrain evaluate runs/heart_disease --data cleveland.csv
  fedtrain evaluate runs/cancer --data clinic.csv --label diagnosis --json

Rows without a label are left out. Nothing is fitted: means, bounds and categories are the run's.
{OUTSIDE}"""
PREDICT_EPILOG: Final = f"""\
Example:
  fedtrain predict runs/heart_disease --data new.csv --out answers.csv --keep patient
  fedtrain predict runs/digits --data scans.npz --out answers.parquet

A row for each record, in the file's order: the class, and the probability of each class.
{OUTSIDE}"""
EXPLAIN_EPILOG: Final = f"""\
Example:
  fedtrain explain runs/heart_disease --data cleveland.csv --out importance.png
  fedtrain explain runs/digits --data scans.npz --method gradients

It says what this model's answers rest on, not what causes what; of two inputs that say the same,
each may look unimportant.
{OUTSIDE}"""
EXPORT_EPILOG: Final = """\
Example:
  fedtrain export runs/heart_disease --format onnx --out heart.onnx

The file takes prepared records and returns the model's outputs (logits). How a record is prepared,
and the names of the classes, are in it as JSON: ONNX metadata "fedtrain", TorchScript extra file
"fedtrain", safetensors metadata "fedtrain". It is put in place only after its outputs on random and
extreme records were those of the original. ONNX needs: pip install 'fedtrain[onnx]'
"""
FORGETTING_EPILOG: Final = f"""\
Example:
  fedtrain simulate later.toml --set model.start_from=runs/first --out runs/later
  fedtrain forgetting runs/later                      on the test records of runs/first
  fedtrain forgetting runs/later --data earlier.npz

A run forgets less with [continual] pull, which holds every parameter near the start, or with
earlier records among its own (replay).
{OUTSIDE}"""
IMPORTANCE_EPILOG: Final = """\
Example:
  fedtrain importance runs/first --data earlier.npz --out start.safetensors
  fedtrain simulate later.toml --set model.start_from=start.safetensors \\
    --set continual.pull=0.1 --set continual.importance=file

The diagonal of the Fisher information, as elastic weight consolidation needs it; labels are not
looked at. It is computed from these records and no guarantee covers it: take public ones, or those
of a site that may give such figures away.
"""
SERVE_EPILOG: Final = f"""\
Example:
  fedtrain serve runs/heart_disease
  curl -s localhost:8000/predict -H 'content-type: application/json' \\
    -d '{{"records": [{{"age": 63, "sex": "1", "cp": "4"}}]}}'

POST /predict, GET /model, and the schema at /openapi.json. A request with another column, an
unknown category or a number outside the public bounds is refused. There is no login and no TLS: on
another address than this machine's own, put a server in front that has both.
Needs: pip install 'fedtrain[serve]'
{OUTSIDE}"""


def register(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add `evaluate`, `predict`, `explain`, `export`, `serve`, `forgetting` and `importance`."""
    _register_evaluate(subparsers)
    _register_predict(subparsers)
    _register_explain(subparsers)
    _register_export(subparsers)
    _register_serve(subparsers)
    _register_forgetting(subparsers)
    _register_importance(subparsers)


def _register_evaluate(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(
        subparsers, "evaluate", "measure a run's model on your own records", EVALUATE_EPILOG
    )
    _add_data(
        parser,
        "a table with a label column, an .npz file with x and y, or what the run's source reads",
    )
    _add_label(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (default: table)"
    )
    parser.set_defaults(run=_run_evaluate)


def _register_predict(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(subparsers, "predict", "predict classes and probabilities", PREDICT_EPILOG)
    _add_data(
        parser, "a table (.csv, .parquet), an .npz file with x, or what the run's source reads"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="where the answers go, .csv or .parquet; an older file is replaced",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="carry a column of the table over; may be repeated (default: none)",
    )
    parser.set_defaults(run=_run_predict)


def _register_explain(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(
        subparsers, "explain", "say which inputs a model's answers rest on", EXPLAIN_EPILOG
    )
    _add_data(
        parser,
        "a table with a label column, an .npz file with x and y, or what the run's source reads",
    )
    _add_label(parser)
    parser.add_argument(
        "--method",
        choices=("permutation", "gradients"),
        default="permutation",
        help="permutation importance, or integrated gradients (needs the extra explain)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.png", help="draw it, too (default: no picture)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (default: table)"
    )
    parser.set_defaults(run=_run_explain)


def _register_export(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(subparsers, "export", "write a model for other programs", EXPORT_EPILOG)
    parser.add_argument(
        "--format",
        required=True,
        choices=("onnx", "torchscript", "safetensors"),
        help="of the file",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="where it goes; an older file is replaced",
    )
    parser.set_defaults(run=_run_export)


def _register_serve(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = _add(subparsers, "serve", "answer predictions over HTTP", SERVE_EPILOG)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.set_defaults(run=_run_serve)


def _register_forgetting(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "measure what a run forgot of its start model"
    parser = _add(subparsers, "forgetting", summary, FORGETTING_EPILOG)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="earlier records with labels (default: the test records of the run it started from)",
    )
    _add_label(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (default: table)"
    )
    parser.set_defaults(run=_run_forgetting)


def _register_importance(subparsers: "argparse._SubParsersAction[Any]") -> None:
    summary = "write a start file that says which parameters matter"
    parser = _add(subparsers, "importance", summary, IMPORTANCE_EPILOG)
    _add_data(parser, "earlier records: a table, or an .npz file with x")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE.safetensors",
        help="the model with its importances; an older file is replaced",
    )
    parser.set_defaults(run=_run_importance)


def _add(
    subparsers: "argparse._SubParsersAction[Any]", name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    description = f"{summary[0].upper()}{summary[1:]}."
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=summary, description=description, epilog=epilog
    )
    parser.add_argument("path", metavar="RUN", help="a run directory, or its name in runs/")
    return parser


def _add_data(parser: argparse.ArgumentParser, kinds: str) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=kinds)


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="label column or expression of a table (default: the run's data.label)",
    )


def _open(args: argparse.Namespace) -> "RunModel":
    import torch

    from fedtrain.report.run import find_path
    from fedtrain.use.run_model import load_run_model

    torch.set_num_threads(1)  # the same sums whatever the machine's number of cores
    return load_run_model(find_path(args.path))


def _verify_folder(out: Path) -> None:
    """Refuse a file in a folder that is not there, before anything is computed."""
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}; make it first")


def _run_evaluate(args: argparse.Namespace) -> int:
    from fedtrain.use.evaluation import evaluate, render_evaluation

    evaluation = evaluate(_open(args), args.data, label=args.label)
    _print(args, evaluation.to_json(), lambda: render_evaluation(evaluation))
    return 0


def _run_predict(args: argparse.Namespace) -> int:
    from fedtrain.use.prediction import predict, verify_suffix, write_predictions

    verify_suffix(args.out)
    _verify_folder(args.out)
    predictions = predict(_open(args), args.data, keep=tuple(args.keep))
    write_predictions(predictions, args.out)
    sys.stdout.write(f"{args.out}\n")
    return 0


def _run_explain(args: argparse.Namespace) -> int:
    from fedtrain.use.explanation import explain, render_explanation
    from fedtrain.use.new_records import read_labelled_records

    if args.out is not None and args.out.suffix.lower() != ".png":
        raise ConfigError(f"--out {args.out}: the picture is a PNG; give a name that ends in .png")
    if args.out is not None:
        _verify_folder(args.out)
    model = _open(args)
    records, labels = read_labelled_records(model, args.data, label=args.label)
    explanation = explain(model, records, labels, method=args.method)
    _print(args, explanation.to_json(), lambda: render_explanation(explanation))
    if args.out is not None:
        from fedtrain.use.explanation_picture import draw_explanation

        try:
            draw_explanation(explanation, model.preparation, args.out)
        except OSError as error:
            raise ConfigError(f"--out {args.out}: cannot be written ({error.strerror})") from error
        sys.stderr.write(f"wrote {args.out}\n")
    return 0


def _run_export(args: argparse.Namespace) -> int:
    from fedtrain.report.tables import format_bytes
    from fedtrain.use.exporting import export_model

    _verify_folder(args.out)
    exported = export_model(_open(args), args.format, args.out)
    sys.stderr.write(
        f"{format_bytes(exported.size)}; outputs of {exported.checked} records differ from the"
        f" original's by at most {exported.difference:.2g} of the largest\n"
    )
    sys.stdout.write(f"{args.out}\n")
    return 0


def _run_serve(args: argparse.Namespace) -> int:
    from fedtrain.use.extras import require
    from fedtrain.use.serving import build_server, is_loopback

    if not 1 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: a port is between 1 and 65535")
    uvicorn = require("uvicorn", extra="serve")
    server = build_server(_open(args), host=args.host)
    if not is_loopback(args.host):
        sys.stderr.write(f"{args.host}: open to whoever reaches it, without login or TLS\n")
    _verify_free(args.host, args.port)
    sys.stderr.write(f"http://{args.host}:{args.port}/predict; ends with Ctrl-C\n")
    uvicorn.run(server, host=args.host, port=args.port, log_level="warning", access_log=False)
    return 0


def _verify_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); choose another"
        ) from error


def _run_forgetting(args: argparse.Namespace) -> int:
    from fedtrain.use.forgetting import measure_forgetting, render_forgetting

    forgetting = measure_forgetting(_open(args), args.data, label=args.label)
    _print(args, forgetting.to_json(), lambda: render_forgetting(forgetting))
    return 0


def _run_importance(args: argparse.Namespace) -> int:
    from fedtrain.use.exporting import export_importance

    export_importance(_open(args), args.data, args.out)
    sys.stderr.write(f"{args.out} tells of the records in {args.data}, without protection\n")
    sys.stdout.write(f"{args.out}\n")
    return 0


def _print(args: argparse.Namespace, tree: dict[str, Any], render: Callable[[], Any]) -> None:
    from fedtrain.report.tables import make_console

    if args.json:
        sys.stdout.write(json.dumps(tree, allow_nan=False) + "\n")
    else:
        make_console(sys.stdout).print(render())
