"""Time series: writers that read the journal with cursors of their own and fill databases for
charts. Nothing here holds a reading: what is not written yet is in the journal."""
