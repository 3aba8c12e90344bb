"""What ``zamba test`` finds out: scores, intervals, calibration. No Lightning in it."""
