"""Evaluators in pure numpy, equal to the official ones; the metrics beside this package are thin wrappers."""
