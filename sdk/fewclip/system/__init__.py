"""What the machine and the installation offer: cores, and packages that extras bring. No torch."""
