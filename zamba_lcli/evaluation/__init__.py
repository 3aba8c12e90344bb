"""The results of ``zamba test``: scores, intervals, calibration, and their files."""
