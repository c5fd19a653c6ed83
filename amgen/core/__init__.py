"""What every part of amgen stands on and that knows of none of them: errors, files, random numbers, processes, memory."""
