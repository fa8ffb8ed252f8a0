"""What Streamlit runs. It stands apart: Streamlit takes a folder `pages` beside its script for pages of its own."""

from dashboard.app import draw

draw()
