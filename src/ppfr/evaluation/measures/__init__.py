"""The measures, one file each. No other module of `evaluation` refers to a particular measure."""
