"""What discovery writes anew in a graph so that one verdict serves every spelling; values change by rounding alone."""
