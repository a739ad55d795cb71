"""The Fast R-CNN that the paper couples its proposals with (section 4, Detection; Figure 5)."""
