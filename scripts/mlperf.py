"""Runs MLPerf's own LoadGen on a bundle: its four scenarios, for speed or for accuracy.

A warm-up measures how fast the bundle is, and LoadGen's settings follow from that: how many
queries it makes up, and how many a second the server gets. LoadGen then says VALID or INVALID, and
why. A run that is INVALID is made again, twice at most, with half the server's load or twice the
queries made up; a load that --target-qps asks for stays.

With --compare, our own scenarios (`edge-runtime bench --protocol single-stream` and so on) run in
turns with LoadGen's on the same session, and each pair of figures gives a ratio. LoadGen's
callbacks in Python cost some 10 microseconds a query, and ours do not: ratios of networks that take
less than 0.2 ms show that.

    python scripts/mlperf.py NAME.edge                           # 4 runs of 10 s: a minute
    python scripts/mlperf.py NAME.edge --compare --turns 3       # 24 runs of 10 s: 5 minutes
    python scripts/mlperf.py NAME.edge --compare --turns 15 --duration 1  # where others work too
    python scripts/mlperf.py NAME.edge --scenario server --target-qps 50 --target-latency 15
    python scripts/mlperf.py NAME.edge --mode accuracy --data test.npz   # each sample 5 times
    python scripts/mlperf.py NAME.edge --duration 600            # as MLPerf's rules want it: 40 min

Queries that take long make it longer: a percentile of 99 wants 662 queries, of 8 samples each in
multi-stream. In accuracy mode each sample is asked for once; all must be answered, with the bytes
that the session itself gives, and where there are labels (--labels, or `labels` in the .npz) the
answers are scored.

The exit code is 1 where a run is INVALID or an answer is wrong. Needs the extra `loadgen`, which
has wheels for Linux on x86-64. LoadGen's own logs are left in the folder --output, in a folder for
each run, and all that is printed in results.json beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.accuracy.task_metrics import Top1
from edge_runtime.bench.feeds import made_up
from edge_runtime.bench.loadgen_log import LoadGenReport, read_answers
from edge_runtime.bench.loops import quiet
from edge_runtime.bench.protocols import Scenario, Server, protocol
from edge_runtime.bench.scenarios import run_scenario, validity
from edge_runtime.bench.statistics import queries_needed
from edge_runtime.bundle import Bundle
from edge_runtime.data import open_samples
from edge_runtime.data.labels import open_labels
from edge_runtime.errors import ConfigError, EdgeRuntimeError
from edge_runtime.files import atomic_write
from edge_runtime.session import Session, load
from edge_runtime.telemetry.conditions import read_conditions
from edge_runtime.tensors import Feeds, Outputs
from edge_runtime.vision.preprocess import Preprocessing

try:
    from edge_runtime.bench.loadgen import LoadGenTest, Rehearsal, own_figure, rehearse, run_loadgen
except ModuleNotFoundError as error:
    if error.name != "mlperf_loadgen":
        raise
    sys.exit(
        "scripts/mlperf.py: there is no LoadGen: pip install 'edge-runtime[loadgen]' (x86-64 only)"
    )

SCENARIOS = ("single-stream", "multi-stream", "offline", "server")
LOAD = 0.25
"""The server's queries a second, as a share of those that the session does at least."""
ATTEMPTS = 3
"""So often is a run made, until it is VALID, each time with settings that are easier to keep."""
LEAST_BOUND = 100.0
"""The server's latency bound is ten times what a slow sample takes, and at least LoadGen's default,
in ms: where other programs run as well, the system lets a thread wait for tens of ms."""
MADE_UP = 16
"""Samples that are fed where there is no --data."""
ALLOWED = 0.05


@dataclass(frozen=True)
class Samples:
    """What LoadGen asks for: the feeds, and their labels where there are any."""

    feeds: Sequence[Feeds]
    labels: list[Any] | None


