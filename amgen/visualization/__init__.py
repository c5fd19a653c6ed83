"""Image files for people.

- `grids`: image grids, scatter plots of points, and animations
- `plots`: plots with matplotlib
"""
