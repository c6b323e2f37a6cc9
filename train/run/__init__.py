"""What every run needs: options, folder, report, signals, group of processes."""