def read_samples(bundle: Bundle, args: argparse.Namespace) -> Samples:
    if args.data is None:
        if args.labels is not None:
            raise ConfigError("--labels are those of --data; give it too.")
        first = made_up(bundle.inputs, usual={}, shapes={}, batch=None).feeds[0]
        # Each sample has bytes of its own, so that an answer to another one is found out.
        return Samples([_rolled(first, step) for step in range(MADE_UP)], None)
    declared = bundle.manifest.preprocessing
    how = Preprocessing.from_json(declared) if declared and args.data.is_dir() else None
    if args.preprocess is not None:
        how = Preprocessing.from_text(args.preprocess)
    samples = open_samples(args.data, bundle.inputs, preprocessing=how, limit=args.limit)
    return Samples(list(samples), open_labels(args.labels, samples))


def _rolled(feed: Feeds, step: int) -> Feeds:
    return {name: np.roll(array.ravel(), step).reshape(array.shape) for name, array in feed.items()}


def settings(name: str, rehearsal: Rehearsal, args: argparse.Namespace) -> Scenario:
    """A scenario that should come out VALID on a session that is so fast."""
    given: dict[str, Any] = {"min_duration": args.duration}
    if name != "single-stream":
        given["streams"] = args.streams
    if name == "single-stream":
        given["min_queries"] = max(queries_needed(90), 100)
    elif name == "multi-stream":
        given |= {
            "min_queries": queries_needed(99),
            "samples_per_query": args.samples_per_query,
        }
    elif name == "server":
        given |= {
            "min_queries": queries_needed(99, 5),
            "target_qps": args.target_qps or LOAD * rehearsal.least_rate,
            "target_latency": args.target_latency or max(LEAST_BOUND, 10 * rehearsal.slow),
        }
    found = protocol(name, given)
    assert isinstance(found, Scenario)
    return found


@dataclass(frozen=True)
class Settled:
    """LoadGen's last report, the test that it is of, and how many runs there were."""

    report: LoadGenReport
    test: LoadGenTest
    attempts: int


def settle(
    session: Session, feeds: Sequence[Feeds], test: LoadGenTest, folder: Path, *, fixed: bool
) -> Settled:
    """Runs LoadGen until a run is VALID, but not for ever; a load that was asked for is `fixed`."""
    for attempt in range(1, ATTEMPTS + 1):
        report = run_loadgen(session, feeds, test, folder)
        is_fixed = fixed and isinstance(test.protocol, Server)
        if report.valid or attempt == ATTEMPTS or is_fixed or test.mode == "accuracy":
            break
        print(f"INVALID ({report.reasons[0]}): once more, with less to keep ...", file=sys.stderr)
        test = easier(test)
    return Settled(report, test, attempt)


def easier(test: LoadGenTest) -> LoadGenTest:
    """The server gets half the load; for the others LoadGen makes up twice the queries."""
    how, rehearsal = test.protocol, test.rehearsal
    if isinstance(how, Server):
        return replace(test, protocol=replace(how, target_qps=how.target_qps / 2))
    faster = replace(rehearsal, fastest=rehearsal.fastest / 2, best_rate=2 * rehearsal.best_rate)
    return replace(test, rehearsal=faster)


