"""Write docs/schemas anew."""

from tests.schemas.answers import DECLARED, FOLDER, OPEN, schema, text

for _name in (*DECLARED, *OPEN):
    (FOLDER / f"{_name}.json").write_text(text(schema(_name)))
