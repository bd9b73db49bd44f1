"""People in frames and video: reading frames, finding people, following them from frame to frame."""
