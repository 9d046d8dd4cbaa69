"""What commands import and compile before their own work, some five seconds of it; for ``support.forks``."""

import cv2
import numba
import numpy as np
import onnxruntime
import PIL.Image
import pytest
import threadpoolctl

LIBRARIES = cv2, numba, np, onnxruntime, PIL.Image, pytest, threadpoolctl  # pytest for host_battery.py

# numba's first function takes longer than any later one, be it compiled or found in its cache.
numba.njit(lambda x: x.sum())(np.ones((2, 2), np.float32))
