"""Calibration of the shipped prior's joints on people that it was not trained on."""
