"""What decides whether a model is published: gates, the model beside the blessed one, the card of its bundle."""
