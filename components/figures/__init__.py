"""Pictures of the data, of training and of retrieval: each takes plain data and writes one PNG."""

from components.figures.curves import cmc_curve, loss_curves, validation_curves
from components.figures.sheets import RetrievalRow, SheetRow, contact_sheet, retrieval_sheet

__all__ = [
    "RetrievalRow",
    "SheetRow",
    "cmc_curve",
    "contact_sheet",
    "loss_curves",
    "retrieval_sheet",
    "validation_curves",
]
