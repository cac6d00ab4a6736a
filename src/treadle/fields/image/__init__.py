"""What fitting a picture needs: its pixels as data, the field that is a picture, and how it is shown."""
