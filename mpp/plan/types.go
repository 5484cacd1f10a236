package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/trunkline-db/trunkline/mpp/merge"
)

// Catalog is what the planner asks of the database. Its errors are returned by
// the planning call as they are. The planner calls it from the goroutine of the
// planning call only.
type Catalog interface {
	// Relation resolves a name as the session would: schema "" means
	// unqualified. It returns nil, nil when there is no such relation.
	Relation(schema, name string) (*Relation, error)
	// ReadAs is called for the name of a view, and for that of a table in a
	// view that has an Owner. as is who reads it: "" the user, else that
	// Owner. It returns what to take for it: the relation itself, a view with
	// an Owner; a view as a relation with a Policy, which each segment reads
	// as a table; a table as a Filtered view.
	ReadAs(schema, name, as string) (*Relation, error)
	// Function says what is known of all functions of that name: the worst
	// over the overloads. A name that does not exist has Found false.
	Function(schema, name string) (Func, error)
	// Describe returns the result columns of a SELECT as the coordinator's
	// PostgreSQL types them. Its parameters are those of the statement or,
	// where params is not nil, as in Slice.Params.
	Describe(sql string, params []int) ([]Column, error)
}

// Relation is a table, view or other relation as pg_class knows it.
type Relation struct {
	OID     uint32
	Schema  string
	Name    string
	Kind    byte // pg_class.relkind: r p v m f S t c
	Temp    bool // in the session's temporary schema
	Policy  *Policy
	Columns []Column // user columns in order, dropped ones left out
	// PrimaryKey holds the indexes into Columns of a not deferrable primary
	// key; nil when there is none.
	PrimaryKey []int
	// HasChildren says that rows may come from other tables: a partitioned
	// table or an inheritance parent.
	HasChildren bool
	// ChildKeys are the indexes into Columns of those by which the rows of tables that
	// inherit from this one are distributed.
	ChildKeys []int
	// TempChildren says that some of these are temporary.
	TempChildren bool
	// Indirect says that what is read of it may depend on tables that the statement does
	// not name: row-level security, or a view that is read as if it were a table.
	Indirect bool
	ViewDef  string // pg_get_viewdef of a view
	// Owner is the role that reads the tables of a view, where it is not the
	// user who reads the view; see Catalog.ReadAs.
	Owner string
	Rows  float64 // estimate over all segments; 0 or less: unknown
	// Filtered says that ViewDef is SELECT … FROM a table WHERE its row-level
	// security lets the Owner see a row.
	Filtered bool
}

// Column is a column of a relation or of a result.
type Column struct {
	Name    string
	TypeOID uint32
	// Type is format_type with the type modifier, fit for a column
	// definition list. A pseudo-type cannot be gathered.
	Type      string
	Collation string // quoted and qualified when not the type's default, else ""
	NotNull   bool
	Generated bool // GENERATED ALWAYS AS … STORED
	// Distinct is how many different values ANALYZE has found, Bytes how long
	// they are on the average; 0: unknown.
	Distinct, Bytes float64
}

// PolicyKind is how a table's rows are spread.
type PolicyKind uint8

// The distribution policies.
const (
	Hashed PolicyKind = iota + 1
	Random
	Replicated
)

func (k PolicyKind) String() string {
	switch k {
	case Hashed:
		return "hashed"
	case Random:
		return "random"
	case Replicated:
		return "replicated"
	}
	return "none"
}

// Policy is a row of gp_distribution_policy.
type Policy struct {
	Kind PolicyKind
	Keys []int // Hashed: indexes into Columns, in key order
	// NumSegments is how many segments the table is spread over; 0 means
	// all of Options.NumSegments.
	NumSegments int
}

// Func is what is known of the functions of one name.
type Func struct {
	Found        bool
	Builtin      bool // all in pg_catalog and of the initial installation
	Volatility   byte // worst: 'v' volatile, 's' stable, 'i' immutable; 0 counts as 'v'
	Aggregate    bool // any is an aggregate
	Window       bool // any is a pure window function
	SetReturning bool // any returns a set
	Location     byte // proexeclocation: 'a' or 0 any, 'c' or 'm' coordinator, 's' all segments, 'i' initplan
}

