"""The loop between searcher and evaluator: controller, stopping, progress, and what guards a run."""
