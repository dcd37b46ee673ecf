"""Speed of p-RNN and of reading pictures: networks beside one, a million columns of text, thumbnails.

    python benchmarks/prnn_speed.py parallel    an epoch of 100+100 units against one of ids with 100
    python benchmarks/prnn_speed.py text        1,000,000 columns, 339,055 items, 5.4 entries each
    python benchmarks/prnn_speed.py pictures    1,000 thumbnails through a network of GoogLeNet's size

Each measures in a process of its own and adds to benchmarks/results/prnn_speed.json. "parallel" takes the
median processor time of three epochs after one to warm up, the rows in turn, on synthetic sessions over 2,000
items; peak memory is what the operating system reports. The network of "pictures" has GoogLeNet's nine
inception modules and random weights, which do not matter for its speed; it runs as an ONNX file, pictures
read from PNG files.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from data import RESULTS, ROOT, write
from nextclick import Features, Sessions, Vocabulary, build
from nextclick.features import Dense, Sparse

WORK = Path(os.environ.get("NEXTCLICK_WORK", ROOT / "benchmarks" / "work")) / "speed"
COLUMNS, ITEMS, ENTRIES, EVENTS = 1_000_000, 339_055, 5.4, 200_000
LIMIT = 6 << 30  # bytes
STRATEGIES = ("simultaneous", "alternating", "residual", "interleaving")


def parallel() -> dict[str, Any]:
    """Seconds of an epoch of each row, beside those of the ids alone."""
    rng = np.random.default_rng(1)
    sessions = made(2_000, 60_000, rng)
    texts = {entries: sparse_of(2_000, 5_000, entries, rng) for entries in (5.4, 18.8)}
    dense = {width: dense_of(2_000, width, rng) for width in (128, 1024)}
    given: dict[str, Any] = {"ids": None}
    given |= {f"text, {entries} entries": of for entries, of in texts.items()}
    given |= {f"image {width}": of for width, of in dense.items()}
    seconds: dict[str, list[float]] = {}
    for turn in range(4):
        for name, of_items in given.items():
            for strategy in STRATEGIES if of_items else ("-",):
                values = {"architecture": "id"} if of_items is None else {"strategy": strategy}
                features = None if of_items is None else Features(sessions.vocabulary, {"given": of_items})
                # Two passes of alternating or residual training, one for each subnet, count as two epochs.
                passes = 2 if strategy in ("alternating", "residual") else 1
                found = epoch_seconds(values, sessions, features) / passes
                if turn:
                    seconds.setdefault(f"{name}, {strategy}" if of_items else name, []).append(found)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "clicks": sessions.n_pairs,
        "processor_seconds_per_epoch": {name: round(found, 2) for name, found in medians.items()},
        "times_ids": {name: round(found / medians["ids"], 2) for name, found in medians.items()},
    }


def epoch_seconds(values: dict[str, Any], sessions: Sessions, features: Features | None) -> float:
    model = build("prnn", {**values, "epochs": 1, "hidden": 100})
    start = time.process_time()
    model.fit(sessions, features=features)
    return time.process_time() - start


def text() -> dict[str, Any]:
    """Clicks a second, and the peak memory, of a training on very wide text."""
    rng = np.random.default_rng(1)
    sessions, warm = made(ITEMS, EVENTS, rng), made(1_000, 2_000, rng)
    given = Features(sessions.vocabulary, {"text": sparse_of(ITEMS, COLUMNS, ENTRIES, rng)})
    small = Features(warm.vocabulary, {"text": sparse_of(1_000, 1_000, ENTRIES, rng)})
    build("prnn", {"epochs": 1, "strategy": "simultaneous"}).fit(warm, features=small)  # compiles
    told: list[tuple[float, float, int]] = []
    model = build("prnn", {"epochs": 1, "strategy": "simultaneous"})
    model.fit(
        sessions, features=given,
        progress=lambda what, done, total: told.append((time.perf_counter(), time.process_time(), done)),
    )  # fmt: skip
    first, last = told[0], told[-1]
    clicks = last[2] - first[2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "columns": COLUMNS, "items": ITEMS, "entries_per_item": ENTRIES, "units": "100+100", "clicks": clicks,
        "clicks_per_second": round(clicks / (last[0] - first[0])),
        "clicks_per_processor_second": round(clicks / (last[1] - first[1])),
        "peak_bytes": peak, "under_6_GiB": peak < LIMIT,
    }  # fmt: skip


def pictures() -> dict[str, Any]:
    """Seconds for a thousand thumbnails through a network of GoogLeNet's size."""
    from nextclick.features import images
    from nextclick.features.extractors import OnnxExtractor
    from nextclick.shop import ShopConfig, simulate

    folder = WORK / "shop"
    if not (folder / "shop.json").exists():
        simulate(ShopConfig(sessions=1000)).write(folder)
    with tempfile.TemporaryDirectory() as made_in:
        file = Path(made_in) / "network.onnx"
        parameters = write_googlenet(file)
        extractor = OnnxExtractor(file)
        places = [f"thumbnails/P{number:04d}.png" for number in range(1, 1001)]
        start, used = time.perf_counter(), time.process_time()
        _, state = images.extract(places, folder, extractor)
    return {
        "pictures": int((state == images.DONE).sum()), "parameters": parameters, "width": extractor.width,
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - used, 1),
    }  # fmt: skip


