"""A trained classifier as a page for the browser: python -m train.page RUN --out page.html"""
