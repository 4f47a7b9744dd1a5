"""What the page shows: layout, one file per step, theme, rendering, events."""
