#!/usr/bin/env python3
"""Records svhn.mat, which TestReadMAT reads: three pictures as SVHN's files hold
them, written by scipy (1.10.1), compressed. Value (row, column, channel) of
picture n is (row*7 + column*3 + channel*50 + n*11) mod 256; the labels are 1, 10, 3.

    python3 svhn.py > svhn.mat
"""
import io
import sys
import numpy as np
import scipy.io

r, c, ch, n = np.indices((32, 32, 3, 3))
f = io.BytesIO()
scipy.io.savemat(f, {"X": ((r * 7 + c * 3 + ch * 50 + n * 11) % 256).astype(np.uint8),
                     "y": np.array([[1], [10], [3]], np.uint8)}, do_compression=True)
sys.stdout.buffer.write(f.getvalue())
