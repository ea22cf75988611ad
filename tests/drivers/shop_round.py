"""A shop in SQLAlchemy: not a round of a driver, but an application at its work, over psycopg 3 and psycopg2.

    shop_round.py URL create    make the tables and their rows
    shop_round.py URL walk      each page of the shop in each kind of session, as a transcript
    shop_round.py URL trade     several threads that show pages and take orders, as totals

Most sessions are in autocommit or declared read-only; some leave SQLAlchemy's defaults, and so read in transactions that
might write.
"""

import datetime
import decimal
import enum
import json
import random
import sys
import threading

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg

USERS, ITEMS, ORDERS = 60, 80, 240
THREADS, TURNS = 4, 120


class Base(orm.DeclarativeBase):
    pass


class Status(enum.Enum):
    open = "open"
    paid = "paid"
    sent = "sent"


mood = sa.Enum(Status, name="order_status")


class Category(Base):
    __tablename__ = "category"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]
    parent_id: orm.Mapped[int | None] = orm.mapped_column(sa.ForeignKey("category.id"))


class Item(Base):
    __tablename__ = "item"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    kind: orm.Mapped[str] = orm.mapped_column(sa.String(10))
    name: orm.Mapped[str] = orm.mapped_column(sa.String(80), index=True)
    description: orm.Mapped[str] = orm.mapped_column(sa.Text)
    price: orm.Mapped[decimal.Decimal] = orm.mapped_column(sa.Numeric(10, 2))
    tags: orm.Mapped[list[str]] = orm.mapped_column(pg.ARRAY(sa.Text))
    attributes: orm.Mapped[dict] = orm.mapped_column(pg.JSONB)
    search: orm.Mapped[str] = orm.mapped_column(
        pg.TSVECTOR, sa.Computed("to_tsvector('english', name || ' ' || description)", persisted=True), deferred=True
    )
    category_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Category.id))
    category: orm.Mapped[Category] = orm.relationship()
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "thing"}


class Book(Item):
    __tablename__ = "book"
    id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Item.id), primary_key=True)
    author: orm.Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "book"}


class User(Base):
    __tablename__ = "user"  # A reserved word: it is quoted wherever it stands.
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    email: orm.Mapped[str] = orm.mapped_column(sa.String(120), unique=True)
    name: orm.Mapped[str]
    born: orm.Mapped[datetime.date | None]
    settings: orm.Mapped[dict] = orm.mapped_column(pg.JSONB, server_default="{}")
    token: orm.Mapped[str] = orm.mapped_column(pg.UUID(as_uuid=False), server_default=sa.func.gen_random_uuid())
    created: orm.Mapped[datetime.datetime] = orm.mapped_column(
        sa.DateTime(timezone=True), server_default=sa.func.now()
    )
    orders: orm.Mapped[list["Order"]] = orm.relationship(back_populates="user", order_by="Order.id")


class Order(Base):
    __tablename__ = "orders"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    user_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(User.id), index=True)
    status: orm.Mapped[Status] = orm.mapped_column(mood)
    placed: orm.Mapped[datetime.datetime] = orm.mapped_column(sa.DateTime(timezone=True))
    user: orm.Mapped[User] = orm.relationship(back_populates="orders")
    lines: orm.Mapped[list["Line"]] = orm.relationship(order_by="Line.id", cascade="all, delete-orphan")


class Line(Base):
    __tablename__ = "line"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    order_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Order.id), index=True)
    item_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(Item.id))
    quantity: orm.Mapped[int]
    price: orm.Mapped[decimal.Decimal] = orm.mapped_column(sa.Numeric(10, 2))
    item: orm.Mapped[Item] = orm.relationship()


class Visit(Base):
    __tablename__ = "visit"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True)
    user_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey(User.id))
    page: orm.Mapped[str] = orm.mapped_column(sa.String(40))
    times: orm.Mapped[int] = orm.mapped_column(server_default="1")
    __table_args__ = (sa.UniqueConstraint("user_id", "page"),)


