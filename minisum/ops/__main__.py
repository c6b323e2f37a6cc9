"""The table of all operations: python -m minisum.ops [NAME]"""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it, also while modules are imported
    from minisum.op_table import main

    sys.exit(main())
