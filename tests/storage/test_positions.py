from sqlalchemy import Engine

from abgate.storage import positions
from abgate.storage.engine import appending, reading


def test_a_consumer_has_a_position_in_each_log(engine: Engine) -> None:
    with appending(engine) as connection:
        positions.save(connection, "lake", "auth_events", 7)
        positions.save(connection, "lake", "exposures", 9)
        positions.save(connection, "lake", "auth_events", 8)
    with reading(engine) as connection:
        assert positions.find(connection, "lake", "auth_events") == 8
        assert positions.find(connection, "lake", "exposures") == 9
        assert positions.find(connection, "lake", "corrections") == 0
        assert positions.find(connection, "stream", "auth_events") == 0


def test_a_consumer_that_is_removed_has_no_position(engine: Engine) -> None:
    with appending(engine) as connection:
        positions.save(connection, "lake", "auth_events", 7)
        positions.save(connection, "stream", "auth_events", 3)
        positions.remove(connection, "stream")
        assert positions.find(connection, "stream", "auth_events") == 0
        assert positions.find(connection, "lake", "auth_events") == 7
