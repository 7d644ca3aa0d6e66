"""One linear algebra: design rows, second moments of what consumers read, ridge regression."""
