package execute

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/motion"
)

// fetchRows is how many rows one Execute asks for inside a transaction block
// or while other slices are open. There a statement that the receiver stops
// early must not be cancelled, which would abort the transaction: it is run in
// portions, and the next one is simply not asked for. Elsewhere one Execute
// asks for everything, so that PostgreSQL may run it in parallel, and an early
// stop cancels it.
const fetchRows = 8192

// wakePortal does not exist. Closing it makes PostgreSQL answer at once, which
// lets the pump open the motion before the first row is there.
const wakePortal = "trunkline_wake"

// job is one slice command under way.
type job struct {
	q      *session
	cmd    *Command
	ctx    context.Context
	cancel context.CancelCauseFunc

	connects bool // PostgreSQL is told to connect to the row source first
	oneShot  bool // open, run and close in one command
	inBlock  bool // the slices run inside a transaction block
	syncs    int  // Sync messages sent whose ReadyForQuery is to come
	binds    int  // BindComplete messages to come
	run      *portal
	head     []byte // of the answer
}

// newJob checks c against the state of the session.
func (q *session) newJob(c *Command) (*job, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j := &job{q: q, cmd: c}
	j.inBlock = q.txStatus.Load() != 'I' || c.Begin != ""
	if c.Run != nil && q.icErr != nil {
		return nil, q.icErr
	}
	switch c.Op {
	case OpOpen:
		if len(q.open) > 0 {
			return nil, &motion.Error{Code: "55006", Message: "slices of another command are still open"}
		}
		j.oneShot = c.Run != nil && len(c.Slices) == 1
		j.binds = len(c.Slices)
		if c.Begin != "" {
			j.binds++
		}
		if c.Idle {
			j.binds++
		}
		if j.connects = !q.rowsConnected && c.hasInputs(); j.connects {
			j.binds++
		}
		q.open = make(map[int16]*portal, len(c.Slices))
		for i := range c.Slices {
			s := &c.Slices[i]
			p := &portal{copy: s.Copy, out: s.Out != nil, readOnly: readOnly(s.SQL), count: s.Count, writes: s.Writes, data: s.Data}
			if !j.oneShot {
				p.name = fmt.Sprintf("trunkline_%d", s.Index)
			}
			if s.Read != nil {
				p.pass = q.newPass(s)
			}
			q.open[s.Index] = p
		}
		if c.Run != nil {
			j.run = q.open[c.Run.Slice]
		}
	case OpRun:
		j.run = q.open[c.Run.Slice]
		if j.run == nil {
			return nil, &motion.Error{Code: "34000", Message: fmt.Sprintf("slice %d is not open", c.Run.Slice)}
		}
	}
	if j.run != nil {
		err := j.run.pass.issue()
		if err == nil && len(c.Run.Receivers) == 0 && !j.run.out && !j.run.writes {
			err = &motion.Error{Code: "08P01", Message: fmt.Sprintf("slice %d has no receivers", c.Run.Slice)}
		}
		if err != nil {
			if c.Op == OpOpen {
				q.open = nil
			}
			return nil, err
		}
	}
	if c.Op == OpOpen {
		if err := q.openMotions(c); err != nil {
			q.open = nil
			return nil, err
		}
	}
	parent := q.ctx
	if st := q.stmt.Load(); st != nil {
		parent = st.ctx
	}
	j.ctx, j.cancel = context.WithCancelCause(parent)
	return j, nil
}

// readOnly says whether sql certainly changes nothing, so that cancelling it
// loses nothing.
func readOnly(sql string) bool {
	word := strings.TrimLeft(sql, " \t\r\n(")
	if i := strings.IndexAny(word, " \t\r\n(*;"); i >= 0 {
		word = word[:i]
	}
	switch strings.ToUpper(word) {
	case "SELECT", "VALUES", "TABLE":
		return true
	case "COPY":
		up := strings.ToUpper(sql)
		return !strings.Contains(up, "INSERT") && !strings.Contains(up, "UPDATE") && !strings.Contains(up, "DELETE")
	}
	return false
}

