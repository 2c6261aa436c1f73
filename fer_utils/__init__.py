"""Facial expressions: prediction, and the data sets, networks, training and evaluation of *Reading Faces*."""

from fer_utils.prediction import Predictor, predict

__all__ = ["Predictor", "predict"]
__version__ = "0.1.0"
