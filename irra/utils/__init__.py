"""What every part uses: atomic files, progress, cores, errors."""
