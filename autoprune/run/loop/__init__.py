"""The loop between searcher and evaluator: controller, stopping, progress, trackers, and guards of a run."""
