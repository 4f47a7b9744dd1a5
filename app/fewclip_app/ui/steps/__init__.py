"""The five steps of the page, a file each, and what belongs to one of them."""
