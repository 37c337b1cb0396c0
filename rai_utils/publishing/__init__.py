"""Claims, figures, notebooks and the report: how results become what is published."""

import sys

# jsonschema, which nbformat imports, would build the grammar of an address with it: 2 seconds at
# each start of a command. No notebook is checked by that.
sys.modules.setdefault("rfc3987_syntax", None)  # ty: ignore[no-matching-overload]
