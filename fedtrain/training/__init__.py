"""The local loop, metrics and the DP-SGD step."""
