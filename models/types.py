"""What formulas take and give: a number, or one for every candidate."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64] | float
