"""Any case that a measured row makes, predicted: a system that serves a model, or a kernel."""

from ..validate.kernel_cases import KernelCase, KernelSeconds
from ..validate.metrics import Outcome
from ..validate.score_jobs import Case
from .predict import predict
from .predict_kernel import predict_kernel


def predict_row(case: Case) -> Outcome | KernelSeconds:
    """Predict what a row measured.

    Raises
    ------
    SpecError : why the case cannot be predicted
    """
    return predict_kernel(case) if isinstance(case, KernelCase) else predict(case)
