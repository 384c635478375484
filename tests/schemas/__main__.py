"""Write docs/schemas anew."""

from tests.schemas.answers import FOLDER, NAMES, schema, text

for _name in NAMES:
    (FOLDER / f"{_name}.json").write_text(text(schema(_name)))
