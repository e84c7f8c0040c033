"""What several test files share: tiny projects, servers, golden numbers, odd media files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The top of the repository."""
