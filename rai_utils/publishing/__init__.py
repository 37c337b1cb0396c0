"""Claims, figures, notebooks and the report: how results become what is published."""