Order.total = orm.column_property(
    sa.select(sa.func.coalesce(sa.func.sum(Line.quantity * Line.price), 0))
    .where(Line.order_id == Order.id)
    .correlate_except(Line)
    .scalar_subquery(),
    deferred=True,
)

# Made by hand, as migrations do it, and read like tables.
totals = sa.table("customer_totals", sa.column("user_id"), sa.column("orders"), sa.column("spent"))
sellers = sa.table("best_sellers", sa.column("item_id"), sa.column("sold"))
BY_HAND = [
    """CREATE VIEW customer_totals AS SELECT o.user_id, count(DISTINCT o.id) AS orders, sum(l.quantity * l.price) AS spent
       FROM orders o JOIN line l ON l.order_id = o.id GROUP BY o.user_id""",
    "CREATE MATERIALIZED VIEW best_sellers AS SELECT item_id, sum(quantity) AS sold FROM line GROUP BY item_id",
    """CREATE FUNCTION discount(bought bigint) RETURNS numeric LANGUAGE sql IMMUTABLE
       AS 'SELECT least(bought, 10) * 0.5'""",
]


def create(engine):
    Base.metadata.create_all(engine)
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    with orm.Session(engine) as session:
        for statement in BY_HAND:
            session.execute(sa.text(statement))
        names = ["all", "paper", "tools", "novels", "poems", "hammers"]
        parents = [None, 1, 1, 2, 2, 3]
        session.add_all([Category(id=n + 1, name=name, parent_id=parents[n]) for n, name in enumerate(names)])
        session.flush()
        for n in range(1, ITEMS + 1):
            made = Book(author=f"author {n % 7}") if n % 3 == 0 else Item()
            made.name, made.description = f"item {n}", f"The {'quick brown' if n % 2 else 'lazy'} thing number {n}"
            made.price, made.category_id = decimal.Decimal(n) + decimal.Decimal("0.99"), n % 6 + 1
            made.tags, made.attributes = [f"tag{n % 5}", f"tag{n % 7}"], {"size": {"w": n}, "colour": "red" if n % 2 else "blue"}
            session.add(made)
        for n in range(1, USERS + 1):
            born = datetime.date(1970 + n % 40, n % 12 + 1, n % 28 + 1) if n % 4 else None
            session.add(User(email=f"user{n}@example.org", name=f"User {n}", born=born, settings={"theme": n % 3}))
        session.flush()
        statuses = list(Status)
        for n in range(1, ORDERS + 1):
            lines = [Line(item_id=(n * m) % ITEMS + 1, quantity=m, price=decimal.Decimal(n % 9 + 1)) for m in (1, 2, 3)]
            placed = start + datetime.timedelta(hours=7 * n)
            session.add(Order(user_id=n % USERS + 1, status=statuses[n % 3], placed=placed, lines=lines))
        session.flush()
        session.execute(sa.text("REFRESH MATERIALIZED VIEW best_sellers"))
        session.commit()


# The pages: each reads in the session it is given, about the user with this number, and returns what it shows.


def account(session, n):
    user = session.get(User, n)
    # Lazily: orders, their lines, and each line's item.
    return [user.email, [[line.item.name for line in order.lines] for order in user.orders[:2]]]


def orders_joined(session, n):
    query = sa.select(Order).options(orm.joinedload(Order.lines).joinedload(Line.item), orm.joinedload(Order.user))
    found = session.scalars(query.where(Order.user_id == n).order_by(Order.id)).unique()
    return [[order.user.name, order.status.name, len(order.lines), order.lines[0].item.name] for order in found]


def users_with_orders(session, n):
    query = sa.select(User).options(orm.selectinload(User.orders).selectinload(Order.lines)).order_by(User.id)
    found = session.scalars(query.where(User.id.between(n, n + 4)))
    return [[user.name, sum(len(order.lines) for order in user.orders)] for user in found]


def subquery_loaded(session, n):
    query = sa.select(User).options(orm.subqueryload(User.orders).undefer(Order.total)).where(User.id == n)
    return [[str(order.total) for order in user.orders] for user in session.scalars(query)]


