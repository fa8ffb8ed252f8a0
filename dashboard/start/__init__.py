"""Holds the script that Streamlit runs."""
