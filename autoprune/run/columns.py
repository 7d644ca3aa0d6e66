"""The columns of a front's table."""

SELECT = "select_"  # prefix of values measured on the selection set, of the network as built
STITCHED = "search_"  # prefix of values measured on the selection set while searching, before compensation
LOW, HIGH = "_low", "_high"  # suffixes of the ends of an interval
RATIO = "_ratio"  # suffix of a cost as a share of the dense network's
