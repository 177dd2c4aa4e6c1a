"""The operator's door: every command lives in ``console/``. ``python starter.py --help``"""

from __future__ import annotations

from console.app import leave, main

if __name__ == "__main__":
    leave(main())
