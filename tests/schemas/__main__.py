"""Write docs/schemas anew."""

from tests.schemas.answers import DECLARED, FOLDER, schema, text

for _name in DECLARED:
    (FOLDER / f"{_name}.json").write_text(text(schema(_name)))
