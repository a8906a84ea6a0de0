"""The oqtod command line."""
