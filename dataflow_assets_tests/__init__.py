"""Tests of dataflow_assets, laid out as the package is."""
