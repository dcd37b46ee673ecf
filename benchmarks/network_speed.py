"""How fast networks train and answer, against what the products alone cost and against a plain loop.

    python benchmarks/network_speed.py                  # all of it, 5 to 8 minutes
    python benchmarks/network_speed.py diginetica narm  # a part

Epochs of narm and stamp, with the large products in single precision and in bfloat16: ``BATCHES`` batches
spread evenly over an epoch are timed and scaled to the whole of it by their next clicks. Beside them, in the
same run, for the same next clicks: the floor, which is the three products that training against all items
cannot do without (scores, gradient of the sessions, gradient of the items), in single precision, and nothing
else; and a plain PyTorch loop that runs one padded row per prefix and ``cross_entropy`` on its scores.
gru4rec: next clicks a second in training with 100 units and 2,048 samples, on one core and on all, beside
the same steps as they are usually written in PyTorch.
Evaluation: all test prefixes of diginetica, all items ranked.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data import ready, write
from nextclick import Dataset, build, evaluate
from nextclick.network.batches import Batch
from nextclick.network.sampling import Step
from nextclick.network.workers import Workers

BATCHES = 48


def main() -> None:
    wanted = sys.argv[1:]
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as work:
        for name in ("yoochoose64", "diginetica"):
            dataset = ready(name, Path(work))
            for model in ("narm", "stamp"):
                if not wanted or {name, model} <= set(wanted):
                    results[f"{model} on {name}"] = show(f"{model} on {name}", epoch(dataset, model))
        if not wanted or "gru4rec" in wanted:
            dataset = ready("yoochoose64", Path(work))
            results["gru4rec"] = show("gru4rec on yoochoose64", stepping(dataset))
        if not wanted or "evaluation" in wanted:
            dataset = ready("diginetica", Path(work))
            results["evaluation"] = show("evaluation on diginetica", answering(dataset))
    if not wanted:
        write("network_speed", results)


def epoch(dataset: Dataset, name: str) -> dict[str, Any]:
    """Seconds of an epoch with the published settings: ours, the floor, the plain loop."""
    times: dict[str, float] = {}
    for precision, what in (("float32", "epoch"), ("bfloat16", "epoch in bfloat16")):
        given = {"preset": "paper", "epochs": 1, "validation": 0.0, "precision": precision}
        model = build(name, given)
        model.fit(dataset.train[:500])  # compiles, and sets what _objective needs
        model.vocabulary = dataset.train.vocabulary.first(dataset.train.n_items)
        objective = model._objective(model._started(), dataset.train, Workers())
        start = time.perf_counter()
        whole = list(objective.batches(1, 1))
        making = time.perf_counter() - start
        batches = spread(whole, BATCHES)
        pairs = sum(int((batch.targets >= 0).sum()) for batch in batches)
        scale = objective.n_pairs / pairs
        optimizer = objective.optimizer(0.001)
        times[what] = making + best(partial(train, objective, optimizer, batches)) * scale
    width = objective.network.table().shape[1]
    times["floor"] = best(lambda: products(pairs, dataset.train.n_items, width)) * scale
    plain = model._objective(model._started(), dataset.train, Workers())
    few = spread(batches, BATCHES // 10)
    share = sum(int((batch.targets >= 0).sum()) for batch in few)
    seconds = best(lambda: plain_loop(plain.network, plain.optimizer(0.001), few), times=2)
    times["plain loop"] = seconds * objective.n_pairs / share
    found: dict[str, Any] = {"seconds": {what: round(value, 1) for what, value in times.items()}}
    work = objective.n_pairs * dataset.train.n_items * width * 6
    found["GFLOP/s of the floor"] = round(work / times["floor"] / 1e9)
    for what in ("epoch", "epoch in bfloat16"):
        found[f"{what} / floor"] = round(times[what] / times["floor"], 2)
        found[f"plain loop / {what}"] = round(times["plain loop"] / times[what], 1)
    return found


def spread(batches: list[Batch], n: int) -> list[Batch]:
    """Return n of the batches, evenly apart: those of an epoch are not all of the same length of session."""
    return batches[:: max(1, len(batches) // n)][:n]


def train(objective: Any, optimizer: torch.optim.Optimizer, batches: Iterable[Any]) -> None:
    objective.network.train()
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        objective.loss(batch)[0].backward()
        optimizer.step()


def products(pairs: int, n_items: int, width: int, rows: int = 128) -> None:
    """The three products of every block of pairs, into buffers that exist already."""
    sessions, items = torch.randn(rows, width), torch.randn(n_items, width)
    scores, of_sessions, of_items = (
        torch.empty(rows, n_items),
        torch.empty(rows, width),
        torch.empty_like(items),
    )
    across = items.T.contiguous()
    for _ in range(pairs // rows):
        torch.mm(sessions, across, out=scores)
        torch.mm(scores, items, out=of_sessions)
        torch.mm(scores.T, sessions, out=of_items)


def plain_loop(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> None:
    """One padded row per prefix, all scores of the batch at once: how it is usually written."""
    network.train()
    for batch in batches:
        rows, ends = np.nonzero(batch.targets.numpy() >= 0)
        clicks = torch.zeros(len(rows), batch.clicks.shape[1], dtype=torch.int64)
        mask = torch.arange(clicks.shape[1]) <= torch.from_numpy(ends)[:, None]
        clicks[mask] = batch.clicks[rows][mask]
        vectors = network.sessions(clicks, mask)[torch.arange(len(rows)), torch.from_numpy(ends)]
        scores = vectors @ network.table().T
        loss = torch.nn.functional.cross_entropy(scores, batch.targets[batch.targets >= 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def stepping(dataset: Dataset) -> dict[str, Any]:
    """Next clicks a second of gru4rec in training, and how many times those of the plain steps that is."""
    clicks: dict[str, int] = {}
    times: dict[str, float] = {}
    before = torch.get_num_threads()
    for preset, threads in itertools.product(("cross-entropy", "bpr-max"), sorted({1, before})):
        model = build("gru4rec", {"preset": preset})
        model.fit(dataset.train[:500])
        model.vocabulary = dataset.train.vocabulary.first(dataset.train.n_items)
        objective = model._objective(model._started(), dataset.train, Workers())
        optimizer = objective.optimizer(model.learning_rate)
        steps = list(itertools.islice(objective.batches(1, 1), 100_000 // model.batch_size))
        few = steps[: len(steps) // 5]
        torch.set_num_threads(threads)
        ours = sum(len(step.clicks) for step in steps) / best(partial(train, objective, optimizer, steps))
        plain = best(partial(plain_steps, model, dataset.train.n_items, few), times=2)
        what = f"{preset}, batch {model.batch_size}, threads {threads}"
        clicks[what] = round(ours)
        clicks[f"{what}, plain steps"] = round(sum(len(step.clicks) for step in few) / plain)
        times[what] = round(ours * plain / sum(len(step.clicks) for step in few), 2)
        torch.set_num_threads(before)
    return {"clicks a second": clicks, "times the plain steps": times}


def plain_steps(model: Any, n_items: int, steps: Iterable[Step]) -> None:
    """The same steps as they are usually written: sparse embeddings, a GRU cell, autograd, Adagrad."""
    items, bias = (torch.nn.Embedding(n_items, width, sparse=True) for width in (model.hidden, 1))
    cell = torch.nn.GRUCell(model.hidden, model.hidden)
    weights = [*items.parameters(), *bias.parameters(), *cell.parameters()]
    optimizer = torch.optim.Adagrad(weights, lr=model.learning_rate)
    drop, state = torch.nn.functional.dropout, torch.zeros(model.batch_size, model.hidden)
    for step in steps:
        n = len(step.clicks)
        state = state[step.source].detach().masked_fill(step.fresh, 0.0)
        state = cell(drop(items(step.clicks), model.dropout_items), state)
        candidates = torch.cat([step.targets, step.samples])
        scores = drop(state, model.dropout_hidden) @ items(candidates).T + bias(candidates).T
        if model.loss == "cross-entropy":
            loss = torch.nn.functional.cross_entropy(scores, torch.arange(n))
        else:
            scores = torch.nn.functional.elu(scores, model.elu)
            shares = scores.masked_fill(torch.eye(n, len(candidates), dtype=torch.bool), -torch.inf).softmax(
                1
            )
            won = (shares * (scores.diagonal()[:, None] - scores).sigmoid()).sum(1)
            loss = (model.bpreg * (shares * scores**2).sum(1) - won.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def answering(dataset: Dataset) -> dict[str, Any]:
    """Seconds to rank all items for every test prefix, width 100, beside the product of the scores alone."""
    model = build("gru4rec", {"preset": "bpr-max", "epochs": 1}).fit(dataset.train[-2000:])
    model.vocabulary = dataset.train.vocabulary.first(dataset.train.n_items)
    network = model._started()
    model.network, model.support = network.train(False), dataset.train.support()
    queries, positions = dataset.test.pairs()
    seconds = best(lambda: evaluate([model], dataset, n_resamples=2), times=1)
    block, items = torch.randn(256, 100), torch.randn(100, dataset.train.n_items)

    def product() -> None:
        for _ in range(len(queries) // 256):
            block @ items

    return {
        "prefixes": len(positions), "items": dataset.train.n_items,
        "seconds": round(seconds, 1), "seconds of the product alone": round(best(product), 1),
    }  # fmt: skip


def best(work: Callable[[], object], times: int = 3) -> float:
    """Return the seconds of the fastest of a few runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def show(what: str, content: dict[str, Any]) -> dict[str, Any]:
    print(what, content, flush=True)
    return content


if __name__ == "__main__":
    main()