def login(session, n):
    query = sa.select(User.id, User.token).where(sa.func.lower(User.email) == f"USER{n}@example.org".lower())
    return session.execute(query.limit(1)).one().id


def search_people(session, n):
    query = sa.select(User.name).where(
        sa.or_(User.email.ilike(f"%{n}%"), User.name.startswith("User 1"), User.id.in_([n, n + 1, n + 2])),
        User.born.is_not(None),
        sa.not_(User.name.contains("nobody", autoescape=True)),
    )
    return session.scalars(query.order_by(User.id).limit(5)).all()


def by_status(session, n):
    query = sa.select(sa.func.count()).select_from(Order).where(Order.status == Status.paid, Order.user_id == n)
    many = sa.select(Order.id).where(Order.status.in_([Status.open, Status.sent])).order_by(Order.id).limit(3)
    recent = sa.select(Order.id).where(Order.status.is_distinct_from(Status.sent)).order_by(Order.placed, Order.id).limit(3)
    return [session.scalar(query), session.scalars(many).all(), session.scalars(recent).all()]


def arrays(session, n):
    tag = f"tag{n % 5}"
    return [
        session.scalars(sa.select(Item.id).where(Item.tags.contains([tag])).order_by(Item.id).limit(3)).all(),
        session.scalars(sa.select(Item.id).where(Item.tags.overlap([tag, "tag6"])).order_by(Item.id).limit(3)).all(),
        session.scalar(sa.select(sa.func.count()).where(tag == sa.any_(Item.tags))),
        session.scalar(sa.select(sa.func.array_length(Item.tags, 1)).where(Item.id == n)),
        session.scalars(sa.select(sa.func.unnest(Item.tags).label("tag")).distinct().order_by("tag")).all(),
        rows(session.execute(sa.select(Item.tags[1].label("tag"), sa.func.array_agg(Item.id)).where(Item.id < 9).group_by("tag").order_by("tag"))),
    ]


def documents(session, n):
    return [
        session.scalar(sa.select(Item.attributes["size"]["w"].as_integer()).where(Item.id == n)),
        session.scalar(sa.select(sa.func.count()).where(Item.attributes.contains({"colour": "red"}))),
        session.scalar(sa.select(sa.func.count()).where(Item.attributes.has_key("colour"))),
        session.scalar(sa.select(sa.func.count()).where(Item.attributes["colour"].astext == "blue")),
        session.scalar(sa.select(sa.func.count()).where(Item.attributes[("size", "w")].astext.cast(sa.Integer) > n)),
        session.scalar(sa.select(sa.func.jsonb_build_object("id", User.id, "theme", User.settings["theme"])).where(User.id == n)),
        session.scalar(sa.select(sa.func.count()).where(sa.func.jsonb_path_exists(Item.attributes, sa.cast("$.size.w ? (@ > 40)", pg.JSONPATH)))),
    ]


def aggregates(session, n):
    day = sa.func.date_trunc("month", Order.placed).label("month")
    spent = sa.func.sum(Line.quantity * Line.price)
    query = (
        sa.select(day, sa.func.count(sa.distinct(Order.id)), spent, sa.func.avg(Line.price).cast(sa.Numeric(10, 2)))
        .join(Order.lines)
        .where(Order.id <= ORDERS)
        .group_by("month")
        .having(sa.func.count() > 3)
        .order_by("month")
    )
    middle = sa.select(sa.func.percentile_cont(0.5).within_group(Item.price), sa.func.mode().within_group(Item.kind))
    books = sa.select(sa.func.count().filter(Item.kind == "book"), sa.func.min(Item.price), sa.func.max(Item.price))
    listed = sa.select(sa.func.string_agg(Item.name, sa.literal(", "))).where(Item.id == n)
    cube = sa.select(Order.status, sa.func.count()).where(Order.id <= ORDERS).group_by(sa.func.rollup(Order.status)).order_by(Order.status)
    return [rows(session.execute(each)) for each in (query, middle, books, listed, cube)]