# Channels of each inception module: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 behind the pooling.
# As GoogLeNet's are usually given; 1,024 come out of the last one.
INCEPTION = [
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None,
    (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128), None,
    (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
]  # fmt: skip


def write_googlenet(file: Path) -> int:
    """Write a network of GoogLeNet's layers up to its last average pooling; return its number of weights."""
    import onnx

    rng, nodes, weights = np.random.default_rng(1), [], []
    h = onnx.helper

    def convolution(given: str, channels: int, wide: int, size: int, stride: int = 1) -> str:
        name = f"c{len(weights)}"
        # With longer tails than any start has, as trained weights have: random ones are refused.
        drawn = rng.laplace(0, (1 / (channels * size * size)) ** 0.5, (wide, channels, size, size))
        weights.append(onnx.numpy_helper.from_array(drawn.astype(np.float32), f"{name}.w"))
        pad = size // 2
        nodes.append(h.make_node("Conv", [given, f"{name}.w"], [name], strides=[stride] * 2, pads=[pad] * 4))
        nodes.append(h.make_node("Relu", [name], [f"{name}.r"]))
        return f"{name}.r"

    def pooling(given: str, stride: int) -> str:
        name = f"p{len(nodes)}"
        nodes.append(
            h.make_node("MaxPool", [given], [name], kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4)
        )
        return name

    at = pooling(convolution("pictures", 3, 64, 7, 2), 2)
    at = pooling(convolution(convolution(at, 64, 64, 1), 64, 192, 3), 2)
    channels = 192
    for module in INCEPTION:
        if module is None:
            at = pooling(at, 2)
            continue
        one, before3, three, before5, five, behind = module
        parts = [
            convolution(at, channels, one, 1),
            convolution(convolution(at, channels, before3, 1), before3, three, 3),
            convolution(convolution(at, channels, before5, 1), before5, five, 5),
            convolution(pooling(at, 1), channels, behind, 1),
        ]
        at, channels = f"i{len(nodes)}", one + three + five + behind
        nodes.append(h.make_node("Concat", parts, [at], axis=1))
    nodes += [h.make_node("GlobalAveragePool", [at], ["pooled"]), h.make_node("Flatten", ["pooled"], ["out"])]
    shape = ["batch", 3, 224, 224]
    graph = h.make_graph(
        nodes, "googlenet", [h.make_tensor_value_info("pictures", onnx.TensorProto.FLOAT, shape)],
        [h.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", channels])], weights,
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9), file)
    return sum(int(np.prod(of.dims)) for of in weights)


# -- synthetic data


def made(n_items: int, clicks: int, rng: np.random.Generator) -> Sessions:
    """Return sessions of 2 to 10 clicks on items drawn by Zipf's law (exponent 1)."""
    lengths = rng.integers(2, 11, clicks // 6)
    share = 1 / np.arange(1, n_items + 1)
    items = np.searchsorted(np.cumsum(share / share.sum()), rng.random(lengths.sum()))
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    items = np.minimum(items, n_items - 1).astype(np.int32)
    return Sessions(
        items, offsets, np.arange(len(items)), Vocabulary(np.arange(n_items)), n_items, clock=False
    )


def sparse_of(n: int, width: int, entries: float, rng: np.random.Generator) -> Sparse:
    """Return vectors of length 1 with so many entries on average, in columns drawn evenly."""
    lengths = rng.poisson(entries, n)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    columns = rng.integers(0, width, offsets[-1])
    row = np.repeat(np.arange(n), lengths)
    order = np.lexsort((columns, row))
    values = (1 / np.sqrt(np.maximum(lengths, 1)))[row].astype(np.float32)
    return Sparse(offsets, columns[order].astype(np.int32), values, width, lengths > 0)


def dense_of(n: int, width: int, rng: np.random.Generator) -> Dense:
    values = rng.normal(size=(n, width)).astype(np.float32)
    return Dense(values / np.linalg.norm(values, axis=1, keepdims=True), np.ones(n, np.bool_))


PARTS = {"parallel": parallel, "text": text, "pictures": pictures}


def main() -> None:
    part = sys.argv[1]
    file = RESULTS / "prnn_speed.json"
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    if part == "child":
        print(json.dumps(PARTS[sys.argv[2]]()))
        return
    done = subprocess.run(
        [sys.executable, __file__, "child", part], check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=2))
    others = {name: before[name] for name in PARTS if name in before}
    write("prnn_speed", {**others, part: found})


if __name__ == "__main__":
    main()
