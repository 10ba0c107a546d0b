"""One file per supervised act of the papers: pretraining, fine-tuning."""