// Kind says how a planned query is run.
type Kind uint8

const (
	// Local: on the coordinator's PostgreSQL alone. Query.Top is the
	// statement to run, or "" for the client's own text.
	Local Kind = iota
	// Gather: the rows of Slices[0] go straight to the client, merged if it
	// has a Merge. Any others are its inputs.
	Gather
	// Top: Query.Top runs on the coordinator; the slices with a GatherMotion
	// are its sources, the others are inputs of slices.
	Top
)

func (k Kind) String() string { return [...]string{"Local", "Gather", "Top"}[k] }

// Query is a plan of a SELECT.
type Query struct {
	Kind   Kind
	Slices []Slice
	Top    string
	// TopInPortions is Top that has the first rows of its Large sources while the
	// last are still to come; "": none is large.
	TopInPortions string
	// Describe is what the coordinator's PostgreSQL can parse and describe
	// to learn the result columns and parameter types; "" when the client's
	// own text will do.
	Describe string
	Reason   string // why no more was pushed down, for EXPLAIN; "" when all was
	// Fold, if not nil, says how the one row of a Top follows from the rows of
	// Slices[0], the only slice with a GatherMotion, without Top's being run:
	// one Fold for each result column.
	Fold []Fold

	gathered *shape                 // of a Gather: the level that makes the rows
	telling  func() (string, error) // then, the SQL of Insertion.Telling
}

// Fold is an aggregate over whole numbers that the segments have aggregated.
type Fold struct {
	Op     FoldOp
	Column int // of the slice, a whole number or NULL
	Size   int // bytes of the result's type: 2, 4 or 8
}

// FoldOp says how two values become one; NULL and a value are the value.
type FoldOp uint8

const (
	// FoldCount adds; over no value it is 0.
	FoldCount FoldOp = iota
	// FoldSum adds; what bigint does not hold is an error (22003).
	FoldSum
	// FoldMin and FoldMax choose.
	FoldMin
	FoldMax
)

// Motion says where the rows of a slice go.
type Motion uint8

const (
	// GatherMotion: to the coordinator.
	GatherMotion Motion = iota
	// RedistributeMotion: each row to the segment its key hashes to.
	RedistributeMotion
	// BroadcastMotion: every row to each segment that runs the slice To.
	BroadcastMotion
	// StayMotion: each row to the slice To on the segment where it is.
	StayMotion
)

func (m Motion) String() string {
	return [...]string{"Gather Motion", "Redistribute Motion", "Broadcast Motion", "Explicit Redistribute Motion"}[m]
}

// Slice is one statement that some segments run, each sending its rows to the
// coordinator or to the segments that run another slice. Those read their
// inputs one after the other, in an order that each chooses for itself, or not
// at all: what one of them does not read yet must not keep it from the others.
//
// The slices whose Motion is a GatherMotion come before those that are not:
// inputs of other slices, each after the one that reads it, which may itself be
// an input. The SQL of that one reads them as Query.Top reads its sources,
//
//	pg_catalog.gp_motion_recv('gp_motion', 'token') AS alias(column type, …)
//
// once for each input.
type Slice struct {
	// Token is what the source of these rows in Query.Top, or in the SQL of
	// the slice To, names; "" for the one GatherMotion of a Gather.
	Token string
	// Motion is where the rows go.
	Motion Motion
	// Keys are, for a RedistributeMotion, the indexes in Columns of the hash
	// key, in the key's order. A row goes to the segment that Greenplum's
	// hash over the number of To's Segments gives its key; these are the
	// contents 0, 1, ….
	Keys []int
	// To is the index in Query.Slices of the slice that reads this one's
	// rows; -1 for a GatherMotion.
	To  int
	SQL string
	// InPortions is SQL that has the first rows of its Large inputs while the last are
	// still to come, which pays where the slices that send them can run at the same
	// time, in other sessions. "": that does not pay, or cannot be.
	InPortions string
	// Large says that To's InPortions, or TopInPortions, reads this slice's rows in
	// portions, or that there are as many for an Insertion that is Moved.
	Large bool
	// Again says that who reads the rows may ask for them several times.
	Again bool
	// Tables are those that SQL reads, but for temporary ones: Temp says that there are
	// such, which no other session can read.
	Tables []*Relation
	Temp   bool
	// Segments are the content ids that run it, nil for all.
	Segments []int
	// Columns are the result columns; nil in a Gather, whose columns are
	// those of Query.Describe.
	Columns []Column
	// Params are the numbers of the statement's parameters that SQL uses:
	// its $1 is the statement's $Params[0], and so on. Each is written with
	// a cast to its type. nil: none.
	Params   []int
	Relation string // what it scans, for EXPLAIN
	// Read is what SQL reads with the rights of a view's owner, through
	// pg_catalog.gp_owner_rows() whose argument is the parameter after
	// Params; nil: nothing.
	Read *Read
	// Rows is the planner's guess of the rows sent in all, a broadcast's
	// counted once; 0 unknown.
	Rows float64
	// Locks, of a plan's first slice only, are what is to be locked before any is
	// opened.
	Locks []Lock
	// LocksRows says that the slice locks the rows that it reads, as long as the
	// transaction lasts: the statement is for the session's own executors.
	LocksRows bool
	// Merge says how the rows of a Gather's first slice are put together where
	// each segment has sorted its own; what comes out of that are the rows of
	// the query. nil: they are that as they come, in any order.
	Merge *merge.Spec
}

