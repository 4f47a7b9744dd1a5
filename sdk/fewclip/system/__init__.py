"""What the machine and the installation offer: cores, and the packages of extras. No torch."""
