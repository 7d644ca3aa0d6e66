"""What code and values are, as text that is the same in every process; what is secret is left out."""
