"""A round of everyday work in SQLAlchemy, over psycopg 3 and psycopg2, as a transcript.

For use and promises see psycopg_round.py.
"""

import json
import sys

import sqlalchemy as sa
from sqlalchemy import orm


def main():
    url, prefix = sys.argv[1:]
    for driver in ("psycopg", "psycopg2"):
        say(driver=driver)
        address = sa.make_url(url).set(drivername=f"postgresql+{driver}")
        engine = sa.create_engine(address, pool_size=3, max_overflow=0, pool_pre_ping=True)
        try:
            walk(engine, prefix)
        finally:
            engine.dispose()


def walk(engine, prefix):
    class Base(orm.DeclarativeBase):
        pass

    class Author(Base):
        __tablename__ = f"{prefix}_author"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
        books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", order_by="Book.id")

    class Book(Base):
        __tablename__ = f"{prefix}_book"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        title: orm.Mapped[str]
        author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Author.id))
        author: orm.Mapped[Author] = orm.relationship(back_populates="books")

    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    try:
        say(tables=sorted(name for name in sa.inspect(engine).get_table_names() if name.startswith(prefix)))
        say(columns=[column["name"] for column in sa.inspect(engine).get_columns(Book.__tablename__)])
        say(keys=[key["constrained_columns"] for key in sa.inspect(engine).get_foreign_keys(Book.__tablename__)])
        with orm.Session(engine) as session:
            for n in range(30):
                session.add(Author(name=f"author {n}", books=[Book(title=f"book {n}.{m}") for m in range(3)]))
            session.commit()
            # Read at once what was written.
            found = session.scalars(sa.select(Author).where(Author.name == "author 7")).one()
            say(titles=[book.title for book in found.books])
            say(count=session.scalar(sa.select(sa.func.count()).select_from(Book)))
            session.add(Author(name="author 7"))
            try:
                session.commit()
            except sa.exc.IntegrityError as error:
                session.rollback()
                say(error=type(error.orig).__name__)
            with session.begin_nested() as savepoint:
                session.execute(sa.delete(Book))
                savepoint.rollback()
            say(count=session.scalar(sa.select(sa.func.count()).select_from(Book)))
            session.execute(sa.update(Book).values(title=Book.title + "!"))
            session.commit()
            eager = sa.select(Author).options(orm.selectinload(Author.books)).where(Author.id < 4).order_by(Author.id)
            say(eager=[[author.name, [book.title for book in author.books]] for author in session.scalars(eager)])
        with engine.connect() as conn:
            lazily = conn.execution_options(stream_results=True, max_row_buffer=7)
            rows = lazily.execute(sa.select(Book.id).order_by(Book.id))
            say(streamed=sum(row.id for row in rows) > 0)
        for level in ("SERIALIZABLE", "REPEATABLE READ", "AUTOCOMMIT"):
            with engine.connect().execution_options(isolation_level=level) as conn:
                say(level=level, shown=conn.scalar(sa.text("SHOW transaction_isolation")))
        with engine.connect() as conn:
            say(level=conn.scalar(sa.text("SHOW transaction_isolation")))
        with engine.begin() as conn:
            inserted = conn.execute(sa.insert(Author).returning(Author.name), [{"name": f"more {n}"} for n in range(5)])
            say(inserted=sorted(inserted.scalars()))
    finally:
        Base.metadata.drop_all(engine)


def say(**values):
    print(json.dumps(values, default=str, ensure_ascii=True, sort_keys=True), flush=True)


main()