def pages(session, n):
    query = sa.select(Item).where(Item.price > n)
    total = session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    page = session.scalars(query.order_by(Item.price.desc(), Item.id).limit(5).offset(n % 10)).all()
    after = sa.select(Item.id).where(sa.tuple_(Item.price, Item.id) > (page[-1].price, page[-1].id))
    further = session.scalars(after.order_by(Item.price, Item.id).fetch(3)).all()
    return [total, [item.name for item in page], further]


def existence(session, n):
    loyal = sa.select(User.id).where(User.orders.any(Order.status == Status.paid)).order_by(User.id).limit(3)
    without = sa.select(sa.func.count()).select_from(User).where(~User.orders.any())
    of = sa.select(sa.func.count()).select_from(Order).where(Order.user.has(User.name == f"User {n}"))
    is_there = sa.select(sa.exists().where(Order.user_id == n))
    never = sa.select(Item.id).where(~sa.exists().where(Line.item_id == Item.id)).order_by(Item.id).limit(3)
    listed = sa.select(sa.func.count()).where(Item.id.in_(sa.select(Line.item_id).where(Line.quantity > 2)))
    return [rows(session.execute(each)) for each in (loyal, without, of, is_there, never, listed)]


def ctes(session, n):
    big = sa.select(Order.user_id, sa.func.count().label("n")).where(Order.id <= ORDERS).group_by(Order.user_id).cte("big")
    joined = sa.select(User.name, big.c.n).join(big, big.c.user_id == User.id).where(User.id == n)
    tree = sa.select(Category.id, Category.name).where(Category.id == 2).cte("tree", recursive=True)
    tree = tree.union_all(sa.select(Category.id, Category.name).where(Category.parent_id == tree.c.id))
    kept = sa.select(sa.func.count()).select_from(Item).where(Item.category_id.in_(sa.select(tree.c.id)))
    return [rows(session.execute(joined)), session.scalars(sa.select(tree.c.name).order_by(tree.c.id)).all(), session.scalar(kept)]


def windows(session, n):
    place = sa.func.row_number().over(partition_by=Item.category_id, order_by=Item.price.desc()).label("place")
    ranked = sa.select(Item.id, place).subquery()
    best = sa.select(ranked.c.id).where(ranked.c.place == 1).order_by(ranked.c.id)
    running = sa.select(
        Order.id,
        sa.func.sum(Line.price).over(order_by=Line.id, rows=(None, 0)),
        sa.func.lag(Line.price, 1, 0).over(order_by=Line.id),
        sa.func.rank().over(order_by=Line.price),
        sa.func.ntile(4).over(order_by=Line.id),
    ).join(Order.lines).where(Order.user_id == n, Order.id <= ORDERS).order_by(Line.id).limit(4)
    return [rows(session.execute(each)) for each in (best, running)]


def text_search(session, n):
    asked = sa.func.websearch_to_tsquery("english", f"quick thing {n}")
    rank = sa.func.ts_rank(Item.search, asked).label("rank")
    found = sa.select(Item.id, sa.func.ts_headline("english", Item.description, asked)).where(Item.search.bool_op("@@")(asked))
    plain = sa.select(sa.func.count()).where(Item.description.match("lazy", postgresql_regconfig="english"))
    vector = sa.select(sa.func.count()).where(sa.func.to_tsvector("english", Item.name).bool_op("@@")(sa.func.plainto_tsquery("english", "item")))
    return [rows(session.execute(found.order_by(rank.desc(), Item.id).limit(3))), session.scalar(plain), session.scalar(vector)]


def clocks(session, n):
    young = sa.select(sa.func.count()).select_from(User).where(User.created <= sa.func.now())
    ages = sa.select(sa.extract("year", User.born), sa.func.age(sa.cast("2026-01-01", sa.Date), User.born)).where(User.id == n)
    week = sa.select(sa.func.count()).where(Order.placed > sa.func.current_timestamp() - sa.text("interval '7 days'"), Order.id < 0)
    shown = sa.select(sa.func.to_char(Order.placed, "YYYY-MM-DD"), Order.placed.op("AT TIME ZONE")("Europe/Berlin")).where(Order.id == n)
    today = sa.select(sa.func.current_date() > datetime.date(2020, 1, 1), sa.func.localtimestamp() > datetime.datetime(2020, 1, 1))
    months = sa.func.generate_series(datetime.date(2026, 1, 1), datetime.date(2026, 3, 1), sa.text("interval '1 month'")).table_valued("at")
    return [rows(session.execute(each)) for each in (young, ages, week, shown, today, sa.select(sa.func.count()).select_from(months))]


