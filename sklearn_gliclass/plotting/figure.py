"""Helpers of the displays: import of matplotlib, grids of panels, colours."""

import numpy as np

from ..optional_dependencies import import_optional

# The colour-blind safe palette of Okabe and Ito.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)


def pyplot(display):
    """Import matplotlib.pyplot; raise an ImportError with instructions if it is not installed."""
    return import_optional("matplotlib.pyplot", "plot", f"{type(display).__name__}.plot")


def create_axes(display, ax, figsize):
    """Return `ax`, or the axes of a new figure."""
    return ax if ax is not None else pyplot(display).subplots(figsize=figsize, layout="constrained")[1]


def create_panels(display, ax, n_panels: int, n_columns: int, panel_size, **options):
    """Create a grid of panels in a new figure, or in the area of `ax`.

    Returns
    -------
    figure, ndarray of Axes of shape (n_panels,), bounding Axes or None
    """
    plt = pyplot(display)
    n_columns = min(n_columns, n_panels)
    shape = (-(-n_panels // n_columns), n_columns)
    if ax is None:
        figsize = (panel_size[0] * shape[1], panel_size[1] * shape[0])
        figure, grid = plt.subplots(*shape, figsize=figsize, layout="constrained", squeeze=False, **options)
    else:
        figure = ax.figure
        ax.set_axis_off()
        grid = ax.get_subplotspec().subgridspec(*shape, wspace=0.35, hspace=0.5).subplots(squeeze=False, **options)
    axes = np.ravel(grid)
    for column in range(shape[1]):  # tick labels of shared axes, above empty cells of the last row
        last = [panel for panel in axes[:n_panels] if panel.get_subplotspec().colspan.start == column][-1]
        last.tick_params(labelbottom=True)
    for empty in axes[n_panels:]:
        empty.remove()
    return figure, axes[:n_panels], ax
