from small_network import same_weights  # noqa: F401  # a fixture of every test here