// Read is the scan of one base table, and nothing else, with the rights of the
// owner of a view.
type Read struct {
	Owner   string
	Schema  string
	Table   string
	Columns []string // that Owner must have a right to; none: to any
	SQL     string
	// Filtered says that what is left out for the row-level security of the
	// table is left out elsewhere.
	Filtered bool
	as       string // what its columns are called
}

// Options are the facts of a planning call that are not in the catalog.
type Options struct {
	NumSegments int           // primaries, at least 1
	Token       func() string // a fresh token for each call; only [0-9A-Za-z_:.-]
	// Replica is the content id asked for the rows of a replicated table;
	// callers spread it.
	Replica int
	// ParamTypes are the types (format_type) of the statement's parameters
	// as the coordinator describes them. When there are fewer than
	// parameters in the statement, no slice gets a parameter.
	ParamTypes []string
	// Param is the value of parameter n, from 1, as text, where it is a whole
	// number, a text or a UUID. It is asked for where a key is compared with the
	// parameter; the plan is then one for these values. nil: they are not known.
	Param func(n int) (text string, ok bool)
	// Hash places a row: the segment of the hash key values, which are given
	// as text in the key's order with the columns' types. ok is false when
	// it cannot say. nil: no statement is sent to single segments by its key.
	Hash func(types []Column, values []string, numSegments int) (segment int, ok bool)
	// Sends says whether the text of every value of a type, as the session's
	// settings make segments write it, tells its hash: rows are sent to
	// segments by columns of such types only. nil: by none.
	Sends func(typeOID uint32) bool
	// Eval runs a SELECT of one value on the coordinator, in the statement's
	// transaction, and returns it as text. It is asked for the time and the
	// user of the statement, which segments must not make up themselves.
	// nil: conditions on these are tested on the coordinator.
	Eval func(sql string) (string, error)
	// Merges says whether values of a type that merge.Comparable knows can be
	// merged in the order of a collation, which is "" for the type's default,
	// else as SQL names it. nil: the coordinator sorts.
	Merges func(typeOID uint32, collation string) bool
	// NoMotions keeps segments from sending rows to each other: what they
	// could not join without is joined on the coordinator.
	NoMotions bool
	// Own says that only the session's own executors see all that is read of a table.
	// These run one slice after the other. Where such tables are joined, one of which
	// sends many rows to where the others are, these are sent as well, so that a slice
	// of other executors has all of them as they come. nil: none is of that kind.
	Own func(r *Relation) bool
	// NoPushdown turns every optimisation off: base tables are gathered.
	NoPushdown bool

	noIslands bool // for tests: base tables are gathered, but filtered
}

// Name is a possibly qualified relation name; Schema is "" when unqualified.
type Name struct{ Schema, Name string }

func nodeSelect(n *pg.Node) *pg.SelectStmt { return n.GetSelectStmt() }

func selectNode(s *pg.SelectStmt) *pg.Node {
	return &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}}
}
