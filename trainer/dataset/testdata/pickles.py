#!/usr/bin/python3
"""Records testdata/python/N: three pictures of CIFAR-100 in its Python version, as this Python pickles them with protocol N.

Run in this folder. Recorded with Python 3.11 and numpy 1.24. Pixel k of picture i is (7 * i + k // 64) % 256.
"""
import os
import pickle

import numpy


def pictures(first, n):
    i = numpy.arange(first, first + n)[:, None]
    k = numpy.arange(3072)[None, :]
    return ((7 * i + k // 64) % 256).astype(numpy.uint8)


for protocol in [2, 3, 4, 5]:
    folder = f"python/{protocol}"
    os.makedirs(folder, exist_ok=True)
    files = {
        "train": {"filenames": ["a.png", "b.png"], "batch_label": "training batch 1 of 1", "fine_labels": [19, 99],
                  "coarse_labels": [11, 0], "data": pictures(0, 2)},
        "test": {"filenames": ["c.png"], "batch_label": "testing batch 1 of 1", "fine_labels": [49],
                 "coarse_labels": [10], "data": pictures(2, 1)},
        "meta": {"fine_label_names": [f"fine {i}" for i in range(100)],
                 "coarse_label_names": [f"coarse {i}" for i in range(20)]},
    }
    if protocol == 5:  # the first index runs fastest
        files["train"]["data"] = numpy.asfortranarray(files["train"]["data"])
    for name, content in files.items():
        with open(f"{folder}/{name}", "wb") as file:
            pickle.dump(content, file, protocol=protocol)
