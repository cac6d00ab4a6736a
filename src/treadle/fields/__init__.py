"""Neural fields: data, models and trainers."""
