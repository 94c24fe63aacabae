# SPDX-License-Identifier: Apache-2.0
"""The tuner: searches the plans of device segments, measures them, and keeps what it found in a log that replays."""
