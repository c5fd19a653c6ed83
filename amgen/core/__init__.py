"""Tools that all other packages use: errors, files, random numbers, processes, memory. They import no other package of amgen."""
