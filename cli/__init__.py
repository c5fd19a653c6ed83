"""The `amgen` command.

- `app`, `entry`, `terminal`: start, errors as one line with an exit code, standard output
- `options`: options that several commands share
- `schema`: amgen presets and amgen config; the other modules have the name of their command
"""