def in_core(session, n):
    item, line = Item.__table__, Line.__table__
    either = sa.union_all(sa.select(item.c.id).where(item.c.id < 3), sa.select(line.c.id).where(line.c.id < 3)).subquery()
    latest = sa.select(line.c.price).where(line.c.item_id == item.c.id).order_by(line.c.id).limit(1).lateral("latest")
    case = sa.case((item.c.price > 40, "dear"), (item.c.price > 20, "fair"), else_="cheap").label("class")
    given = sa.values(sa.column("id", sa.Integer), sa.column("label", sa.String), name="given").data([(1, "a"), (2, "b")])
    first = sa.select(Order.user_id, Order.id).distinct(Order.user_id).where(Order.user_id <= 2, Order.id <= ORDERS).order_by(Order.user_id, Order.id)
    queries = [
        sa.select(sa.func.count()).select_from(either),
        sa.select(item.c.id, latest.c.price).join(latest, sa.true()).where(item.c.id == n).order_by(item.c.id),
        sa.select(case, sa.func.count()).group_by("class").order_by("class"),
        sa.select(given.c.label, item.c.name).join(item, item.c.id == given.c.id).order_by(given.c.label),
        first,
        sa.select(item.c.id).except_(sa.select(line.c.item_id)).order_by(item.c.id),
        sa.select(sa.func.coalesce(sa.null(), sa.func.nullif(item.c.name, ""), "x"), sa.func.upper(item.c.name), sa.func.length(item.c.name), item.c.name + "!").where(item.c.id == n),
        sa.text("SELECT name, price::float8 * 2 FROM item WHERE id = :id AND name ~ '^item' AND tags[1] IS NOT NULL").bindparams(id=n),
        sa.select(sa.func.greatest(1, n), sa.func.round(sa.cast(2.5, sa.Numeric)), sa.func.md5("x"), sa.literal(n) % 7),
    ]
    return [rows(session.execute(query)) for query in queries]


def by_hand(session, n):
    return [
        rows(session.execute(sa.select(totals.c.user_id, totals.c.spent >= 0).where(totals.c.user_id == n))),
        session.scalar(sa.select(sellers.c.sold).where(sellers.c.item_id == n)),
        session.scalar(sa.select(sa.func.discount(sa.func.count())).select_from(Order).where(Order.user_id == -n)),
    ]


def kinds(session, n):
    everything = orm.with_polymorphic(Item, "*")
    some = session.scalars(sa.select(everything).where(everything.id.between(n, n + 2)).order_by(everything.id))
    books = sa.select(Book).where(Book.author == f"author {n % 7}").order_by(Book.id).limit(2)
    parent = orm.aliased(Category)
    paths = sa.select(Category.name, parent.name).join(parent, Category.parent_id == parent.id).order_by(Category.id)
    drawn = sa.select(Item.id).order_by(sa.func.random()).limit(2)
    return [[type(item).__name__ for item in some], [book.name for book in session.scalars(books)], rows(session.execute(paths)), len(session.scalars(drawn).all())]


def streamed(session, n):
    """Behind a cursor of the server's, which needs a transaction."""
    query = sa.select(Item.id).where(Item.id >= n).order_by(Item.id)
    found = session.execute(query.execution_options(yield_per=10))
    return sum(row.id for row in found)


PAGES = [
    account, orders_joined, users_with_orders, subquery_loaded, login, search_people, by_status, arrays, documents,
    aggregates, pages, existence, ctes, windows, text_search, clocks, in_core, by_hand, kinds,
]  # fmt: skip


# What customers do, each in a session of SQLAlchemy's defaults.


