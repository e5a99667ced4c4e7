"""Published models at work: a bundle found and loaded, rows scored in files, requests answered and kept for monitoring.

`bundles` finds what is to be served, `loading` holds it in memory; `predicting` scores files; `app` and `server` answer
requests in the format of TensorFlow Serving, `batching` puts them together, `shelves` changes versions under way, and
`logs` keeps what was asked for `headrace monitor`.
"""
