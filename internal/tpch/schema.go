package tpch

// definition is what the SQL of a table is made of.
type definition struct {
	columns, key, distribution string
}

// Keys of orders have eight bytes: from a scale factor of 357 on they need them.
var definitions = map[Table]definition{
	Region: {`
	r_regionkey integer not null,
	r_name char(25) not null,
	r_comment varchar(152)`, "r_regionkey", "replicated"},
	Nation: {`
	n_nationkey integer not null,
	n_name char(25) not null,
	n_regionkey integer not null,
	n_comment varchar(152)`, "n_nationkey", "replicated"},
	Supplier: {`
	s_suppkey integer not null,
	s_name char(25) not null,
	s_address varchar(40) not null,
	s_nationkey integer not null,
	s_phone char(15) not null,
	s_acctbal numeric(15,2) not null,
	s_comment varchar(101) not null`, "s_suppkey", "by (s_suppkey)"},
	Customer: {`
	c_custkey integer not null,
	c_name varchar(25) not null,
	c_address varchar(40) not null,
	c_nationkey integer not null,
	c_phone char(15) not null,
	c_acctbal numeric(15,2) not null,
	c_mktsegment char(10) not null,
	c_comment varchar(117) not null`, "c_custkey", "by (c_custkey)"},
	Part: {`
	p_partkey integer not null,
	p_name varchar(55) not null,
	p_mfgr char(25) not null,
	p_brand char(10) not null,
	p_type varchar(25) not null,
	p_size integer not null,
	p_container char(10) not null,
	p_retailprice numeric(15,2) not null,
	p_comment varchar(23) not null`, "p_partkey", "by (p_partkey)"},
	PartSupp: {`
	ps_partkey integer not null,
	ps_suppkey integer not null,
	ps_availqty integer not null,
	ps_supplycost numeric(15,2) not null,
	ps_comment varchar(199) not null`, "ps_partkey, ps_suppkey", "by (ps_partkey)"},
	Orders: {`
	o_orderkey bigint not null,
	o_custkey integer not null,
	o_orderstatus char(1) not null,
	o_totalprice numeric(15,2) not null,
	o_orderdate date not null,
	o_orderpriority char(15) not null,
	o_clerk char(15) not null,
	o_shippriority integer not null,
	o_comment varchar(79) not null`, "o_orderkey", "by (o_orderkey)"},
	LineItem: {`
	l_orderkey bigint not null,
	l_partkey integer not null,
	l_suppkey integer not null,
	l_linenumber integer not null,
	l_quantity numeric(15,2) not null,
	l_extendedprice numeric(15,2) not null,
	l_discount numeric(15,2) not null,
	l_tax numeric(15,2) not null,
	l_returnflag char(1) not null,
	l_linestatus char(1) not null,
	l_shipdate date not null,
	l_commitdate date not null,
	l_receiptdate date not null,
	l_shipinstruct char(25) not null,
	l_shipmode char(10) not null,
	l_comment varchar(44) not null`, "l_orderkey, l_linenumber", "by (l_orderkey)"},
}

// Create is the statement that makes the table: with Greenplum's distribution,
// or as a single PostgreSQL server takes it.
func (t Table) Create(distributed bool) string {
	def := definitions[t]
	sql := "create table " + t.String() + " (" + def.columns + "\n)"
	if distributed {
		sql += " distributed " + def.distribution
	}
	return sql
}

// PrimaryKey is the statement that gives the table its primary key. It takes
// less time when the rows are there.
func (t Table) PrimaryKey() string {
	return "alter table " + t.String() + " add primary key (" + definitions[t].key + ")"
}

// ForeignKeyIndexes are the statements that make indexes on the columns that
// join the tables and do not lead a primary key. The benchmark allows them, and
// two of its queries take a single server minutes without.
func ForeignKeyIndexes() []string {
	var list []string
	for _, i := range []struct {
		table  Table
		column string
	}{
		{LineItem, "l_partkey"}, {LineItem, "l_suppkey"}, {PartSupp, "ps_suppkey"},
		{Orders, "o_custkey"}, {Customer, "c_nationkey"}, {Supplier, "s_nationkey"},
	} {
		list = append(list, "create index on "+i.table.String()+" ("+i.column+")")
	}
	return list
}