def place_order(session, n):
    user = session.get(User, n)
    item = session.scalars(sa.select(Item).where(Item.id == n).with_for_update(read=True)).one()
    order = Order(user=user, status=Status.open, placed=sa.func.now(), lines=[Line(item=item, quantity=2, price=item.price)])
    session.add(order)
    session.flush()
    # Its time comes back from the server.
    return order.placed is not None


def pay(session, n):
    order = session.scalars(sa.select(Order).where(Order.user_id == n).order_by(Order.id.desc()).limit(1)).one()
    order.status = Status.paid
    return session.scalar(sa.select(sa.func.sum(Line.quantity * Line.price)).where(Line.order_id == order.id)) > 0


def note_visit(session, n):
    inserted = pg.insert(Visit).values(user_id=n, page="home")
    session.execute(inserted.on_conflict_do_update(index_elements=["user_id", "page"], set_={"times": Visit.times + 1}))
    return session.scalar(sa.select(Visit.times).where(Visit.user_id == n)) > 0


DEEDS = [place_order, pay, note_visit]


class Shop:
    """The shop over one driver: three ways into one pool of connections."""

    def __init__(self, url, driver):
        address = sa.make_url(url).set(drivername=f"postgresql+{driver}")
        self.engine = sa.create_engine(address, pool_size=THREADS, max_overflow=0)
        self.kinds = {
            "autocommit": orm.sessionmaker(self.engine.execution_options(isolation_level="AUTOCOMMIT")),
            "read-only": orm.sessionmaker(self.engine.execution_options(postgresql_readonly=True)),
            "snapshot": orm.sessionmaker(
                self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            ),
            "default": orm.sessionmaker(self.engine),
        }

    def show(self, kind, page, n):
        with self.kinds[kind]() as session:
            return page(session, n)

    def do(self, deed, n):
        with self.kinds["default"].begin() as session:
            assert deed(session, n), deed.__name__

    def check_tables(self):
        """What is there is what the program was written for, as many look at their start."""
        there = sa.MetaData()
        there.reflect(self.engine.execution_options(isolation_level="AUTOCOMMIT"), views=True)
        wanted = {name: table.columns.keys() for name, table in Base.metadata.tables.items()}
        assert wanted == {name: there.tables[name].columns.keys() for name in wanted}
        return sorted(there.tables)


def walk(shop):
    say(tables=shop.check_tables())
    for page in PAGES:
        shown = {kind: shop.show(kind, page, 7) for kind in shop.kinds}
        for kind, result in shown.items():
            say(page=page.__name__, kind=kind, shown=result if kind == "autocommit" else result == shown["autocommit"])
    for kind in ("read-only", "snapshot", "default"):
        say(page="streamed", kind=kind, shown=shop.show(kind, streamed, 7))


def trade(shop, seed):
    """Of a hundred turns, 3 take orders, 12 read in transactions that might write, and the rest only read."""
    failures = []

    def work(turns):
        try:
            for _ in range(TURNS):
                kind = turns.choices(["deed", "default", "autocommit", "read-only", "snapshot"], [3, 12, 50, 25, 10])[0]
                n = turns.randint(1, USERS)
                if kind == "deed":
                    shop.do(turns.choice(DEEDS), n)
                else:
                    shop.show(kind, turns.choice(PAGES if kind == "autocommit" else [*PAGES, streamed]), n)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=[random.Random(seed * 100 + n)]) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    say(turns=THREADS * TURNS)


def rows(result):
    return [list(row) for row in result]


def main():
    url, verb = sys.argv[1:]
    for seed, driver in enumerate(("psycopg", "psycopg2")):
        say(driver=driver)
        shop = Shop(url, driver)
        try:
            match verb:
                case "create":
                    return create(shop.engine)
                case "walk":
                    walk(shop)
                case "trade":
                    trade(shop, seed)
                case _:
                    sys.exit(f"there is no {verb}")
        finally:
            shop.engine.dispose()


def say(**values):
    print(json.dumps(values, default=str, ensure_ascii=True, sort_keys=True), flush=True)


if __name__ == "__main__":
    main()