// request returns the messages for PostgreSQL that start the job.
func (j *job) request() []byte {
	var b []byte
	c := j.cmd
	switch c.Op {
	case OpOpen:
		if c.Begin != "" {
			// In the extended protocol, so that nothing runs when it fails.
			b = appendFrontend(b, &pgproto3.Parse{Query: c.Begin})
			b = appendFrontend(b, &pgproto3.Bind{})
			b = appendFrontend(b, &pgproto3.Execute{})
		}
		if j.connects {
			b = appendFrontend(b, &pgproto3.Parse{Query: "SELECT pg_catalog.gp_motion_connect()"})
			b = appendFrontend(b, &pgproto3.Bind{})
			b = appendFrontend(b, &pgproto3.Execute{})
		}
		for i := range c.Slices {
			b = j.q.appendOpen(b, c, &c.Slices[i])
		}
		if c.Idle {
			// At the end of an Execute PostgreSQL stops the clock of statement_timeout,
			// and starts it at the next message.
			b = appendFrontend(b, &pgproto3.Parse{Query: "SELECT WHERE false"})
			b = appendFrontend(b, &pgproto3.Bind{})
			b = appendFrontend(b, &pgproto3.Execute{})
			j.q.parsed = parsed{}
		}
		if !c.Short {
			// The answers must come now: they say that the snapshots are taken.
			b = appendFrontend(b, &pgproto3.Flush{})
		}
		if j.run != nil {
			b = j.appendExecute(b)
		}
	case OpRun:
		b = appendFrontend(b, &pgproto3.Close{ObjectType: 'P', Name: wakePortal})
		b = appendFrontend(b, &pgproto3.Flush{})
		b = j.appendExecute(b)
	case OpClose:
		b = j.appendClose(b)
	}
	return b
}

// parsed is PostgreSQL's unnamed statement, if it is that of a slice which may
// come again.
type parsed struct {
	sql      string
	prepared uint64
	oids     []uint32 // of the parameters
	at       time.Time
}

// parsedAge is how long a statement is used again: its plan is made for tables as
// large as they were.
const parsedAge = time.Second

// appendParse appends the messages that make the slice's SQL the unnamed
// statement, none when it is.
func (q *session) appendParse(b []byte, c *Command, m *pgproto3.Parse) []byte {
	s := &c.Slices[0]
	if len(c.Slices) > 1 || c.Begin != "" || s.Prepared == 0 || s.Copy || s.Read != nil || len(s.Inputs) > 0 {
		q.parsed = parsed{}
		return appendFrontend(b, m)
	}
	p := &q.parsed
	if p.prepared == s.Prepared && p.sql == s.SQL && slices.Equal(p.oids, m.ParameterOIDs) && time.Since(p.at) < parsedAge {
		return b
	}
	*p = parsed{s.SQL, s.Prepared, m.ParameterOIDs, time.Now()}
	return appendFrontend(b, m)
}

func (q *session) appendOpen(b []byte, c *Command, s *Slice) []byte {
	parse := pgproto3.Parse{Query: s.SQL}
	bind := pgproto3.Bind{DestinationPortal: q.open[s.Index].name, ResultFormatCodes: s.ResultFormats}
	if n := len(s.Params); n > 0 {
		parse.ParameterOIDs = make([]uint32, n)
		bind.ParameterFormatCodes = make([]int16, n)
		bind.Parameters = make([][]byte, n)
		for i, p := range s.Params {
			parse.ParameterOIDs[i], bind.ParameterFormatCodes[i], bind.Parameters[i] = p.OID, p.Format, p.Value
		}
	}
	return appendFrontend(q.appendParse(b, c, &parse), &bind)
}

// appendExecute asks for the next portion of the running slice.
func (j *job) appendExecute(b []byte) []byte {
	e := pgproto3.Execute{Portal: j.run.name}
	if j.portions() && !j.run.copy {
		e.MaxRows = fetchRows
	}
	b = appendFrontend(b, &e)
	if j.oneShot {
		return j.appendSync(b)
	}
	return appendFrontend(b, &pgproto3.Flush{})
}

// portions says whether the running slice is asked for in portions.
func (j *job) portions() bool { return j.inBlock || !j.oneShot }

func (j *job) appendSync(b []byte) []byte {
	j.syncs++
	return appendFrontend(b, &pgproto3.Sync{})
}

// appendClose closes every open slice and ends an implicit transaction.
func (j *job) appendClose(b []byte) []byte {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	for _, p := range j.q.open {
		b = appendFrontend(b, &pgproto3.Close{ObjectType: 'P', Name: p.name})
	}
	j.q.open = nil
	return j.appendSync(b)
}

func appendFrontend(dst []byte, m pgproto3.FrontendMessage) []byte {
	b, err := m.Encode(dst)
	if err != nil { // only over-long messages, which the client could not have sent
		return dst
	}
	return b
}
