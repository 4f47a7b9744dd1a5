"""The five steps of the page, one file each, and their helpers."""