def compare(
    session: Session,
    feeds: Sequence[Feeds],
    test: LoadGenTest,
    folder: Path,
    args: argparse.Namespace,
) -> tuple[Settled, dict[str, Any]]:
    """LoadGen and our own scenario in turns.

    Returns:
        What became of the first run that is not valid, else of the one in the middle; and all
        figures.
    """
    runs, ours, reasons = [], [], []
    for turn in range(args.turns):
        if isinstance(test.protocol, Server):  # Other arrivals in each turn.
            test = replace(test, protocol=replace(test.protocol, seed=turn))
        fixed = args.target_qps is not None
        run = settle(session, feeds, test, folder / str(turn), fixed=fixed)
        runs.append(run)
        test = run.test
        how = test.protocol
        with quiet():
            measured = run_scenario(session, feeds, how)
        ours.append(own_figure(how, measured))
        count = getattr(how, "samples_per_query", 1)
        reasons += validity(how, measured, samples_per_query=count).reasons
    percentile = test.protocol.percentile
    theirs = [run.report.figure(percentile) for run in runs]
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    in_order = sorted(runs, key=lambda run: run.report.figure(percentile))
    invalid = [run for run in runs if not run.report.valid]
    return (invalid or in_order[len(in_order) // 2 :])[0], {
        "loadgen": theirs,
        "own": ours,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "own_reasons": reasons,
    }


def score(session: Session, samples: Samples, folder: Path) -> dict[str, Any]:
    """Whether each sample was answered once, with what the session gives, and how good that is."""
    answers = read_answers(folder)
    references = [session.run(feed) for feed in samples.feeds]
    wanted = [b"".join(one.tobytes() for one in outputs.values()) for outputs in references]
    # Multi-stream fills its last query up with samples that it has asked for before.
    complete = {index for index, _ in answers} == set(range(len(wanted)))
    by_index = dict(answers)
    different = sorted(
        {index for index, data in answers if index >= len(wanted) or data != wanted[index]}
        | (set(range(len(wanted))) - by_index.keys())
    )
    result: dict[str, Any] = {
        "samples": len(samples.feeds),
        "answers": len(answers),
        "complete": complete,
        "different": different,
    }
    if samples.labels is not None and complete and not different:
        metric = Top1(samples.labels)
        metric.set_reference(references)
        pairs = enumerate(references)
        found = metric.compare(_unpacked(by_index[index], like) for index, like in pairs)
        result["top1"] = float(found.reached(np.ones((1, found.samples)))[0])
    return result


def _unpacked(data: bytes, like: Outputs) -> Outputs:
    outputs, start = {}, 0
    for name, array in like.items():
        part = data[start : start + array.nbytes]
        outputs[name] = np.frombuffer(part, array.dtype).reshape(array.shape)
        start += array.nbytes
    return outputs


def run_all(session: Session, samples: Samples, args: argparse.Namespace) -> dict[str, Any]:
    rehearsal = rehearse(session, samples.feeds, streams=args.streams, seconds=args.warmup)
    runs = []
    for name in SCENARIOS if args.scenario == "all" else (args.scenario,):
        how = settings(name, rehearsal, args)
        test = LoadGenTest(protocol=how, rehearsal=rehearsal, mode=args.mode)
        folder = args.output / f"{name}-{args.mode}"
        print(f"{name}, {args.mode} ...", file=sys.stderr)
        run: dict[str, Any] = {"scenario": name}
        if args.compare:
            found, run["compared"] = compare(session, samples.feeds, test, folder, args)
        else:
            fixed = args.target_qps is not None
            found = settle(session, samples.feeds, test, folder, fixed=fixed)
        report, how = found.report, found.test.protocol
        run |= {"settings": how.parameters(), "attempts": found.attempts}
        run["loadgen"] = report.to_json()
        run["good"] = report.valid
        if args.mode == "accuracy":
            run["answers"] = given = score(session, samples, folder)
            run["good"] = report.valid and given["complete"] and not given["different"]
        else:
            run["figure"] = report.figure(how.percentile)
        runs.append(run)
    return {"rehearsal": asdict(rehearsal), "runs": runs}


def table(result: dict[str, Any]) -> list[str]:
    if all("answers" in run for run in result["runs"]):
        lines = [
            f"{'scenario':<15}{'result':<9}{'samples':>8}{'answers':>9}{'wrong':>7}{'top-1':>9}"
        ]
        for run in result["runs"]:
            found = run["answers"]
            top1 = f"{found['top1']:.2%}" if "top1" in found else "-"
            lines.append(
                f"{run['scenario']:<15}{'good' if run['good'] else 'BAD':<9}{found['samples']:>8}"
                f"{found['answers']:>9}{len(found['different']):>7}{top1:>9}"
            )
    else:
        lines = [
            f"{'scenario':<15}{'result':<9}{'queries':>9}  {'figure':<22}{'LoadGen':>11}"
            + (f"{'ours':>11}{'ratio':>8}  of each turn" if "compared" in result["runs"][0] else "")
        ]
        lines += [_line(run) for run in result["runs"]]
    for run in result["runs"]:
        lines += [f"INVALID {run['scenario']}: {said}" for said in run["loadgen"]["reasons"]]
        ours = run.get("compared", {}).get("own_reasons", [])
        lines += [f"INVALID {run['scenario']}, our own: {said}" for said in dict.fromkeys(ours)]
    return lines


def _line(run: dict[str, Any]) -> str:
    name, loadgen = run["scenario"], run["loadgen"]
    rate = loadgen["samples_per_second"] is not None
    what = "samples/s" if rate else f"percentile {run['settings']['percentile']:g}, ms"
    if name == "server":
        what = f"completed/s of {run['settings']['target_qps']:.5g}"
    verdict = "VALID" if loadgen["valid"] else "INVALID"
    line = f"{name:<15}{verdict:<9}{loadgen['queries']:>9}  {what:<22}"
    found = run.get("compared")
    if found is None:
        return line + f"{run['figure']:>11.5g}"
    theirs, ours = statistics.median(found["loadgen"]), statistics.median(found["own"])
    each = " ".join(f"{ratio:.3f}" for ratio in found["ratios"])
    apart = "" if abs(found["ratio"] - 1) <= ALLOWED else f"  more than {ALLOWED:.0%} apart"
    return line + f"{theirs:>11.5g}{ours:>11.5g}{found['ratio']:>8.3f}  {each}{apart}"


def parser() -> argparse.ArgumentParser:
    lines = (__doc__ or "").splitlines()
    found = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("bundle", type=Path, help="the bundle, NAME.edge")
    add("--scenario", choices=("all", *SCENARIOS), default="all")
    add("--mode", choices=("performance", "accuracy"), default="performance")
    add("--compare", action="store_true", help="run our own scenarios too, in turns")
    add("--turns", type=int, default=1, metavar="N", help="with --compare: how many (1)")
    add("--duration", type=float, default=10.0, metavar="S", help="of each run at least (10)")
    add("--warmup", type=float, default=1.0, metavar="S", help="of the warm-up, about (1)")
    add("--data", type=Path, help="samples, as `edge-runtime bench --data` takes; else made up")
    add("--limit", type=int, metavar="N", help="take so many of them")
    add("--labels", type=Path, help="their labels, as `edge-runtime build --labels` takes them")
    add("--preprocess", metavar="SETTINGS", help="how a picture becomes the input")
    add("--device", default="cpu", help="as `edge-runtime bench --device` (cpu)")
    add("--cpu-mode", choices=("exact", "fast"), default="exact")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of one inference")
    add("--streams", type=int, default=1, metavar="N", help="inferences at a time (1)")
    add("--samples-per-query", type=int, default=8, metavar="N", help="multi-stream (8)")
    add("--target-qps", type=float, metavar="N", help=f"server; else {LOAD:g} of what it does")
    add("--target-latency", type=float, metavar="MS", help="server; else from the warm-up")
    add("--output", type=Path, default=Path("mlperf"), metavar="DIR", help="for logs (mlperf)")
    add("--json", action="store_true", help="print results.json instead of the table")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.turns < 1 or (args.turns > 1 and not args.compare):
        parser().error("--turns is 1 or more, and goes with --compare")
    if args.compare and args.mode == "accuracy":
        parser().error("--compare is for performance")
    try:
        bundle = Bundle.open(args.bundle)
        samples = read_samples(bundle, args)
        args.output.mkdir(parents=True, exist_ok=True)
        with load(
            bundle,
            device=args.device,
            contexts=args.streams,
            threads=args.threads,
            cpu_mode=args.cpu_mode,
        ) as session:
            result = {
                "bundle": bundle.path.name,
                "bundle_digest": bundle.digest,
                "backend": session.backend,
                "streams": args.streams,
                "threads": args.threads,
                "samples": len(samples.feeds),
                "conditions": read_conditions().to_json(),
                **run_all(session, samples, args),
            }
    except (EdgeRuntimeError, OSError) as error:
        print(f"scripts/mlperf.py: {error}", file=sys.stderr)
        return 1
    text = json.dumps(result, indent=2, allow_nan=False)
    with atomic_write(args.output / "results.json") as file:
        file.write(text.encode())
    print(text if args.json else "\n".join(table(result)))
    return int(not all(run["good"] for run in result["runs"]))


if __name__ == "__main__":
    sys.exit(main())
