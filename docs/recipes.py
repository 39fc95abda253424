#!/usr/bin/env python3
"""Compares recipes for short trainings: prints the table of docs/short-trainings.md.

    python3 docs/recipes.py quickstart --epochs 1 2 4

For each recipe and each number of epochs it trains some pairs from several seeds with
igcsearch, and prints the mean accuracy of all, the standard deviation over seeds
(pooled over the pairs) and the rank correlation (Spearman) of the pairs' means with
those of the longest training, of all recipes together. What is in the database is
not trained again.
"""
import argparse
import csv
import io
import statistics
import subprocess
import sys

RECIPES = {
    "step, running (the paper's)": {},
    "step, precise": {"bn_statistics": "precise"},
    "step, precise, averaged": {"bn_statistics": "precise", "weight_average": "0.1"},
    "linear, running": {"schedule": "linear", "warmup": "0.1"},
    "linear, precise": {"schedule": "linear", "warmup": "0.1", "bn_statistics": "precise"},
    "linear, precise, averaged": {"schedule": "linear", "warmup": "0.1", "bn_statistics": "precise", "weight_average": "0.1"},
    "cosine, precise, averaged": {"schedule": "cosine", "warmup": "0.1", "bn_statistics": "precise", "weight_average": "0.1"},
}


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("study", help="study to start from: a name or a TOML file")
    a.add_argument("--epochs", type=int, nargs="+", required=True, help="lengths to train")
    a.add_argument("--pairs", default="18x1,9x2,5x3,3x4,2x5,1x7")
    a.add_argument("--seeds", type=int, default=5)
    a.add_argument("--db", default="recipes.db")
    a.add_argument("--igcsearch", default="./igcsearch", help="the program")
    a.add_argument("--set", action="append", default=[], help="a setting of all trainings, key=value")
    a.add_argument("--data", help="where the pictures lie")
    o = a.parse_args()

    means, spread = {}, {}  # of each recipe and length: by pair
    for recipe, settings in RECIPES.items():
        for epochs in o.epochs:
            name = f"{recipe}-{epochs}".replace("(the paper's)", "").replace(",", "").replace(" ", "-")
            run = [o.igcsearch, "run", o.study, "--db", o.db, "--no-figure"]
            if o.data:
                run += ["--data", o.data]
            common = {"name": name, "epochs": epochs, "seeds": o.seeds, "evaluate_every": epochs,
                      "pairs": '["' + '","'.join(o.pairs.split(",")) + '"]', "schedule": "step", "warmup": 0,
                      "bn_statistics": "running", "weight_average": 0}
            for key, value in {**common, **settings}.items():
                run += ["--set", f"{key}={value}"]
            for text in o.set:
                run += ["--set", text]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            out = subprocess.run([o.igcsearch, "export", name, "--db", o.db, "--format", "csv", "--epochs"], check=True, capture_output=True, text=True)
            accuracy = {}
            for row in csv.DictReader(io.StringIO(out.stdout)):
                if int(row["test_total"] or 0):
                    accuracy.setdefault((row["L"], row["M"]), []).append(100 * int(row["test_correct"]) / int(row["test_total"]))
            means[recipe, epochs] = {pair: statistics.mean(v) for pair, v in accuracy.items()}
            spread[recipe, epochs] = statistics.mean(statistics.variance(v) for v in accuracy.values()) ** 0.5
            print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)

    longest = max(o.epochs)
    truth = {pair: statistics.mean(means[r, longest][pair] for r in RECIPES) for pair in next(iter(means.values()))}
    print("| recipe |", " | ".join(f"{e} epochs" for e in o.epochs), "|")
    print("| --- |", " | ".join("---:" for _ in o.epochs), "|")
    for recipe in RECIPES:
        cells = []
        for e in o.epochs:
            m = means[recipe, e]
            cells.append(f"{statistics.mean(m.values()):.2f} ± {spread[recipe, e]:.2f}, {spearman(m, truth):+.1f}")
        print(f"| {recipe} |", " | ".join(cells), "|")
    print("\nlongest trainings:", ", ".join(f"L{l}M{m} {v:.2f}" for (l, m), v in truth.items()))


def spearman(a, b):
    """The correlation of the ranks, without ties."""
    rank = lambda v: {k: i for i, k in enumerate(sorted(v, key=v.get))}
    ra, rb, n = rank(a), rank(b), len(a)
    return 1 - 6 * sum((ra[k] - rb[k]) ** 2 for k in a) / (n * (n * n - 1))


main()
