package plan

import (
	"regexp"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Statement is one parsed statement.
type Statement struct {
	// SQL is the statement in PostgreSQL's own language: Greenplum's clauses
	// are replaced by as many spaces, so that positions stay. ALTER TABLE …
	// SET DISTRIBUTED becomes an action that changes nothing (the statement
	// still checks the table and the right to alter it). It is "" when
	// nothing is left to run (ALTER FUNCTION … EXECUTE ON alone, an empty
	// statement).
	SQL  string
	Node *pg.Node // the parse tree of SQL; nil for an empty statement
	// Changed says that SQL is not the text given to Parse.
	Changed bool

	// Distribution is the DISTRIBUTED clause; nil when there is none.
	Distribution *Distribution
	// SetDistribution: it is ALTER TABLE … SET DISTRIBUTED (or SET WITH
	// (REORGANIZE=…) [DISTRIBUTED …]).
	SetDistribution bool
	// Reorganize is the value of REORGANIZE, nil when not given.
	Reorganize *bool
	// ExpandTable: ALTER TABLE … EXPAND TABLE.
	ExpandTable bool
	// ExecuteOn is where a function of CREATE or ALTER FUNCTION runs, as
	// pg_proc.proexeclocation: 'a' any, 'c' coordinator, 's' all segments,
	// 'i' initplan; 0 when not given.
	ExecuteOn byte
	// Storage holds Greenplum's storage options that were taken out of WITH,
	// names in lower case. PostgreSQL tables have one storage.
	Storage map[string]string
}

// Distribution is a DISTRIBUTED clause.
type Distribution struct {
	Kind PolicyKind
	Keys []DistributionKey // Hashed only; may be empty for DISTRIBUTED BY ()
}

// DistributionKey is a column of DISTRIBUTED BY.
type DistributionKey struct {
	Column  string
	OpClass string // as written, "" when absent
}

// Parse reads one statement as a Greenplum client writes it. A syntax error is
// a *Error with SQLSTATE 42601, PostgreSQL's message, and the position in sql.
func Parse(sql string) (*Statement, error) {
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, errorf(codeSyntax, "null character not permitted")
	}
	st := &Statement{SQL: sql}
	if mayHaveGreenplumClauses(sql) {
		if err := st.strip(); err != nil {
			return nil, err
		}
	}
	res, err := pg.Parse(st.SQL)
	if err != nil {
		return nil, syntaxError(err)
	}
	switch len(res.Stmts) {
	case 0:
		st.SQL = ""
		return st, nil
	case 1:
		st.Node = res.Stmts[0].Stmt
	default:
		return nil, errorf(codeSyntax, "cannot insert multiple commands into a prepared statement")
	}
	if oddParam.MatchString(st.SQL) {
		if err := st.badParam(); err != nil {
			return nil, err
		}
	}
	st.dropNoOps()
	return st, nil
}

// oddParam finds what may be a parameter that cannot be.
var oddParam = regexp.MustCompile(`\$(0|[0-9]{10})`)

// badParam refuses a parameter whose number is 0 or too big, which the deparser
// takes for something else.
func (st *Statement) badParam() error {
	var err error
	walk(st.Node, func(m any) bool {
		if p, ok := m.(*pg.ParamRef); ok && p.Number <= 0 {
			at := min(max(int(p.Location), 0), len(st.SQL))
			num := st.SQL[at:]
			for i, c := range num {
				if i > 0 && (c < '0' || c > '9') {
					num = num[:i]
					break
				}
			}
			err = &Error{Code: codeUndefinedParam, Message: "there is no parameter " + num, Position: len([]rune(st.SQL[:at])) + 1}
		}
		return err == nil
	})
	return err
}

func deparseSelect(s *pg.SelectStmt) (string, error) {
	return Deparse(selectNode(s))
}

// dropNoOps takes the actions out of the tree that only stood in for
// Greenplum's clauses.
func (st *Statement) dropNoOps() {
	switch {
	case st.SetDistribution || st.ExpandTable:
		alter := st.Node.GetAlterTableStmt()
		if alter == nil {
			return
		}
		keep := alter.Cmds[:0]
		for _, c := range alter.Cmds {
			cmd := c.GetAlterTableCmd()
			noop := st.SetDistribution && cmd.GetSubtype() == pg.AlterTableType_AT_DropOids ||
				st.ExpandTable && cmd.GetSubtype() == pg.AlterTableType_AT_ResetRelOptions && isPlaceholder(cmd.Def)
			if !noop {
				keep = append(keep, c)
			}
		}
		alter.Cmds = keep
	case st.ExecuteOn != 0:
		alter := st.Node.GetAlterFunctionStmt()
		if alter == nil {
			return
		}
		keep := alter.Actions[:0]
		for _, a := range alter.Actions {
			if d := a.GetDefElem(); d.GetDefname() != "support" || d.GetArg().GetList() == nil ||
				len(d.GetArg().GetList().Items) != 1 || d.GetArg().GetList().Items[0].GetString_().GetSval() != "x" {
				keep = append(keep, a)
			} else if from := int(d.Location); from >= 0 && strings.HasPrefix(st.SQL[from:], noopExecuteOn) {
				st.SQL = st.SQL[:from] + strings.Repeat(" ", len(noopExecuteOn)) + st.SQL[from+len(noopExecuteOn):]
			}
		}
		if alter.Actions = keep; len(keep) == 0 {
			st.SQL = ""
		}
	}
}

// isPlaceholder says whether def is the (x) of the action that stands in for
// EXPAND TABLE.
func isPlaceholder(def *pg.Node) bool {
	items := def.GetList().GetItems()
	return len(items) == 1 && items[0].GetDefElem().GetDefname() == "x"
}
