"""What is measured only while somebody looks: times of the parts, histograms."""
