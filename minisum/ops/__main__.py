"""The table of all operations: python -m minisum.ops [NAME]"""

import sys

from minisum.op_table import main

if __name__ == "__main__":
    sys.exit(main())
