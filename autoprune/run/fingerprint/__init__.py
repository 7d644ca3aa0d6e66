"""Describes code and values by texts that are the same in every process, without secrets."""
