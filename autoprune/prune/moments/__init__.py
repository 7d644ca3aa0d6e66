"""The linear algebra of least squares: design rows, second moments of consumers' inputs, ridge regression."""
