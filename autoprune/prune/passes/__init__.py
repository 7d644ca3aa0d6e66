"""Forward passes of any nn.Module: example calls, watching operators, train mode, comparing outputs."""
