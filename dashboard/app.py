"""What is drawn for each look at a page: which pages there are, and the frame around the one that is shown."""

from __future__ import annotations

import streamlit as st

from dashboard import frame


def draw() -> None:
    """Draws the page that the address names."""
    st.set_page_config(page_title="gridgov", page_icon="⚖️", layout="wide", initial_sidebar_state="auto")
    chosen = st.navigation(frame.navigation())
    frame.sidebar()
    chosen.run()
