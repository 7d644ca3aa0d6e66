"""Drives and records: the loop, the journal, the executors, the front, exports and reports.

The only room that writes run folders and that may import ray. Imports every room but config and cli.
"""
