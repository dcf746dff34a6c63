"""The ground floor: errors, names, clock, ids, units, settings and files. Standard library only."""
