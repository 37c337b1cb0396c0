"""Gives nbval's kernels the environment of the pipeline's, also in a pytest run by hand."""

import os

from rai_utils.publishing.pipeline import kernel_environment

environment = kernel_environment(os.environ)
os.environ.clear()
os.environ.update(environment)
