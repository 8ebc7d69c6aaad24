"""The training report: one HTML page that needs nothing else, from a template (`report.html.j2`) and charts."""
