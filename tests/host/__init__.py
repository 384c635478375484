"""The laptop plan, DNS decision and journal format: pure."""
