"""Images that the demo may ship: real handwritten digits and drawn surfaces."""
